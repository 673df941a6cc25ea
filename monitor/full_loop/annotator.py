"""The annotator, played: takes a batch as segwatch exported it, and says what is really to be seen in its images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monitor.demo.scenes import CLASS_NAMES
from monitor.demo.traffic import TrafficPlan, true_scenes
from monitor.masks import encode_rle


def annotate(batch: Path, plans: Sequence[TrafficPlan]) -> Path:
    """Replace the model's masks in ``batch/instances.json`` by the exact ones; the file with them.

    What segwatch wrote beside each image (why it was chosen, with which probability) stays as it is, as in a tool.
    """
    export: dict[str, Any] = json.loads((batch / "instances.json").read_text(encoding="utf-8"))
    numbers = {str(one["input_id"]): one["id"] for one in export["images"]}
    category = {one["name"]: one["id"] for one in export["categories"]}
    annotations: list[dict[str, Any]] = []
    seen: set[str] = set()
    for plan in plans:
        for name, scene in true_scenes(plan, numbers.keys()):
            seen.add(name)
            for class_index, mask in scene.instances:
                if class_index < len(CLASS_NAMES):  # a class that the model does not know cannot be labelled
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": numbers[name],
                            "category_id": category[CLASS_NAMES[class_index]],
                            "segmentation": encode_rle(mask),
                            "area": int(mask.sum()),
                            "iscrowd": 0,
                        }
                    )
    if missing := numbers.keys() - seen:
        raise ValueError(f"{batch}: no scene is known of {', '.join(sorted(missing))}")
    done = batch / "done.json"
    done.write_text(json.dumps({**export, "annotations": annotations}), encoding="utf-8")
    return done
