"""The full loop, act by act: shift, alarm, queue, labels, request, training, canary, promotion, and its worth."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import yaml

from monitor.actions_view import open_text
from monitor.app import serve_pages
from monitor.demo.run import MARKER, make_room
from monitor.errors import CheckFailed
from monitor.full_loop.actions_log import ActionsLog
from monitor.full_loop.annotator import annotate
from monitor.full_loop.inference import Inference
from monitor.full_loop.plan import MODEL, NEW, OLD, LoopPlan, settings_of
from monitor.full_loop.shell import INDENT, Say, Shell
from monitor.full_loop.told import counted, difference, interval, mean_iou, queue_table, window_line
from monitor.full_loop.trainer import examples, retrain
from monitor.present import number
from monitor.settings import load_settings
from monitor.windows import to_text, to_us

ANNOTATOR = "annotator"
MOST_AT_ONCE = 1000
COMPARE = ("canary", "compare", "--model", MODEL, "--stable", OLD, "--canary", NEW)


def run_full_loop(root: click.Command, folder: Path, plan: LoopPlan, *, serve: bool, say: Say) -> dict[str, Any]:
    """Play the loop in ``folder`` and say what happens; the figures of it.

    Raises InputError where the folder is not a demo's, CheckFailed where the loop does not close.
    """
    make_room(folder)
    say("A small network segments handwritten digits. The light goes down; what follows, until a better one serves?")
    say("Played: the service and its cameras, the annotator, the trainer. The rest is segwatch, by its commands.")
    loop = FullLoop(root, folder, plan, say)
    try:
        loop.play()
    finally:
        (folder / MARKER).write_text(json.dumps(loop.summary, indent=2) + "\n", encoding="utf-8")
        config = folder / "segwatch.yaml"
        say("")
        say(f"What was asked of whom: segwatch --config {config} actions list")
        say(f"Why was this sample labelled, and what became of it: segwatch --config {config} trace INPUT_ID")
        say(f"Pages: segwatch --config {config} run --role web, then http://127.0.0.1:8600/")
    if serve:
        serve_pages(load_settings(config, {}), say)
    return loop.summary


class FullLoop:
    """One run in ``folder``, which is empty; ``root`` is the command ``segwatch``."""

    def __init__(self, root: click.Command, folder: Path, plan: LoopPlan, say: Say) -> None:
        self._plan = plan
        self._folder = folder
        self._say = say
        config = folder / "segwatch.yaml"
        config.write_text(yaml.safe_dump(settings_of(plan, str(folder.absolute()))), encoding="utf-8")
        self._segwatch = Shell(root, config, say)
        self._actions = ActionsLog(folder / "actions.jsonl")
        self._inference = Inference(folder, OLD)
        self._hours = 0
        self._batches: list[Path] = []
        self._canary_from = self._canary_until = 0
        self._acts = 0
        self._began = time.monotonic()
        self.summary: dict[str, Any] = {"corruption": plan.corruption, "strength": plan.strength, "seed": plan.seed}

    def play(self) -> None:
        """All acts. Raises CheckFailed that says what is missing where the loop does not close."""
        self._baseline()
        self._shift()
        request = self._until_retraining()
        self._train(request)
        self._until_promotion()
        self._promote()
        self._afterwards()

    # The acts

    def _baseline(self) -> None:
        self._act("Version 1 serves, and segwatch learns what its traffic looks like")
        file, _ = self._inference.log(self._plan.baseline(), "baseline")
        self._segwatch("baseline", "build", "--model", MODEL, "--version", OLD, "--records", file, "--activate")

    def _shift(self) -> None:
        plan = self._plan
        self._act(
            f"{plan.calm_hours} calm hours, then {plan.corruption} (strength {plan.strength} of 3) on all cameras"
        )
        for _ in range(plan.calm_hours):
            self._hour()
            self._label()
        alarm = self._hour()
        self.summary["first_shifted_window_alarms"] = alarm
        self._act("What segwatch wants labelled now, and why")
        for line in queue_table(self._waiting()).splitlines():
            self._say(INDENT + line)
        self._act("The annotator claims it, draws what is really there, and hands it in")
        self._label(show=True)

    def _until_retraining(self) -> dict[str, Any]:
        self._act("Hour by hour, until segwatch asks for a retraining")
        while not (asked := self._actions.of("retrain")):
            if self._hours - self._plan.calm_hours >= self._plan.most_shifted_hours:
                raise CheckFailed(
                    f"no retraining was asked for within {self._plan.most_shifted_hours} hours of the shift"
                    f" ({self._retraining() or 'segwatch sees no reason for it'})"
                )
            if waits := self._retraining():
                self._say(INDENT + waits)
            self._hour()
            self._label()
        request = asked[0]
        self.summary["retrain_asked_after_hours"] = self._hours - self._plan.calm_hours
        self._say(f"{INDENT}Request {request['id']}, as the trainer gets it:")
        for reason in request["reasons"]:
            self._say(f"{INDENT}  because {reason['text']}")
        evidence = request["evidence"]
        self._say(
            f"{INDENT}  evidence: the window from {evidence['window']['start']}, {len(evidence['scores'])} scores,"
            f" {len(evidence['quality'])} figures of quality, {len(evidence['samples'])} labelled inputs"
        )
        calm, shifted = self._quality(OLD, 0, self._plan.calm_hours), self._quality(OLD, self._plan.calm_hours)
        self._say(f"{INDENT}Quality of version 1 by spot checks, mean IoU over the classes:")
        self._say(f"{INDENT}  before the shift {interval(calm)}")
        self._say(f"{INDENT}  since then       {interval(shifted)}")
        self.summary |= {"before": calm, "shifted": shifted, "labels": len(evidence["samples"])}
        return request

    def _train(self, request: dict[str, Any]) -> None:
        self._act("The trainer trains the network further, on these labels and on what it was trained on before")
        self._segwatch("labels", "export", "--format", "coco", "--out", self._folder / "training.json")
        wanted = {one["input_id"] for one in request["evidence"]["samples"]}
        given = examples(self._folder / "training.json", [batch / "images" for batch in self._batches], wanted)
        if not given:
            raise CheckFailed("none of the labelled inputs that the request names has an image")
        began = time.monotonic()
        first, last = retrain(
            given,
            self._folder / "version-2.safetensors",
            steps=self._plan.training_steps,
            seed=self._plan.seed,
        )
        took = time.monotonic() - began
        self._say(
            f"{INDENT}{len(given)} labelled images, {self._plan.training_steps} steps in {took:.0f} s:"
            f" loss {first:.2f} at first, {last:.2f} at last"
        )
        self.summary |= {"examples": len(given), "training_seconds": round(took, 1)}

    def _until_promotion(self) -> None:
        self._act("Version 2 runs beside version 1, on the same images: a canary, whose results nobody uses yet")
        self._inference.bring_in(NEW, self._folder / "version-2.safetensors")
        self._canary_from = self._hours
        while not self._actions.of("promote"):
            if self._actions.of("rollback"):
                self._segwatch(*COMPARE)
                raise CheckFailed("the canary lost, and its rollback is requested: the new version is no better")
            if self._hours - self._canary_from >= self._plan.most_canary_hours:
                self._segwatch(*COMPARE)
                raise CheckFailed(f"no verdict on the canary in {self._plan.most_canary_hours} hours")
            self._hour()
            self._label()
            if self._judged() == "promote":
                break
        self._canary_until = self._hours

    def _promote(self) -> None:
        shown = self._compared()
        own = difference(shown)
        self.summary["canary"] = {"pairs": shown["pairs"], "hours": self._hours - self._canary_from, "mean_iou": own}
        # What was decided goes out with the next records: only `segwatch run` sends by itself.
        self._hour()
        self._label()
        asked = self._actions.of("promote")
        if not asked:
            raise CheckFailed("the verdict was promote, but no promotion was requested")
        self._act("segwatch asks for the promotion, and the service switches")
        self._say(f"{INDENT}Request {asked[0]['id']}: {'; '.join(asked[0]['reasons'])}")
        self._inference.switch_to(NEW)
        self._say(
            f"{INDENT}Stable version of {MODEL} is {NEW} from now on; segwatch learns what its traffic looks like:"
        )
        files = [self._folder / f"traffic-{hour:02d}.jsonl" for hour in range(self._canary_from, self._hours)]
        options = [word for file in files for word in ("--records", file)]
        self._segwatch("baseline", "build", "--model", MODEL, "--version", NEW, *options, "--activate")

    def _afterwards(self) -> None:
        self._act("Quality afterwards")
        first = self._hours
        alarms = 0
        for _ in range(self._plan.after_hours):
            alarms += self._hour()
            self._label()
        after = self._quality(NEW, first)
        self._say(f"{INDENT}Mean IoU over the classes by spot checks (none of these images was trained on):")
        rows = (("version 1 before the shift", "before"), ("version 1 after it", "shifted"))
        for name, key in rows:
            self._say(f"{INDENT}  {name:<27} {interval(self.summary[key])}")
        self._say(f"{INDENT}  {'version 2 in service':<27} {interval(after)}")
        self.summary |= {"after": after, "alarms_after": alarms, "seconds": round(time.monotonic() - self._began, 1)}
        self.summary["actions"] = {
            kind: len(self._actions.of(kind)) for kind in ("relabel", "retrain", "promote", "rollback")
        }
        self._say(f"{INDENT}The whole loop took {self.summary['seconds']:.0f} s.")

    # What happens again and again

    def _hour(self) -> bool:
        """One hour's traffic through segwatch; whether its window alarms."""
        number, self._hours = self._hours, self._hours + 1
        file, _ = self._inference.log(self._plan.hour(number), f"traffic-{number:02d}")
        self._segwatch("replay", file, show=False)
        start, end = self._span(number, number + 1)
        version = NEW if NEW in self._inference.versions and len(self._inference.versions) == 1 else OLD
        found = self._segwatch.json(
            *("drift", "--model", MODEL, "--version", version, "--since", start, "--until", end, "--window", "1h")
        )["windows"]
        window = next((one for one in found if one["slice"] is None), None)
        self._say(INDENT + window_line(f"{self._plan.at(number):%H:%M}", number >= self._plan.calm_hours, window))
        return bool(window and window["alarm"])

    def _label(self, show: bool = False) -> None:
        """The annotator works off the queue."""
        waiting = self._waiting()
        if not waiting:
            return
        batch = self._folder / "batches" / f"{self._hours - 1:02d}"
        batch.mkdir(parents=True)
        export = ("--format", "coco", "--claim-as", ANNOTATOR, "--limit", MOST_AT_ONCE, "--out", batch)
        self._segwatch("relabel", "export", *export, show=show)
        done = annotate(batch, [self._plan.hour(number) for number in range(self._hours)])
        told = self._segwatch("labels", "import", done, "--annotator", ANNOTATOR, show=show)
        if not show:
            self._say(f"{INDENT}       queue: {counted(waiting)}; {told}")
        self._batches.append(batch)

    def _waiting(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._segwatch.json("relabel", "list", "--state", "open")["items"]
        return found

    def _retraining(self) -> str:
        """What a retraining waits for; "" where nobody wants one, or it was asked for."""
        for model in self._segwatch.json("status")["models"]:
            for one in model["open_actions"]:
                if one["id"] is None:
                    return open_text(one)
        return ""

    def _compared(self) -> dict[str, Any]:
        found: dict[str, Any] = self._segwatch.json(*COMPARE)
        return found

    def _judged(self) -> str:
        """The verdict on the canary now, said with its evidence."""
        shown = self._compared()
        own, sequential = difference(shown), shown["sequential"]
        told = f"{shown['verdict'].upper()}: {shown['pairs']} labelled pairs"
        if sequential is not None:
            told += f", version 2 differs in mean IoU by {interval(own, 'difference')}; evidence that it loses no more"
            told += f" than {sequential['margin']:g}: {number(sequential['kept'].get('mean_iou'), 3)},"
            told += f" enough is {sequential['kept_enough']:g}"
        self._say(INDENT + told)
        return str(shown["verdict"])

    def _quality(self, version: str, first: int, until: int | None = None) -> dict[str, Any] | None:
        start, end = self._span(first, self._hours if until is None else until)
        words = ("quality", "--model", MODEL, "--version", version, "--since", start, "--until", end)
        windows = self._segwatch.json(*words, "--window", "all", "--metric", "iou")["windows"]
        return mean_iou(windows[0] if windows else None)

    def _span(self, first: int, until: int) -> tuple[str, str]:
        return to_text(to_us(self._plan.at(first))), to_text(to_us(self._plan.at(until)))

    def _act(self, title: str) -> None:
        self._acts += 1
        self._say("")
        self._say(f"{self._acts}. {title}  [{time.monotonic() - self._began:.0f} s]")
