"""Alertmanager's configuration as a whole (0.25 or later), and its templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import yaml

from alerts.alertmanager.inhibition import inhibit_rules
from alerts.alertmanager.maintenance import Window
from alerts.alertmanager.receivers import Receivers
from alerts.alertmanager.routes import routes
from alerts.alertmanager.text import TEMPLATE_FILE, TEMPLATES
from alerts.rules import MARK

CONFIG_FILE: Final = "alertmanager.yml"


def render_alertmanager(receivers: Receivers, windows: Sequence[Window] = ()) -> dict[str, str]:
    """File name to text."""
    tree = {
        "route": routes(windows),
        "inhibit_rules": inhibit_rules(),
        **({"time_intervals": [window.to_dict() for window in windows]} if windows else {}),
        "receivers": receivers.to_list(),
        "templates": [TEMPLATE_FILE],
    }
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=10_000)
    return {CONFIG_FILE: f"{MARK}\n{text}", TEMPLATE_FILE: f"{{{{/* {MARK} */}}}}\n{TEMPLATES}"}
