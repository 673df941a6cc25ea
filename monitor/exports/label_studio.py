"""Label Studio: a list of tasks, with the model's masks as predictions or labels as annotations, all as brush masks.

Beside it goes the labelling configuration that the tasks fit (``label-config.xml``).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import msgspec
import numpy as np

from detectors.brush_rle import brush_bytes
from detectors.quality.mask_runs import read_runs
from monitor.classes import Classes
from monitor.exports.items import Item
from monitor.exports.target import target
from monitor.labels.asked import ASKED
from monitor.labels.label_studio import BRUSH
from monitor.records.types import to_us
from monitor.windows import to_text

CONFIG_FILE = "label-config.xml"
FROM, TO = "mask", "image"
"""Names of the configuration's tags: what draws, and on what."""
_json = msgspec.json.Encoder()


def write_label_studio(items: Iterable[Item], classes: Classes, out: Path) -> None:
    """``out``, and ``label-config.xml`` beside it."""
    with target(out) as file:
        file.write(b"[")
        for number, item in enumerate(items):
            file.write((b",\n" if number else b"") + _json.encode(task_of(item)))
        file.write(b"]\n")
    with target(out.with_name(CONFIG_FILE)) as file:
        file.write(label_config(classes).encode("utf-8", "replace"))


def label_config(classes: Classes) -> str:
    """The labelling interface of the project."""
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in classes.names)
    brush = f'  <BrushLabels name="{FROM}" toName="{TO}">\n{labels}\n  </BrushLabels>'
    return f'<View>\n  <Image name="{TO}" value="$image" zoom="true"/>\n{brush}\n</View>\n'


def task_of(item: Item) -> dict[str, Any]:
    """A task as ``POST /api/projects/{id}/import`` takes it."""
    data = {"image": item.image or item.file_name, "input_id": item.input_id, ASKED: item.noted}
    results = list(_results(item))
    if item.label is not None:
        made = to_text(to_us(item.label.label_time))
        who = {"email": item.label.annotator}
        annotation = {"completed_by": who, "result": results, "created_at": made, "updated_at": made}
        return {"data": data, "annotations": [annotation]}
    scores = [mask.score for mask in item.masks if mask.score is not None]
    version = " ".join(str(item.asked[name]) for name in ("model", "version") if item.asked.get(name))
    prediction: dict[str, Any] = {"model_version": version or "segwatch", "result": results}
    if scores:
        prediction["score"] = sum(scores) / len(scores)
    return {"data": data, "predictions": [prediction]}


def _results(item: Item) -> Iterable[dict[str, Any]]:
    runs = read_runs([mask.rle for mask in item.masks])
    height, width = item.size
    for k, mask in enumerate(item.masks):
        own = slice(*np.asarray(runs.offsets[k : k + 2]).tolist())
        rle = brush_bytes(runs.starts[own], runs.ends[own], height, width).tolist()
        result = {
            "id": f"m{k}",
            "type": BRUSH,
            "from_name": FROM,
            "to_name": TO,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": rle, BRUSH: [mask.class_name]},
        }
        yield result if mask.score is None else {**result, "score": mask.score}
