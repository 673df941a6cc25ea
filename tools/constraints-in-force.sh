#!/usr/bin/env bash
# Prints the constraints for an environment: those of the project, but with the torch that is already there.
#
# PyPI's torch brings CUDA's libraries (5 GB). A CPU build, or another version in pyproject.toml's range, that
# someone put into the environment on purpose must not be replaced by it. pip takes 2.15.0+cpu for ==2.15.0,
# so only another version needs the constraint changed; torchvision belongs to exactly one torch, so it goes too.
set -euo pipefail
python=$1
cd "$(dirname "$0")/.."

installed=$("$python" - <<'PYTHON'
from importlib.metadata import PackageNotFoundError, version

for name in ("torch", "torchvision"):
    try:
        print(f"{name}=={version(name)}")
    except PackageNotFoundError:
        pass
PYTHON
)
if [[ $installed == torch==* ]]; then
  grep -vE '^(torch|torchvision)==' constraints.txt
  printf '%s\n' "$installed"
else
  cat constraints.txt
fi
