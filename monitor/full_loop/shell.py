"""segwatch's commands, run in this process as a user would type them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from monitor.settings import PREFIX

Say = Callable[[str], None]
INDENT = "   "


class Shell:
    """``root``: the command ``segwatch`` itself. Errors are raised as the commands raise them."""

    def __init__(self, root: click.Command, config: Path, say: Say) -> None:
        self._root = root
        self._config = config
        self._say = say

    def __call__(self, *words: object, show: bool = True) -> str:
        """What the command prints; with ``show`` said, too, below the command."""
        arguments = [str(word) for word in words]
        if show:
            self._say(f"{INDENT}$ segwatch {shlex.join(arguments)}")
        out = io.StringIO()
        with _own_settings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            # Progress goes to stderr. standalone_mode=False: errors are exceptions, not exit codes.
            self._root.main(["--config", str(self._config), *arguments], prog_name="segwatch", standalone_mode=False)
        text = out.getvalue().rstrip("\n")
        if show:
            for line in text.splitlines():
                self._say(INDENT + line)
        return text

    def json(self, *words: object) -> Any:
        """What the command prints with ``--json``; nothing is said."""
        return json.loads(self(*words, "--json", show=False))


@contextlib.contextmanager
def _own_settings() -> Iterator[None]:
    """The demo's file alone says how it runs: variables are those of a real installation, which it must not touch."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(PREFIX)}
    try:
        yield
    finally:
        os.environ.update(taken)
