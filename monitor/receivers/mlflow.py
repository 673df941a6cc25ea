"""MLflow's tracking server and model registry, over REST (2.0, as servers 2 and 3 offer it).

The evidence becomes a run with the action's id as a tag, which is looked for before a run is made; it is FINISHED once
everything is in it, so that one that was cut off is filled, not doubled. The model version that the action is about
gets a tag, and with ``alias`` a rollback moves that alias to the stable version, a promotion to the canary.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from alerts.actions import model_of
from monitor.receivers.events import TAKES, cut
from monitor.receivers.http import Answer, Http
from monitor.receivers.protocol import Event, ReceiverError, ReceiverSettings
from monitor.receivers.secrets import bearer, login

API: Final = "/api/2.0/mlflow"
ARTIFACTS: Final = "/api/2.0/mlflow-artifacts/artifacts/"
PROXIED: Final = "mlflow-artifacts:"
ID_TAG: Final = "segwatch.action_id"
MOST_TAG: Final = 5000
"""Bytes of a tag that every backend keeps."""
MOST_METRICS: Final = 200


class Settings(ReceiverSettings, frozen=True, kw_only=True, tag_field="preset", tag="mlflow"):
    """``registered_model``: empty means that it is called as in segwatch."""

    username: str = ""
    password_file: str = ""
    password_env: str = ""
    experiment: str = "segwatch"
    registered_model: str = ""
    tag_version: bool = True
    """Tag the model version: ``segwatch.rollback_requested`` and so on, with the action's id."""
    alias: str = ""


class Mlflow:
    """Implements ``monitor.receivers.protocol.Receiver``: once, by the tag."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        bearer(settings), login(settings)
        self._settings = settings
        self._clock = clock
        self._http = Http(settings)

    def deliver(self, event: Event) -> str:
        """Make or complete the run, then mark the model version."""
        experiment = self._experiment()
        run = self._find(experiment, str(event["id"])) or self._create(experiment, event)
        told = f"run {run['info']['run_id']}"
        if run["info"].get("status") != "FINISHED":
            self._fill(run["info"], event)
        return "; ".join([told, *self._mark(event)])

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    # The run

    def _experiment(self) -> str:
        name = self._settings.experiment
        path = f"/experiments/get-by-name?{urlencode({'experiment_name': name})}"
        answer = self._call("GET", path, good=(200, 404))
        if answer.status == 404:
            answer = self._call("POST", "/experiments/create", {"name": name}, good=(200, 400))
            if answer.status == 400:  # somebody else was faster
                answer = self._call("GET", path)
            else:
                return str(answer.json()["experiment_id"])
        return str(answer.json()["experiment"]["experiment_id"])

    def _find(self, experiment: str, identity: str) -> dict[str, Any] | None:
        """The run of an action; of several the first, for all who look."""
        asked = {"experiment_ids": [experiment], "filter": f"tags.`{ID_TAG}` = '{identity}'", "max_results": 10}
        runs: list[dict[str, Any]] = self._call("POST", "/runs/search", asked).json().get("runs") or []
        return min(runs, key=lambda run: (int(run["info"].get("start_time") or 0), run["info"]["run_id"]), default=None)

    def _create(self, experiment: str, event: Event) -> dict[str, Any]:
        model, version = model_of(event["data"])
        asked = {
            "experiment_id": experiment,
            "start_time": round(self._clock() * 1000),
            "run_name": f"{TAKES.get(str(event['type']), 'action')} {model} {version}",
            "tags": [{"key": name, "value": _fit(value)} for name, value in _tags(event).items() if value],
        }
        made: dict[str, Any] = self._call("POST", "/runs/create", asked).json()["run"]
        # The server makes as many runs with a tag as it is asked for, and somebody else may have asked since we looked.
        first = self._find(experiment, str(event["id"])) or made
        if first["info"]["run_id"] != made["info"]["run_id"]:
            self._call("POST", "/runs/delete", {"run_id": made["info"]["run_id"]})
        return first

    def _fill(self, info: Mapping[str, Any], event: Event) -> None:
        now_ms = round(self._clock() * 1000)
        metrics = [
            {"key": name, "value": value, "timestamp": now_ms, "step": 0}
            for _, (name, value) in zip(range(MOST_METRICS), _metrics(event["data"]), strict=False)
        ]
        if metrics:
            self._call("POST", "/runs/log-batch", {"run_id": info["run_id"], "metrics": metrics})
        place = str(info.get("artifact_uri", ""))
        if place.startswith(PROXIED):
            path = quote(place.removeprefix(PROXIED).lstrip("/") + "/evidence.json")
            sent = {"content-type": "application/json", **self._login()}
            self._http.send("PUT", ARTIFACTS + path, body=msgspec.json.encode(event), headers=sent)
        else:  # the server does not take files: what fits, then
            brief = msgspec.json.encode(cut(event, MOST_TAG)).decode()
            self._call("POST", "/runs/set-tag", {"run_id": info["run_id"], "key": "segwatch.evidence", "value": brief})
        self._call("POST", "/runs/update", {"run_id": info["run_id"], "status": "FINISHED", "end_time": now_ms})

    # The model version

    def _mark(self, event: Event) -> list[str]:
        model, version = model_of(event["data"])
        name = self._settings.registered_model or model
        told = []
        if self._settings.tag_version and version:
            number = self._number(name, version)
            if number is None:
                told.append(f"the registry has no version {version} of {name} to tag")
            else:
                key = str(event["type"]).removesuffix(".v1")
                asked = {"name": name, "version": number, "key": key, "value": str(event["id"])}
                self._call("POST", "/model-versions/set-tag", asked)
                told.append(f"tagged version {number} of {name}")
        best = {"rollback": event["data"].get("stable"), "promote": version}.get(TAKES.get(str(event["type"]), ""))
        if self._settings.alias and best:
            number = self._number(name, str(best))
            if number is None:
                raise ReceiverError(f"the registry has no version {best} of {name} for alias {self._settings.alias}")
            asked = {"name": name, "alias": self._settings.alias, "version": number}
            self._call("POST", "/registered-models/alias", asked)
            told.append(f"alias {self._settings.alias} is version {number}")
        return told

    def _number(self, name: str, version: str) -> str | None:
        """The registry's number of a version: its own, or that of the version with the tag ``segwatch.version``."""
        if version.isdecimal():
            query = urlencode({"name": name, "version": version})
            answer = self._call("GET", f"/model-versions/get?{query}", good=(200, 404))
            if answer.status == 200:
                return version
        quoted = [one.replace("'", "") for one in (name, version)]  # its filters know no escape
        asked = urlencode({"filter": f"name = '{quoted[0]}' AND tags.`segwatch.version` = '{quoted[1]}'"})
        found = self._call("GET", f"/model-versions/search?{asked}").json().get("model_versions") or []
        exact = [one for one in found if one.get("name") == name and _tag(one, "segwatch.version") == version]
        return str(exact[0]["version"]) if exact else None

    def _call(self, method: str, path: str, value: Any = None, good: tuple[int, ...] = (200,)) -> Answer:
        answer = self._http.send(method, API + path, value, headers=self._login(), good=good)
        if answer.status == 200 and not isinstance(answer.json(), dict):
            raise ReceiverError(f"{method} {path.partition('?')[0]}: no JSON, so this is no MLflow server")
        return answer

    def _login(self) -> dict[str, str]:
        return bearer(self._settings) or login(self._settings)


def _tags(event: Event) -> dict[str, str]:
    data = event["data"]
    model, version = model_of(data)
    evidence = data.get("evidence")
    window = (evidence if isinstance(evidence, dict) else data).get("window") or data.get("window") or {}
    reasons = [one["text"] if isinstance(one, dict) else str(one) for one in data.get("reasons") or ()]
    return {
        ID_TAG: str(event["id"]),
        "segwatch.type": str(event["type"]),
        "segwatch.time": str(event.get("time", "")),
        "segwatch.kind": str(data.get("kind") or ""),
        "segwatch.model": model,
        "segwatch.version": version,
        "segwatch.window_start": str(window.get("start") or ""),
        "segwatch.window_end": str(window.get("end") or ""),
        "segwatch.link": str(data.get("link") or ""),
        "mlflow.note.content": "\n".join([*reasons, str(data.get("link") or "")]),
    }


def _metrics(data: Any) -> Iterator[tuple[str, float]]:
    """Numbers of the evidence: scores by signal, quality by class."""
    evidence = data.get("evidence")
    holder = evidence if isinstance(evidence, dict) else data
    for one in holder.get("scores") or ():
        if "signal" in one:
            yield from _numbers(one, f"drift {one['signal']}", ("js", "kl_nats", "p_value", "threshold"))
        elif "metric" in one:  # a canary's
            label = f"{one['metric']} {one.get('class') or 'all'}"
            yield from _numbers(one, label, ("stable", "canary", "difference", "lower", "upper"))
    for one in holder.get("quality") or ():
        label = f"{one.get('metric')} {one.get('class') or 'all'} {one.get('estimator')}"
        yield from _numbers(one, label, ("point", "lower", "upper"))


def _numbers(one: Mapping[str, Any], label: str, names: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    for name in names:
        value = one.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            # The server takes letters, digits, and _ - . space / alone.
            yield re.sub(r"[^0-9A-Za-z_\-. /]", "_", f"{label} {name}")[:250], float(value)


def _tag(version: Mapping[str, Any], key: str) -> str | None:
    return next((str(one.get("value")) for one in version.get("tags") or () if one.get("key") == key), None)


def _fit(value: str) -> str:
    return value.encode()[:MOST_TAG].decode("utf-8", "ignore")
