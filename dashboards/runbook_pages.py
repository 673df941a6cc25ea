"""Runbooks at ``/runbooks/NAME.md``, where alerts point: the files of ``docs/runbooks``, which the package carries."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

from fastapi import APIRouter, Response
from markdown_it import MarkdownIt
from markupsafe import Markup

from dashboards.render import templates
from monitor.version import __version__

INDEX: Final = "README"


def runbook_pages() -> APIRouter:
    """The pages; pass them to ``monitor.web.create_app``."""
    router = APIRouter(include_in_schema=False)

    @router.get("/runbooks")
    @router.get("/runbooks/")
    def index() -> Response:
        return Response(status_code=307, headers={"location": f"/runbooks/{INDEX}.md"})

    @router.get("/runbooks/{name}")
    def runbook(name: str) -> Response:
        text = _texts().get(name.removesuffix(".md"))
        if text is None:
            return Response("There is no such runbook.", 404, media_type="text/plain")
        return Response(render(text), media_type="text/html; charset=utf-8")

    return router


def render(text: str) -> str:
    """A page of Markdown in the pages' layout. HTML in it is shown as text."""
    body = Markup(_markdown().render(text))  # markdown-it escapes all that is no Markdown
    title = text.splitlines()[0].removeprefix("# ")
    return templates().get_template("runbook.html").render(version=__version__, title=title, body=body)


@cache
def _markdown() -> MarkdownIt:
    # Images would be loaded from elsewhere; the pages' policy forbids that anyway.
    return MarkdownIt("commonmark", {"html": False}).disable("image")


@cache
def _texts() -> dict[str, str]:
    """By name, without the ending. Nothing but these can be asked for."""
    folder = resources.files("dashboards").joinpath("runbooks")
    files = [file for file in folder.iterdir() if file.name.endswith(".md")]
    return {file.name.removesuffix(".md"): file.read_text(encoding="utf-8") for file in files}
