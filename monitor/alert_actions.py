"""Alerts that ask for an action: Alertmanager's webhook (version 4) to actions, each firing once.

An alert is a person's rule, so that what it asks for goes out at once; what is known of the model goes with it. Only a
request to retrain a model, or to roll a version back, that comes within the cooldown of another one is left out: ten
classes that fail together are ten alerts, and one training. What is to be labelled is queued with the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlencode

import msgspec

from alerts.actions import Asked, alert_cause, of_alert
from alerts.decisions import cools_until
from monitor.action_evidence import evidence_of, labels_for, newest_window
from monitor.alert_samples import AlertSamples, samples_for
from monitor.audit import record
from monitor.drift import Baselines
from monitor.errors import InputError
from monitor.evaluate import to_message
from monitor.relabel_choice import SampleChoice
from monitor.settings import Settings, WebSettings
from monitor.store.actions import Requested
from monitor.store.store import Store
from monitor.tallies import LAST_EVENT_US, RECORDS
from monitor.windows import parse_time, to_text

Text = Annotated[str, msgspec.Meta(max_length=4096)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Alert(msgspec.Struct, frozen=True):
    """One alert of a group; names and meanings are Alertmanager's."""

    status: Literal["firing", "resolved"]
    labels: dict[Name, Text]
    startsAt: Name
    fingerprint: Name
    annotations: dict[Name, str] = {}
    generatorURL: str = ""


class Group(msgspec.Struct, frozen=True):
    """What Alertmanager posts; fields that nobody needs here are left out."""

    version: str
    alerts: list[Alert]
    externalURL: str = ""


@dataclass(frozen=True)
class Outcome:
    """``new``: ids of actions that were made; ``known``: of those that had been; ``ignored``: the others, and why."""

    new: list[str]
    known: list[str]
    ignored: list[dict[str, str]]


def parse_group(body: bytes) -> Group:
    """Raises InputError that names the field at fault."""
    try:
        group = msgspec.json.decode(body, type=Group)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        raise InputError(f"{where.strip('.`') or 'body'}: {what}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"body: not JSON: {error}") from None
    if group.version != "4":
        raise InputError(f"version: {group.version[:20]!r} is not 4, Alertmanager's webhook format")
    for number, alert in enumerate(group.alerts):
        try:
            parse_time(alert.startsAt)
        except InputError as error:
            raise InputError(f"alerts[{number}].startsAt: {error}") from None
    return group


class AlertActions:
    """Makes actions of alerts. Called from several threads."""

    def __init__(self, store: Store, settings: Callable[[], Settings]) -> None:
        self._store = store
        self._settings = settings
        self._baselines = Baselines(store)

    def take(self, group: Group, who: str) -> Outcome:
        """Queue what the firing alerts ask for. All of a group is looked at, whatever is wrong with one alert."""
        outcome = Outcome([], [], [])
        newest = self._newest()
        for alert in group.alerts:
            reason = self._take(alert, group, who, newest, outcome)
            if reason:
                name = alert.labels.get("alertname", "")
                outcome.ignored.append({"alert": name, "fingerprint": alert.fingerprint, "reason": reason})
        return outcome

    def _take(
        self, alert: Alert, group: Group, who: str, newest: Mapping[str, Mapping[str, int]], outcome: Outcome
    ) -> str:
        """Why nothing came of an alert; "" where something did. ``newest`` as of `_newest`."""
        asked = _asked(alert.labels.get("action", ""))
        if asked is None:
            return "no action that segwatch knows" if "action" in alert.labels else "no action"
        if alert.status == "resolved":
            return "resolved"
        model = alert.labels.get("model", "")
        if model not in newest:
            return f"no model has the name {model!r}" if model else "no model"
        version = alert.labels.get("version") or next(iter(newest[model]))
        if version not in newest[model]:
            return f"model {model} has no version {version!r}"
        settings = self._settings()
        identity = alert_cause(asked, alert.fingerprint, to_text(parse_time(alert.startsAt)))
        if self._store.actions.is_queued(identity):
            outcome.known.append(identity)
            return ""
        cooldown_us = settings.actions.cooldown_us
        once = None if asked == "relabel" else (asked, cooldown_us)
        # Looked at here to spare the store the evidence; what counts is the transaction's own look.
        earlier = None if once is None else self._store.actions.requested(once[0], model, version)
        now_us = self._store.now_us()
        if earlier is not None and cools_until(earlier.at_us, cooldown_us, now_us) is not None:
            return _cooling(earlier, cooldown_us)
        evidence = self._evidence(settings, asked, alert, group, model, version)
        samples = AlertSamples()
        if once is None:
            last_us = newest[model][version]
            samples = self._samples(settings, alert, identity, model, version, evidence, last_us)
            evidence["samples"] = samples.named
        action = of_alert(asked, identity, model, version, evidence, _page(settings.web, model, version))
        message = to_message(action, settings.kafka.actions_topic, now_us)
        with self._store.transaction() as tx:
            earlier = tx.request(message, model, version, once=once)
            if earlier is None:
                tx.queue_samples(samples.rows)
                detail = {"id": action.id, "version": version, "alert": alert.labels.get("alertname", "")}
                record(tx, who, f"action.{asked}", model, detail)
        if earlier is not None and earlier.id != action.id:
            return _cooling(earlier, cooldown_us)
        (outcome.new if earlier is None else outcome.known).append(action.id)
        return ""

    def _samples(
        self,
        settings: Settings,
        alert: Alert,
        identity: str,
        model: str,
        version: str,
        evidence: Mapping[str, Any],
        last_us: int,
    ) -> AlertSamples:
        return samples_for(
            self._store,
            SampleChoice(self._store, settings, self._store.now_us),
            self._baselines,
            model,
            version,
            alert=alert.labels.get("alertname", ""),
            identity=identity,
            class_name=alert.labels.get("class", ""),
            slice_key=alert.labels.get("slice", ""),
            typical=[one["input_id"] for one in evidence["samples"]],
            last_us=last_us,
        )

    def _newest(self) -> dict[str, dict[str, int]]:
        """Of each known model the event time of each version's newest record, 0 where there is none.

        First the version in use: of those with a baseline that with the newest records.
        """
        active = self._store.active_baselines()
        last: dict[tuple[str, str], int] = dict.fromkeys(active, 0)
        for key, value in self._store.read_tallies().items():
            if key.series == RECORDS and key.model:  # one whose inferences all failed has no newest record
                last.setdefault((key.model, key.version), 0)
            elif key.series == LAST_EVENT_US:
                last[key.model, key.version] = value
        found: dict[str, dict[str, int]] = {}
        for model, version in sorted(last, key=lambda key: (key in active, last[key], key[1]), reverse=True):
            found.setdefault(model, {})[version] = last[model, version]
        return found

    def _evidence(
        self, settings: Settings, asked: Asked, alert: Alert, group: Group, model: str, version: str
    ) -> dict[str, Any]:
        class_name = alert.labels.get("class", "")
        verdict = newest_window(self._store, settings, model, version)
        found = evidence_of(self._store, settings, model, version, verdict, class_name)
        if verdict is None:
            found["window"] = {"start": alert.startsAt, "end": to_text(self._store.now_us())}
        found["alert"] = {
            "name": alert.labels.get("alertname", ""),
            "starts_at": alert.startsAt,
            "fingerprint": alert.fingerprint,
            "labels": alert.labels,
            "annotations": {name: text[:4096] for name, text in alert.annotations.items()},
            "source": alert.generatorURL[:4096],
            "alertmanager": group.externalURL[:4096],
        }
        if alert.labels.get("slice"):
            found["slices"] = list(dict.fromkeys([alert.labels["slice"], *found["slices"]]))
        if asked == "retrain":
            found["labels"] = labels_for(self._store, settings, model)
        return found


def _asked(word: str) -> Asked | None:
    return next((one for one in get_args(Asked) if one == word), None)


def _cooling(earlier: Requested, cooldown_us: int) -> str:
    return f"cooling down until {to_text(earlier.at_us + cooldown_us)}, after {earlier.id}"


def _page(web: WebSettings, model: str, version: str) -> str:
    return f"{web.address}/?{urlencode({'model': model, 'version': version})}"
