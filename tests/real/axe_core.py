"""axe-core, which finds faults of accessibility in a page: fetched once from npm into ``.cache``, at one version."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path

from tests.real.component import unavailable

VERSION = "4.14.1"
SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
FOLDER = Path(__file__).resolve().parents[2] / ".cache"


@cache
def axe_source() -> str:
    """Its script, to be evaluated in a page."""
    file = FOLDER / f"axe-core-{VERSION}.tgz"
    if not file.exists():
        if shutil.which("npm") is None:
            unavailable("axe-core", "npm is missing")
        FOLDER.mkdir(exist_ok=True)
        command = ["npm", "pack", f"axe-core@{VERSION}", "--pack-destination", str(FOLDER), "--silent"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            unavailable("axe-core", done.stderr.strip()[-300:])
    assert hashlib.sha256(file.read_bytes()).hexdigest() == SHA256, f"{file} is not axe-core {VERSION}"
    with tarfile.open(file) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()
