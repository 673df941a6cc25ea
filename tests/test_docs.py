"""Docs say what the program does: every command and option that they show exists, and every command is in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from monitor.cli import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def shown_commands(page: Path) -> Iterator[list[str]]:
    """Command lines in console blocks, without ``segwatch`` and what stands before it."""
    for block in re.findall(r"```(?:console|sh|bash)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"^\s*\$ ", "", line).split(" # ")[0].split(" | ")[0].split(" > ")[0]
            match = re.match(r"(?:[A-Z_]+=\S+ )*(?:\S*/)?segwatch( .*)?$", line)
            if match:
                yield shlex.split(match[1] or "")


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and the rest."""
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group):
        while rest and rest[0].startswith("--"):
            rest = rest[1:] if rest[0] in ("--debug", "--version", "--help") or "=" in rest[0] else rest[2:]
        if not rest:
            return command, []
        found = command.get_command(click.Context(command), rest[0])
        assert found is not None, f"no command {rest[0]!r}"
        command, rest = found, rest[1:]
    return command, rest


def leaves(group: click.Group, path: str = "segwatch") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, f"{path} {name}")
        else:
            yield f"{path} {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_that_a_page_shows_exist(page: Path) -> None:
    for words in shown_commands(page):
        command, rest = resolve(words)
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        known |= {"--help", "--config", "--debug"}
        for word in rest:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{page.name}: {' '.join(words)}: no option {word}"


@pytest.mark.parametrize("name", sorted(leaves(cli)))
def test_every_command_has_help_and_is_in_the_reference(name: str) -> None:
    command, _ = resolve(name.split()[1:])
    assert command.help, name
    reference = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    words = name.split()
    assert name in reference or (f"`{words[-1]} " in reference and words[1] in reference), name


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
