"""Counters of model servers, by their real names, for SLOs of kind ``ratio``.

Sources: Triton's "Metrics" (nv_inference_request_success, nv_inference_request_failure with model and version);
KServe's model server (request_predict_seconds with model_name) and Knative's queue-proxy (revision_request_count with
configuration_name and response_code_class); TorchServe's "Metrics" in its prometheus mode (Requests2XX ... Requests5XX,
of the whole host); Ray Serve's "Monitor" (ray_serve_deployment_request_counter_total and
ray_serve_deployment_error_counter_total with deployment, since Ray 2.10).
"""

from __future__ import annotations

from typing import Final

from alerts.slo.promql import quote
from alerts.slo.spec import Ratio


def triton(service: str) -> Ratio:
    """Requests of a model that succeeded."""
    bad = f"nv_inference_request_failure{{model={quote(service)}}}"
    return Ratio(total=f"{bad} + nv_inference_request_success{{model={quote(service)}}}", bad=bad)


def kserve(service: str) -> Ratio:
    """Requests to an inference service (serverless mode) without a response of class 5xx."""
    name = f"configuration_name={quote(f'{service}-predictor')}"
    return Ratio(
        total=f"revision_request_count{{{name}}}",
        bad=f'revision_request_count{{{name},response_code_class="5xx"}}',
    )


def kserve_latency(service: str) -> Ratio:
    """Predictions of a KServe model server within 0.25 s; other bounds: write ``good`` and ``total`` yourself."""
    name = f"model_name={quote(service)}"
    return Ratio(
        total=f"request_predict_seconds_count{{{name}}}", good=f'request_predict_seconds_bucket{{{name},le="0.25"}}'
    )


def torchserve(_service: str) -> Ratio:
    """Requests of a TorchServe host without a response of class 5xx; its counters do not tell models apart."""
    return Ratio(total="Requests5XX + Requests2XX + Requests4XX", bad="Requests5XX")


def ray_serve(service: str) -> Ratio:
    """Requests of a Ray Serve deployment without an exception."""
    name = f"deployment={quote(service)}"
    return Ratio(
        total=f"ray_serve_deployment_request_counter_total{{{name}}}",
        bad=f"ray_serve_deployment_error_counter_total{{{name}}}",
    )


PRESETS: Final = {
    "triton": triton,
    "kserve": kserve,
    "kserve_latency": kserve_latency,
    "torchserve": torchserve,
    "ray_serve": ray_serve,
}
