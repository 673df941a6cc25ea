"""The HTTP interface: metrics, health, settings' reload, JSON read models, and whichever pages are passed in.

It only talks: everything it says comes from a ``WebState``. Pages are routers that app.py passes in, since they live in
a room above this one.

Who may ask: on loopback anybody on the machine, without signing in, but only under a loopback name in ``Host`` (else a
web page could reach the service by a name of its own that it points at 127.0.0.1). On any other address the service
refuses to start without a way to sign in, and every path but the health ones then wants to know who asks: see
monitor/web_gate.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, FastAPI, Query, Request, Response

from monitor.audit import http_user
from monitor.errors import InputError, SegwatchError, StoreError
from monitor.exposition import CLASSIC_TYPE, OPENMETRICS_TYPE, accepts_openmetrics
from monitor.live_settings import Reloaded
from monitor.scrape import Format
from monitor.version import __version__
from monitor.web_access import is_loopback
from monitor.web_gate import Gate, GateState
from monitor.web_json import json_response


@dataclass(frozen=True, slots=True)
class Readiness:
    """One thing that must work before the service is ready; ``text`` says what was found."""

    name: str
    ok: bool
    text: str


class WebState(GateState, Protocol):
    """What the web server can ask. Its methods are called from several threads; StoreError becomes a 503."""

    def token(self) -> str:
        """The bearer token in force; empty for none."""

    def readiness(self) -> Sequence[Readiness]:
        """Whether the store answers and each role of this process runs."""

    def reload(self, who: str) -> Reloaded:
        """Read the settings again; raises SettingsError with nothing changed where they are bad.

        ``who``: for the audit log.
        """

    def metrics(self, fmt: Format, compressed: bool) -> bytes:
        """The page for Prometheus."""

    def status(self, *, budgets: bool = False) -> Mapping[str, Any]:
        """As ``segwatch status --json``."""

    def windows(
        self, model: str, version: str | None, slice_key: str, since: str | None, until: str | None, limit: int
    ) -> Sequence[Mapping[str, Any]]:
        """The newest ``limit`` scored windows in order of time, as under ``windows`` of ``segwatch drift --json``.

        Raises InputError for a time that is none.
        """

    def newest_windows(self, limit: int) -> Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]:
        """The newest windows of all records and the shortest length by (model, version), in order of time."""

    def baselines(self) -> Sequence[Mapping[str, Any]]:
        """All baselines, as ``segwatch baseline list --json``."""


@dataclass(frozen=True)
class Score:
    """One signal of a window against the baseline; ``js`` in base 2, 0..1. null where there is no honest number."""

    signal: str
    js: float | None
    kl_nats: float | None
    p_value: float | None
    threshold: float | None
    alarm: bool


@dataclass(frozen=True)
class Share:
    """How much of an alarm a signal explains, 0..1."""

    signal: str
    share: float


@dataclass(frozen=True)
class EarlyAlarm:
    """An alarm of the sequential test; ``evidence`` and ``run_length`` in records."""

    at: str
    records: int
    evidence: float
    run_length: float
    attribution: list[Share]


@dataclass(frozen=True)
class Early:
    """The sequential test of a model version: it alarms when its evidence reaches the run length."""

    until: str
    records: int
    evidence: float
    run_length: float
    alarm: bool
    last_alarm: EarlyAlarm | None


@dataclass(frozen=True)
class Window:
    """A scored window."""

    model: str
    version: str
    slice: str | None
    start: str
    end: str
    records: int
    sequences: int
    alarm: bool
    harm: str
    alpha: float | None
    supported_alpha: float | None
    scores: list[Score]
    attribution: list[Share]
    early: EarlyAlarm | None = None


@dataclass(frozen=True)
class Windows:
    windows: list[Window]


@dataclass(frozen=True)
class Model:
    """A model version: its records by outcome, and its newest scored window of each length and slice."""

    model: str
    version: str
    baseline: str | None
    baseline_created: str | None
    records: dict[str, int]
    windows: list[Window]
    early: Early | None
    quality: list[dict[str, Any]]
    budgets: list[dict[str, Any]]
    open_actions: list[dict[str, Any]]


@dataclass(frozen=True)
class Models:
    models: list[Model]


@dataclass(frozen=True)
class Status:
    models: list[Model]
    budgets: list[dict[str, Any]]
    budgets_unknown: str | None
    unattributed: dict[str, int]
    partitions: list[dict[str, Any]]
    lag_records: int
    outbox_pending: int
    relabel: list[dict[str, Any]]
    annotation_jobs: dict[str, Any]


@dataclass(frozen=True)
class Baselines:
    baselines: list[dict[str, Any]]


@dataclass(frozen=True)
class Error:
    """Why a request was refused."""

    error: str


# FastAPI takes these for the OpenAPI document alone: the answers are the read models' own, written once more as JSON.
_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": Error, "description": "No token, or a wrong one"},
    503: {"model": Error, "description": "The store does not answer"},
}


def create_app(state: WebState, host: str, pages: Sequence[APIRouter] = ()) -> FastAPI:
    """The application for a server on ``host``; run ``check_access`` on its settings first."""
    app = FastAPI(
        title="segwatch",
        version=__version__,
        summary="Watches segmentation models in production.",
        docs_url=None,  # FastAPI's pages load scripts from elsewhere; the document itself is at /openapi.json
        redoc_url=None,
    )
    app.add_exception_handler(SegwatchError, _refuse)
    app.include_router(_operations(state))
    app.include_router(_api(state))
    for router in pages:
        app.include_router(router)
    app.add_middleware(Gate, state=state, local_only=is_loopback(host))
    return app


async def _refuse(_request: Request, error: Exception) -> Response:
    if isinstance(error, InputError):
        return json_response({"error": str(error)}, 400)
    return json_response({"error": str(error)}, 503 if isinstance(error, StoreError) else 500)


def _operations(state: WebState) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/metrics", response_class=Response, summary="Metrics, in OpenMetrics or the classic text format")
    def metrics(request: Request) -> Response:
        fmt: Format = "openmetrics" if accepts_openmetrics(request.headers.get("accept", "")) else "classic"
        compressed = "gzip" in request.headers.get("accept-encoding", "")
        headers = {"content-encoding": "gzip"} if compressed else {}
        return Response(
            state.metrics(fmt, compressed),
            headers={**headers, "vary": "accept, accept-encoding"},
            media_type=OPENMETRICS_TYPE if fmt == "openmetrics" else CLASSIC_TYPE,
        )

    @router.get("/-/healthy", response_class=Response, summary="The process answers")
    def healthy() -> Response:
        return json_response({"healthy": True})

    @router.get("/-/ready", response_class=Response, summary="The store answers and all roles of the process run")
    def ready() -> Response:
        checks = state.readiness()
        good = all(check.ok for check in checks)
        return json_response({"ready": good, "checks": [asdict(check) for check in checks]}, 200 if good else 503)

    @router.post("/-/reload", response_class=Response, summary="Read the settings again; bad ones change nothing")
    def reload(request: Request) -> Response:
        return json_response(asdict(state.reload(http_user(request.headers, token=bool(state.token())))))

    return router


def _api(state: WebState) -> APIRouter:
    router = APIRouter(prefix="/api/v1", tags=["read models"], responses=_REFUSALS)

    @router.get("/status", response_class=Response, responses={200: {"model": Status}})
    def status() -> Response:
        return json_response(state.status(budgets=True))

    @router.get("/models", response_class=Response, responses={200: {"model": Models}})
    def models() -> Response:
        return json_response({"models": state.status()["models"]})

    @router.get("/windows", response_class=Response, responses={200: {"model": Windows}, 400: {"model": Error}})
    def windows(
        model: Annotated[str, Query(description="Name of the model", max_length=256)],
        version: Annotated[str | None, Query(max_length=256)] = None,
        slice_key: Annotated[str, Query(alias="slice", description="key=value; without it all records")] = "",
        since: Annotated[str | None, Query(description="RFC 3339: windows that begin then or later")] = None,
        until: Annotated[str | None, Query(description="RFC 3339: windows that begin before then")] = None,
        limit: Annotated[int, Query(ge=1, le=10_000, description="The newest so many")] = 500,
    ) -> Response:
        return json_response({"windows": list(state.windows(model, version, slice_key, since, until, limit))})

    @router.get("/baselines", response_class=Response, responses={200: {"model": Baselines}})
    def baselines() -> Response:
        return json_response({"baselines": list(state.baselines())})

    return router
