"""A real Prometheus over data that are backfilled as blocks, and what it says of them."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.real.component import await_ready, free_ports, spawn, stop

Labels = tuple[tuple[str, str], ...]
MAX_STEPS = 10_000
"""Prometheus answers at most 11,000 points a series."""


def tool(name: str) -> str:
    """The path of a program. Raises SystemExit where it is not installed."""
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is not installed (Debian's package prometheus has it)")
    return found


def write_series(file: Path, times: Sequence[int], series: Mapping[str, NDArray[Any]]) -> None:
    """OpenMetrics of counters: ``series`` maps ``name{labels}`` to values, NaN where there is no sample."""
    families: dict[str, list[str]] = {}
    for text in series:
        families.setdefault(text.partition("{")[0], []).append(text)
    with file.open("w", encoding="utf-8") as out:
        for family, texts in families.items():
            kind = "counter" if family.endswith("_total") else "gauge"
            out.write(f"# TYPE {family.removesuffix('_total') if kind == 'counter' else family} {kind}\n")
            for text in texts:
                values = series[text]
                kept = ~np.isnan(values)
                stamps = np.asarray(times)[kept].tolist()
                out.writelines(
                    f"{text} {value:.12g} {at}\n" for value, at in zip(values[kept].tolist(), stamps, strict=True)
                )
        out.write("# EOF\n")


def backfill(file: Path, data: Path) -> None:
    """Turn a file of OpenMetrics into blocks of a Prometheus's data folder."""
    command = [tool("promtool"), "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=744h", str(file)]
    done = subprocess.run([*command, str(data)], capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        raise SystemExit(f"promtool: {done.stderr.strip()[-500:]}")


@contextmanager
def served(folder: Path, config: str = "{}\n") -> Iterator[str]:
    """A Prometheus on ``folder/data``; yields its address."""
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    (port,) = free_ports(1)
    command = [
        tool("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
    ]
    command += ["--storage.tsdb.retention.time=200d", f"--web.listen-address=127.0.0.1:{port}"]
    command += ["--query.max-samples=400000000", "--query.timeout=30m", "--query.lookback-delta=5m"]
    base = f"http://127.0.0.1:{port}"
    process = spawn(command, folder / "log")
    try:
        await_ready(process, folder / "log", lambda: _ready(base), 120, "Prometheus")
        yield base
    finally:
        stop(process)


def _ready(base: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask(base: str, path: str, **arguments: Any) -> Any:
    """``data`` of an answer of the API."""
    body = urllib.parse.urlencode(arguments).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{base}/api/v1/{path}", body), timeout=1800) as answer:
        return json.load(answer)["data"]


def over_time(base: str, expr: str, times: NDArray[np.int64]) -> dict[Labels, NDArray[np.float64]]:
    """An expression at evenly spaced times: values of each series, NaN where it has none.

    A value that is itself NaN or infinite raises ValueError: rules must not give such.
    """
    step = int(times[1] - times[0])
    found: dict[Labels, NDArray[np.float64]] = {}
    for begin in range(0, len(times), MAX_STEPS):
        part = times[begin : begin + MAX_STEPS]
        for one in ask(base, "query_range", query=expr, start=int(part[0]), end=int(part[-1]), step=step)["result"]:
            labels = tuple(sorted(one["metric"].items()))
            values = found.setdefault(labels, np.full(len(times), math.nan))
            at = np.array([int(stamp) for stamp, _ in one["values"]])
            numbers = np.array([float(value) for _, value in one["values"]])
            if not np.isfinite(numbers).all():
                raise ValueError(f"{expr} gave NaN or Inf")
            values[(at - times[0]) // step] = numbers
    return found
