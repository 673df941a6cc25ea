"""How long does a page take with 1,000,000 samples and 1,000 hourly windows stored?

A real PostgreSQL, filled by bench/page_fill.py, and ``segwatch run --role web`` as a process of its own. Every kind of
page is asked for over HTTP, each time about another window or sample, until its whole HTML is there; its first byte
comes less than a millisecond before, since pages are rendered at once.

Cold: the server process is new and PostgreSQL was restarted, so that its buffers are empty (the system's are not);
pages follow each other in another order in each round, and the median of the rounds counts. A page that says that some
of it is still being figured out is loaded until it does not, before the next one is asked for: how long that takes is
told, too. Warm: the median of repeated loads. Beside them stand two things measured in the same run: ``SELECT 1``
through the same driver, and the style sheet, which costs neither a query nor a template. Queries are counted in a
process with the same application. CPU time is that of the web process and of PostgreSQL together.

    python -m bench.bench_pages [--hours 1000] [--loads 15] [--rounds 5] [--write-docs]

Prints a table, and writes bench-results/pages.json; ``--write-docs`` also puts the table into docs/pages.md. Says which
pages are above 300 ms; fails where one needs as much in CPU time, which no neighbour can excuse, or more than 20
queries.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.parse import urlsplit

import sqlalchemy
from starlette.testclient import TestClient

from bench import page_fill
from bench.page_fill import CANARY, HOUR_US, HOURS, LABELLED, LAST_US, RECORDS, STABLE
from bench.rig import ROOT, write_result
from bench.workload import MODEL
from dashboards.addresses import map_path, model_path, picture_path, sample_path, window_path
from monitor.live_settings import LiveSettings
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.windows import DAY_US, to_text
from tests.real.component import await_ready, free_ports, port_open, spawn, stop
from tests.real.postgres import Postgres

MOST_MS: Final = 300.0
MOST_QUERIES: Final = 20
STATIC: Final = "/static/style.css"
UNDER_WAY: Final = b"under-way"
"""Of the part of a page which says that more of it will come."""
MOST_WAIT_S: Final = 300.0
DOCS: Final = ROOT / "docs" / "pages.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

Maker = Callable[[random.Random], str]


@dataclass(frozen=True)
class Figure:
    """Milliseconds until all of the page is there; ``first_byte_ms`` of the warm loads.

    ``complete_ms``: cold, until nothing of the page was under way any more.
    ``cpu_ms``: CPU time of the web process and of PostgreSQL for a warm load, which a busy neighbour changes less.
    """

    cold_ms: float
    complete_ms: float
    warm_ms: float
    cpu_ms: float
    first_byte_ms: float
    worst_ms: float
    queries: int
    kilobytes: float


def pages(hours: int) -> dict[str, Maker]:
    """Each kind of page, as a maker of addresses."""

    def hour(rng: random.Random) -> int:
        return rng.randrange(hours)

    def window(
        rng: random.Random,
        length_us: int = HOUR_US,
        slice_key: str = "",
        part: Callable[..., str] = window_path,
        **query: object,
    ) -> str:
        back = hour(rng) * HOUR_US
        start_us = (LAST_US - back) // length_us * length_us
        if length_us == DAY_US:  # days were copied from the last one
            start_us = (LAST_US // DAY_US - rng.randrange(max(1, hours // 24))) * DAY_US
        return part(MODEL, STABLE, to_text(start_us), length_us // 1_000_000, slice_key, **query)

    def sample(rng: random.Random, number: int | None = None) -> str:
        own = rng.randrange(RECORDS) if number is None else number
        return f"h{HOURS - 1 - hour(rng):04d}-{own:03d}"

    def at(path: str) -> Maker:
        return lambda rng: path

    def picture(view: str) -> Maker:
        return lambda rng: picture_path(MODEL, STABLE, f"h{HOURS - 1:04d}-{rng.randrange(LABELLED):03d}", view, 192)

    return {
        "overview": at("/"),
        "model, hours": at(model_path(MODEL, STABLE)),
        "model, days": at(f"{model_path(MODEL, STABLE)}?length=86400"),
        "model, 300 hours ago": lambda rng: (
            f"{model_path(MODEL, STABLE)}?length=3600&until={to_text(LAST_US - min(300, hours - 2) * HOUR_US)}"
        ),
        "window, typical first": window,
        "window, worst first": lambda rng: window(rng, order="worst"),
        "window, newest first, page 20": lambda rng: window(rng, order="newest", page=20),
        "window, cell of confusion": lambda rng: window(rng, cell="2-2"),
        "window, slice": lambda rng: window(rng, slice_key="site=lyon", order="worst"),
        "window of a day, worst first": lambda rng: window(rng, DAY_US, order="worst"),
        "window of a day, newest first, page 100": lambda rng: window(rng, DAY_US, order="newest", page=100),
        "embedding map": lambda rng: window(rng, part=map_path),
        "embedding map, cell of a day": lambda rng: window(rng, DAY_US, part=map_path, cell="6-4"),
        "sample": lambda rng: sample_path(MODEL, STABLE, sample(rng)),
        "sample with labels": lambda rng: sample_path(MODEL, STABLE, sample(rng, rng.randrange(LABELLED))),
        "picture, prediction": picture("prediction"),
        "picture, difference": picture("difference"),
        "relabel queue": at("/relabel"),
        "relabel queue, one kind": at("/relabel?kind=spot_check&model=street"),
        "canary, list": at("/canary"),
        "canary, comparison": at(f"/canary?model={MODEL}&stable={STABLE}&canary={CANARY}"),
        "canary, not watched": at(f"/canary?model={MODEL}&stable={CANARY}&canary={STABLE}"),
        "actions": at("/actions"),
        "actions, page 30": at("/actions?page=30"),
        "action": lambda rng: f"/actions/action-{rng.randrange(1, 1000)}",
        "objectives": at("/slo"),
        "audit": at("/audit"),
        "audit, one kind": at("/audit?what=relabel.claim"),
        "runbook": at("/runbooks/SegwatchDrift.md"),
        "sign-in": at("/sign-in"),
    }


@dataclass
class Service:
    """PostgreSQL and a web process, both to be started anew."""

    postgres: Postgres
    url: str
    folder: Path
    process: Any = None
    port: int = 0

    def start(self) -> None:
        (self.port,) = free_ports(1)
        environ = {
            "SEGWATCH_STORE_URL": self.url,
            "SEGWATCH_DATA_DIR": str(self.folder),
            "SEGWATCH_WEB_PORT": str(self.port),
            "SEGWATCH_LOG_LEVEL": "warning",
        }
        log = self.folder / "web.log"
        command = [sys.executable, "-c", "from monitor.cli import main; main()", "run", "--role", "web"]
        self.process = spawn(command, log, {**os.environ, "PYTHONPATH": str(ROOT), **environ})
        await_ready(self.process, log, lambda: port_open(self.port), 60, "segwatch")

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process)

    def restart(self) -> None:
        """With empty buffers and no connection."""
        self.stop()
        self.postgres.execute("CHECKPOINT")
        self.postgres.kill()
        self.postgres.restart()
        self.start()

    def load(self, path: str) -> tuple[float, float, int]:
        """Seconds to the first byte and to the last, and how many came."""
        first, whole, body = self._load(path)
        return first, whole, len(body)

    def complete(self, path: str) -> tuple[float, float]:
        """Seconds until the page is there, and until nothing of it is under way any more."""
        began = time.perf_counter()
        _, whole, body = self._load(path)
        while UNDER_WAY in body:
            if time.perf_counter() - began > MOST_WAIT_S:
                raise SystemExit(f"still under way after {MOST_WAIT_S:g} s: {path}")
            time.sleep(0.1)
            body = self._load(path)[2]
        return whole, time.perf_counter() - began

    def _load(self, path: str) -> tuple[float, float, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.connect()
        began = time.perf_counter()
        connection.request("GET", path, headers={"accept": "text/html"})
        answer = connection.getresponse()
        first = time.perf_counter() - began
        body = answer.read()
        whole = time.perf_counter() - began
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"{answer.status} {path}: {body[:300]!r}")
        return first, whole, body


@contextmanager
def counted(own: Settings) -> Iterator[Callable[[str], int]]:
    """How many statements the same application sends for a path."""
    from dashboards.detail_pages import detail_pages
    from dashboards.page_data import PageData
    from dashboards.pages import pages as overview
    from dashboards.pooled_quality import PooledQuality
    from dashboards.runbook_pages import runbook_pages
    from monitor.images import open_images
    from monitor.web import create_app
    from monitor.web_canary import CanaryState
    from monitor.web_state import StoreState

    with Store.open(own, write=False) as store:
        live = LiveSettings(own, lambda: own)
        state = StoreState(store, live)
        # Nothing behind a page's back, so that none counts another's.
        data = replace(PageData.of(store, live, open_images(own)), pooled=PooledQuality(at_once=sys.maxsize))
        canaries = CanaryState(store, live, patience_s=MOST_WAIT_S)
        routers = [overview(state), detail_pages(data, canaries), runbook_pages()]
        client = TestClient(create_app(state, "127.0.0.1", routers), base_url="http://localhost")
        seen: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            seen.append(statement)

        sqlalchemy.event.listen(store._database.engine, "before_cursor_execute", note)

        def count(path: str) -> int:
            seen.clear()
            answer = client.get(path)
            assert answer.status_code == 200, (path, answer.text[:300])
            return len(seen)

        yield count


def cpu_ms(service: Service) -> float:
    """CPU time so far of the web process and of PostgreSQL with all its backends."""
    server = service.postgres.engine.process  # type: ignore[union-attr]
    assert server is not None
    own = {service.process.pid, server.pid}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == server.pid:
                own.add(int(entry.parent.name))
    total = 0
    for pid in own:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(OSError):
                total += int(task.read_text().split()[0])
    return total / 1e6


def round_trip_ms(own: Settings, times: int = 200) -> float:
    """Median of ``SELECT 1``, connection taken and given back."""
    taken = []
    with Store.open(own, write=False) as store:
        for _ in range(times):
            began = time.perf_counter()
            with store._database.read() as connection:
                connection.execute(sqlalchemy.text("SELECT 1")).all()
            taken.append(time.perf_counter() - began)
    return 1e3 * median(taken)


def cold(service: Service, makers: Mapping[str, Maker], rounds: int) -> dict[str, tuple[float, float]]:
    """Medians over rounds of the first load of each page, and of the time until it was complete, in milliseconds."""
    rng = random.Random(1)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
    for _ in range(rounds):
        service.restart()
        service.load("/-/ready")
        for name in rng.sample(list(makers), len(makers)):
            taken[name].append(service.complete(makers[name](rng)))
    return {
        name: (1e3 * median(first for first, _ in times), 1e3 * median(last for _, last in times))
        for name, times in taken.items()
    }


def measure(service: Service, own: Settings, makers: Mapping[str, Maker], loads: int, rounds: int) -> dict[str, Any]:
    first_loads = cold(service, makers, rounds)
    rng, used = random.Random(2), dict[str, float]()
    warm: dict[str, list[tuple[float, float, int]]] = {}
    for name, maker in {**makers, "style sheet": lambda _: STATIC}.items():
        service.complete(maker(rng))
        before = cpu_ms(service)
        warm[name] = [service.load(maker(rng)) for _ in range(loads)]
        used[name] = (cpu_ms(service) - before) / loads
    static_ms = 1e3 * median(one[1] for one in warm.pop("style sheet"))
    figures: dict[str, Figure] = {}
    with counted(own) as count:
        for name, maker in makers.items():
            count(maker(rng))  # baselines are read once a process
            figures[name] = Figure(
                *first_loads[name],
                1e3 * median(one[1] for one in warm[name]),
                used[name],
                1e3 * median(one[0] for one in warm[name]),
                1e3 * max(one[1] for one in warm[name]),
                max(count(maker(rng)) for _ in range(3)),
                median(one[2] for one in warm[name]) / 1024,
            )
    return {"static_ms": static_ms, "select_1_ms": round_trip_ms(own), "pages": figures}


def table(found: Mapping[str, Any]) -> list[str]:
    """In Markdown, the slowest first."""
    pages_: dict[str, Figure] = found["pages"]
    static_ms = found["static_ms"]
    lines = [
        "| Page | Cold, ms | complete, ms | Warm, ms | Warm, times the style sheet | CPU, ms | Queries |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in sorted(pages_.items(), key=lambda pair: -pair[1].warm_ms):
        times = f"{one.cold_ms:.0f} | {one.complete_ms:.0f} | {one.warm_ms:.0f} | {one.warm_ms / static_ms:.0f}"
        lines.append(f"| {name} | {times} | {one.cpu_ms:.0f} | {one.queries} |")
    return lines


def write_docs(lines: Sequence[str]) -> None:
    text = DOCS.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    DOCS.write_text("\n".join([f"{head}{BEGIN}", "", *lines, "", f"{END}{rest.partition(END)[2]}"]), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, default=HOURS)
    parser.add_argument("--loads", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="pages whose name contains this")
    parser.add_argument("--write-docs", action="store_true")
    options = parser.parse_args()
    makers = {name: maker for name, maker in pages(options.hours).items() if options.only in name}
    with tempfile.TemporaryDirectory(prefix="segwatch-bench-") as name, Postgres.start() as postgres:
        folder, url = Path(name), postgres.fresh_database()
        began = time.monotonic()
        page_fill.fill(folder, url, options.hours)
        samples = postgres.execute("SELECT count(*) FROM sample", urlsplit(url).path[1:])[0][0]
        print(f"{samples:,} samples in {options.hours:,} hours, filled in {time.monotonic() - began:.0f} s")
        service = Service(postgres, url, folder)
        try:
            found = measure(service, page_fill.settings(folder, url), makers, options.loads, options.rounds)
        finally:
            service.stop()
    lines = table(found)
    print("\n".join(lines))
    print(f"style sheet {found['static_ms']:.2f} ms, SELECT 1 {found['select_1_ms']:.2f} ms")
    figures = {name: asdict(one) for name, one in found["pages"].items()}
    write_result("pages", {**found, "samples": samples, "hours": options.hours, "pages": figures})
    if options.write_docs:
        said = f"{samples:,} samples, {options.hours:,} hourly windows; style sheet {found['static_ms']:.1f} ms, "
        said += f"load of the machine {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores; "
        write_docs([f"{said}`SELECT 1` {found['select_1_ms']:.2f} ms.", "", *lines])
    slow = [name for name, one in found["pages"].items() if one.warm_ms > MOST_MS]
    print(f"warm above the target of {MOST_MS:g} ms: {', '.join(slow) or 'none'}")
    dear = [name for name, one in found["pages"].items() if one.cpu_ms > MOST_MS or one.queries > MOST_QUERIES]
    if dear:
        raise SystemExit(f"more than {MOST_MS:g} ms of CPU time or {MOST_QUERIES} queries: {', '.join(dear)}")


if __name__ == "__main__":
    main()
