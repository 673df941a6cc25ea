"""All pages behind the overview, in one router."""

from __future__ import annotations

from fastapi import APIRouter

from dashboards.action_pages import action_router
from dashboards.audit_page import audit_router
from dashboards.canary_page import canary_page
from dashboards.map_page import map_router
from dashboards.model_page import model_router
from dashboards.page_data import PageData
from dashboards.pictures import picture_router
from dashboards.relabel_page import relabel_pages
from dashboards.sample_page import sample_router
from dashboards.slo_page import slo_router
from dashboards.window_page import window_router
from monitor.web_canary import CanaryState


def detail_pages(data: PageData, canaries: CanaryState) -> APIRouter:
    """Pass it to ``monitor.web.create_app``, beside `dashboards.pages.pages`."""
    router = APIRouter(include_in_schema=False)
    for one in (
        model_router(data),
        window_router(data),
        map_router(data),
        picture_router(data),
        sample_router(data),
        relabel_pages(data),
        canary_page(data, canaries),
        action_router(data),
        slo_router(data),
        audit_router(data),
    ):
        router.include_router(one)
    return router
