"""How fast do rows get into PostgreSQL?

The store's way (``Transaction.insert_samples``) against SQLAlchemy's executemany, in one run. Every contender inserts
the same rows (13 columns, unique key over three of them) in the same chunks, a transaction for each, into a table of
its own with the same indexes. The peers are executemany with psycopg 3, in an environment of its own (made under
``.cache`` when ``--peer-python`` is not given), and with pg8000, the driver that segwatch itself uses. The store also
meets rows that are all known already, as in a replay.

Rounds alternate, so that a busy neighbour meets all of them; a figure is the best round's. Beside the rate stands the
CPU time of client and server together, which a neighbour changes less.

    python bench/bench_store.py [--rows 40000] [--rounds 3] [--peer-python PATH]

Prints a table, and writes bench-results/store.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy

ROOT = Path(__file__).resolve().parent.parent
CHUNKS = (256, 5000)
TARGET = 5.0
COLUMNS = [
    *("model", "version", "input_id", "event_time_us", "received_us", "sequence", "slices", "status"),
    *("sampling_probability", "confidence", "topic", "number", "offset"),
]
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Figure:
    rows_per_second: float
    cpu_us_per_row: float
    """Of client and server together."""


def make_rows(count: int, start: int) -> list[Row]:
    """Rows like those of a camera fleet; ``start`` keeps rounds apart."""
    return [
        (
            "street",
            "3",
            f"cam{index % 50}-{start + index:09d}",
            1_795_000_000_000_000 + index * 33_000,
            1_795_000_000_200_000 + index * 33_000,
            f"cam{index % 50}-2026-11-23T02",
            f'{{"camera": "{index % 50}", "site": "berlin"}}',
            "ok",
            0.05,
            0.5 + (index % 100) / 300,
            "segwatch.predictions",
            index % 4,
            index // 4,
        )
        for index in range(count)
    ]


def chunks(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    """Rows in transactions of ``size``."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def measure(work: Callable[[], None], rows: int, server_pid: int) -> Figure:
    """Time ``work``, whose server is the process ``server_pid``."""
    server, client, began = _cpu_seconds(server_pid), time.process_time(), time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    cpu_seconds = time.process_time() - client + _cpu_seconds(server_pid) - server
    return Figure(rows / seconds, 1e6 * cpu_seconds / rows)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().split()
    return (int(fields[13]) + int(fields[14])) / TICKS_PER_SECOND  # utime, stime


def executemany(url: str, count: int, start: int, size: int) -> Figure:
    """SQLAlchemy Core's executemany."""
    engine = sqlalchemy.create_engine(url)
    table = sqlalchemy.Table("sample", sqlalchemy.MetaData(), autoload_with=engine)
    rows = make_rows(count, start)
    mappings = [[dict(zip(COLUMNS, row, strict=True)) for row in chunk] for chunk in chunks(rows, size)]
    with engine.connect() as connection:
        pid = connection.scalar(sqlalchemy.text("SELECT pg_backend_pid()"))

    def work() -> None:
        for chunk in mappings:
            with engine.begin() as connection:
                connection.execute(sqlalchemy.insert(table), chunk)

    figure = measure(work, count, pid or 0)
    engine.dispose()
    return figure


def through_store(url: str, count: int, start: int, size: int, known: bool) -> Figure:
    """``Transaction.insert_samples``; ``known``: the rows are all there already."""
    from monitor.settings import Settings, StoreSettings
    from monitor.store.store import Store
    from monitor.store.values import SampleRow

    with Store.open(Settings(store=StoreSettings(url=url)), write=True) as store:
        samples = [[SampleRow(*row) for row in chunk] for chunk in chunks(make_rows(count, start), size)]
        with store._database.read() as connection:
            pid = connection.scalar(sqlalchemy.text("SELECT pg_backend_pid()"))

        def work() -> None:
            for chunk in samples:
                with store.transaction() as tx:
                    new = tx.insert_samples(chunk)
                assert new.any() != known

        return measure(work, count, pid or 0)


def psycopg_environment() -> Path:
    """An environment with SQLAlchemy and psycopg 3, made once."""
    folder = ROOT / ".cache" / "peers" / "psycopg"
    python = folder / "bin" / "python"
    if not python.exists():
        needs = [f"sqlalchemy=={sqlalchemy.__version__}", "psycopg[binary]>=3.2,<4"]
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        # Without PYTHONPATH: pip would take this checkout for one of the environment's packages.
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run([str(python), "-m", "pip", "install", "-q", *needs], check=True, env=clean)
    return python


def with_psycopg(python: Path, url: str, *numbers: int) -> Figure:
    """``executemany`` in the peer's environment."""
    address = url.replace("postgresql+pg8000", "postgresql+psycopg")
    command = [str(python), __file__, "--as-peer", json.dumps([address, *numbers])]
    return Figure(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def compare(rounds: int, count: int, python: Path) -> dict[int, dict[str, Figure]]:
    """Best figures by chunk size and contender."""
    from monitor.settings import Settings, StoreSettings
    from monitor.store.store import Store
    from tests.real.postgres import Postgres

    best: dict[int, dict[str, Figure]] = {size: {} for size in CHUNKS}
    with Postgres.start() as server:
        urls = {name: server.fresh_database() for name in ("store", "pg8000", "psycopg")}
        for url in urls.values():
            Store.open(Settings(store=StoreSettings(url=url)), write=True).close()
        for number, size in enumerate(CHUNKS):
            few = max(size, count // 8)  # pg8000's executemany waits for every row: fewer will do
            for start in range(number * rounds * count, (number + 1) * rounds * count, count):
                contenders: Mapping[str, Callable[[], Figure]] = {
                    "store": partial(through_store, urls["store"], count, start, size, known=False),
                    "store, rows known": partial(through_store, urls["store"], count, start, size, known=True),
                    "executemany, psycopg": partial(with_psycopg, python, urls["psycopg"], count, start, size),
                    "executemany, pg8000": partial(executemany, urls["pg8000"], few, start, size),
                }
                for name, contender in contenders.items():
                    now, before = contender(), best[size].get(name)
                    best[size][name] = now if before is None else _better(now, before)
    return best


def _better(one: Figure, other: Figure) -> Figure:
    return Figure(max(one.rows_per_second, other.rows_per_second), min(one.cpu_us_per_row, other.cpu_us_per_row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", type=Path, help="of an environment with SQLAlchemy and psycopg 3")
    parser.add_argument("--as-peer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_peer:
        print(json.dumps(asdict(executemany(*json.loads(options.as_peer)))))
        return
    sys.path.insert(0, str(ROOT))
    best = compare(options.rounds, options.rows, options.peer_python or psycopg_environment())
    results: dict[str, Any] = {"rows": options.rows, "rounds": options.rounds, "target_ratio": TARGET, "chunks": {}}
    print(
        f"{'rows a transaction':>18}  {'contender':<22} {'rows/s':>9} {'CPU us/row':>11} {'store is':>9} {'in CPU':>7}"
    )
    for size, figures in best.items():
        store = figures["store"]
        results["chunks"][str(size)] = entry = {}
        for name, figure in figures.items():
            ratio = store.rows_per_second / figure.rows_per_second
            cpu_ratio = figure.cpu_us_per_row / store.cpu_us_per_row
            entry[name] = {**asdict(figure), "store_is_faster_by": ratio, "store_needs_less_cpu_by": cpu_ratio}
            print(
                f"{size:>18}  {name:<22} {figure.rows_per_second:>9,.0f} {figure.cpu_us_per_row:>11.2f}"
                f" {ratio:>8.1f}x {cpu_ratio:>6.1f}x"
            )
    folder = ROOT / "bench-results"
    folder.mkdir(exist_ok=True)
    (folder / "store.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
