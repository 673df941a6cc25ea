"""The formats that annotation tools are given: one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from monitor.classes import Classes
from monitor.exports.coco import write_coco
from monitor.exports.cvat import write_cvat
from monitor.exports.items import Item
from monitor.exports.jsonl import write_lines
from monitor.exports.label_studio import write_label_studio
from monitor.exports.panoptic import write_panoptic


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """How one kind of file is written. ``file_name``: where a folder is given; ``read_as``: its name among the formats
    that `monitor.labels` reads."""

    summary: str
    file_name: str
    read_as: str
    write: Callable[[Iterable[Item], Classes, Path], None]
    labels_only: bool = False


EXPORTS: dict[str, ExportFormat] = {
    "coco": ExportFormat("COCO instances", "instances.json", "coco", write_coco),
    "coco-panoptic": ExportFormat("COCO panoptic", "panoptic.json", "coco-panoptic", write_panoptic),
    "cvat": ExportFormat("CVAT's XML, and the task's labels", "annotations.xml", "cvat", write_cvat),
    "labelstudio": ExportFormat(
        "Label Studio's tasks, and its configuration", "tasks.json", "labelstudio", write_label_studio
    ),
    "jsonl": ExportFormat("label records", "labels.jsonl", "jsonl", write_lines, labels_only=True),
}
