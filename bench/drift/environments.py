"""An environment of its own for every peer, made once under ``.cache/peers``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNNERS = Path(__file__).resolve().parent / "peers"
CACHE = ROOT / ".cache" / "peers"
STAMP = "requirements.txt"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


class PeerMissing(Exception):
    """A peer's environment cannot be made or its runner fails; the text says why."""


def peers() -> list[str]:
    """Names of all peers: those with a requirements file beside their runner."""
    return sorted(file.stem for file in RUNNERS.glob("*.txt"))


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, made from its requirements file where it is not there yet.

    Segwatch's own packages stand last on its path, so that torch (5 GB) need not be there twice; what the peer
    wants in another version it gets in its own environment, which comes first.

    Raises:
        PeerMissing: pip cannot install it.
    """
    wanted = (RUNNERS / f"{peer}.txt").read_text()
    folder = CACHE / f"drift-{peer}"
    stamp, python = folder / STAMP, folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "segwatch-environment.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    install = [str(python), "-m", "pip", "install", "-q", "-r", str(RUNNERS / f"{peer}.txt")]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerMissing(f"pip: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    stamp.write_text(wanted)
    return python


def environ() -> dict[str, str]:
    """One thread each, so that CPU times compare; no library calls home."""
    quiet = {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **ONE_THREAD, **quiet, "PYTHONPATH": str(ROOT)}
