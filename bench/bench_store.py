"""Rows a second into PostgreSQL: the store's way against SQLAlchemy's executemany, side by side in one run.

    python bench/bench_store.py [--rows 40000] [--rounds 3] [--peer-python PATH] [--out FILE]

Every contender inserts the same rows (13 columns, unique key over three of them) in the same chunks, a transaction for
each, into a table of its own that is the same. The peers are SQLAlchemy's executemany with psycopg 3, which needs an
environment of its own (``--peer-python``; made under ``.cache`` when it is not given), and with pg8000, the driver that
segwatch itself uses. Rounds alternate, so that a busy neighbour meets all of them; the figure is the best round.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy

ROOT = Path(__file__).resolve().parent.parent
CHUNKS = (256, 5000)
COLUMNS = (
    "model version input_id event_time_us received_us sequence slices status sampling_probability confidence topic"
    " number offset"
).split()


def make_rows(count: int, start: int) -> list[tuple[Any, ...]]:
    """Rows like those of a camera fleet; ``start`` keeps rounds apart."""
    return [
        (
            "street",
            "3",
            f"cam{index % 50}-{start + index:09d}",
            1_795_000_000_000_000 + index * 33_000,
            1_795_000_000_200_000 + index * 33_000,
            f"cam{index % 50}-2026-11-23T02",
            '{"camera": "%d", "site": "berlin"}' % (index % 50),
            "ok",
            0.05,
            0.5 + (index % 100) / 300,
            "segwatch.predictions",
            index % 4,
            index // 4,
        )
        for index in range(count)
    ]


def chunks(rows: list[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    """Rows in transactions of ``size``."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def executemany(url: str, rows: list[tuple[Any, ...]], size: int) -> float:
    """Rows a second of SQLAlchemy Core's executemany."""
    engine = sqlalchemy.create_engine(url)
    table = sqlalchemy.Table("sample", sqlalchemy.MetaData(), autoload_with=engine)
    mappings = [[dict(zip(COLUMNS, row, strict=True)) for row in chunk] for chunk in chunks(rows, size)]
    with engine.connect():
        pass
    began = time.perf_counter()
    for chunk in mappings:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.insert(table), chunk)
    seconds = time.perf_counter() - began
    engine.dispose()
    return len(rows) / seconds


def through_store(url: str, rows: list[tuple[Any, ...]], size: int, known: bool) -> float:
    """Rows a second of ``Transaction.insert_samples``; ``known``: they are all there already (a replay)."""
    from monitor.settings import Settings, StoreSettings
    from monitor.store.store import Store
    from monitor.store.values import SampleRow

    with Store.open(Settings(store=StoreSettings(url=url)), write=True) as store:
        samples = [[SampleRow(*row) for row in chunk] for chunk in chunks(rows, size)]
        began = time.perf_counter()
        for chunk in samples:
            with store.transaction() as tx:
                new = tx.insert_samples(chunk)
            assert new.all() != known
        return len(rows) / (time.perf_counter() - began)


def peer_environment() -> Path:
    """An environment with SQLAlchemy and psycopg 3, made once."""
    folder = ROOT / ".cache" / "peers" / "psycopg"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "-q", f"sqlalchemy=={sqlalchemy.__version__}", "psycopg[binary]"],
            check=True,
        )
    return python


def run_peer(python: Path, url: str, count: int, start: int, size: int) -> float:
    """``executemany`` with psycopg, in the peer's environment."""
    address = url.replace("postgresql+pg8000", "postgresql+psycopg")
    command = [str(python), __file__, "--as-peer", json.dumps([address, count, start, size])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(rounds: int, count: int, python: Path) -> dict[str, Any]:
    """Best rates by contender and chunk size, and their ratios."""
    sys.path.insert(0, str(ROOT))
    from monitor.settings import Settings, StoreSettings
    from monitor.store.store import Store
    from tests.real.postgres import Postgres

    results: dict[str, Any] = {"rows": count, "rounds": rounds, "chunks": {}}
    with Postgres.start() as server:
        urls = {name: server.fresh_database() for name in ("segwatch", "pg8000", "psycopg")}
        for url in urls.values():
            Store.open(Settings(store=StoreSettings(url=url)), write=True).close()
        for size in CHUNKS:
            rates: dict[str, float] = {}
            for round_number in range(rounds):
                start = (CHUNKS.index(size) * rounds + round_number) * count
                few = max(size, count // 8)  # pg8000's executemany is slow: fewer rows will do
                rows = make_rows(count, start)
                contenders: dict[str, Callable[[], float]] = {
                    "segwatch": lambda: through_store(urls["segwatch"], rows, size, known=False),
                    "segwatch, rows known": lambda: through_store(urls["segwatch"], rows, size, known=True),
                    "executemany, psycopg": lambda: run_peer(python, urls["psycopg"], count, start, size),
                    "executemany, pg8000": lambda: executemany(urls["pg8000"], rows[:few], size),
                }
                for name, contender in contenders.items():
                    rates[name] = max(rates.get(name, 0.0), contender())
            peers = {name: rate for name, rate in rates.items() if name.startswith("executemany")}
            results["chunks"][str(size)] = {
                "rows_per_second": {name: round(rate) for name, rate in rates.items()},
                "ratio": {name: round(rates["segwatch"] / rate, 2) for name, rate in peers.items()},
            }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--as-peer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_peer:
        url, count, start, size = json.loads(options.as_peer)
        print(executemany(url, make_rows(count, start), size))
        return
    results = measure(options.rounds, options.rows, options.peer_python or peer_environment())
    text = json.dumps(results, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
