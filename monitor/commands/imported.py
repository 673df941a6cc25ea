"""What `segwatch labels import` and `labels pull` print of what they have done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from monitor.commands.common import print_json

if TYPE_CHECKING:
    from monitor.label_import import Imported


def show_imported(done: Imported, as_json: bool) -> None:
    outcomes = done.outcomes
    shown = {name: outcomes.get(name, 0) for name in ("accepted", "replaced", "duplicate", "superseded", "purged")}
    refused, left_out = done.refused.total(), done.left_out.total()
    if as_json:
        late = {"unjoinable": done.unjoinable, "uncorrectable": done.uncorrectable}
        bad = {"refused": refused, "left_out": left_out}
        print_json({"labels": sum(outcomes.values()), "outcomes": shown, "judged": done.judged, **late, **bad})
        return
    text = ", ".join(f"{count} {name}" for name, count in shown.items() if count)
    text = f"{sum(outcomes.values())} labels: {text or 'none'}; {done.judged} records judged by them"
    if done.unjoinable:
        text += f"; {done.unjoinable} unjoinable: later than quality.join_days after the event, or the masks are gone"
    if done.uncorrectable:
        text += f"; {done.uncorrectable} corrections as late as that: what was said before stays"
    if refused:
        text += f"; {refused} refused, now that their predictions are there: they are in the dead letters"
    if left_out:
        text += f"; {left_out} left out, since they do not fit their predictions"
    click.echo(text)
