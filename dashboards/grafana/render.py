"""The table of all dashboards, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana.debug import debug
from dashboards.grafana.executive import executive
from dashboards.grafana.itself import itself
from dashboards.grafana.on_call import on_call

PAGES: Final = "http://localhost:8600"
"""Where docker-compose.yml serves segwatch's pages."""

DASHBOARDS: Final[dict[str, Callable[[str], Dashboard]]] = {
    "executive": executive,
    "on-call": on_call,
    "debug": debug,
    "itself": itself,
}
"""By file name; each is given the address of segwatch's pages."""


UNKNOWN: Final = {
    "annotations": ("placement",),
    "links": ("placement",),
    "templating": ("auto", "auto_count", "auto_min", "skipUrlSync"),
}
"""What grafana-foundation-sdk writes for a newer Grafana, or for variables of another type."""


def render(pages: str = PAGES) -> dict[str, str]:
    """File name to JSON of each dashboard; ``pages``: address of segwatch's pages, for links."""
    return {f"{name}.json": _json(make(pages.rstrip("/"))) for name, make in DASHBOARDS.items()}


def _json(dashboard: Dashboard) -> str:
    tree: dict[str, Any] = json.loads(JSONEncoder().encode(dashboard))
    for part, words in UNKNOWN.items():
        for entry in tree[part] if part == "links" else tree[part]["list"]:
            for word in words:
                entry.pop(word, None)
    for panel in tree["panels"]:
        panel.get("options", {}).pop("footer", None)
    return json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write(folder: Path, pages: str) -> list[Path]:
    """Write all dashboards to a folder. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / name: text for name, text in render(pages).items()}
    for file, text in files.items():
        file.write_text(text, encoding="utf-8")
    return list(files)
