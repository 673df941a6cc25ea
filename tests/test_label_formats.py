"""Annotation exports become label records that pycocotools would paint alike, and bad ones are refused as a whole."""

from __future__ import annotations

import base64
import copy
import io
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from monitor.classes import Classes
from monitor.errors import InputError
from monitor.labels.formats import FORMATS, detect_format, read_labels
from monitor.labels.outlines import MAX_OUTLINE
from monitor.records import Label, Limits, Model, decode
from monitor.records.png import read_samples
from monitor.sources.protocol import Partition, RawRecord
from tests.made_png import assembled, chunk, header, png

# pycocotools 2.0.11 is older than NumPy 2's copy keyword; the warning is about its inside.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

Tree = dict[str, Any]
HEIGHT, WIDTH = 24, 30
CLASSES = Classes(("sky", "car", "person"), (0, 7, 300), ignore=(255,))
CATEGORIES: list[Tree] = [
    {"id": 3, "name": "car", "isthing": 1},
    {"id": 9, "name": "person", "isthing": 1},
    {"id": 40, "name": "sky", "isthing": 0},
]
WHEN = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)


def read(path: Path, format: str = "auto", **more: Any) -> list[Tree]:
    known: Tree = {"annotator": "ann", "annotation_version": 2, "label_time": WHEN}
    return list(read_labels(path, format, **{**known, **more}))


def decoded(record: Tree) -> Label:
    """As the service reads it."""
    value = msgspec.json.encode(record)
    label = decode(RawRecord(Partition("file", "", "", 0), 0, value, None, (), None), Limits())
    assert isinstance(label, Label)
    return label


def written(folder: Path, tree: Any, name: str = "export.json") -> Path:
    path = folder / name
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    return path


def painted(mask: Any, height: int, width: int) -> NDArray[np.uint8]:
    """An imported mask, by pycocotools."""
    if isinstance(mask, list):
        return np.asarray(coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(mask, height, width))), np.uint8)
    return np.asarray(coco_mask.decode({"size": mask["size"], "counts": mask["counts"].encode()}), np.uint8)


def uncompressed(mask: NDArray[np.bool_]) -> Tree:
    """By the definition: lengths of runs, zeros first."""
    columns = mask.T.reshape(-1).tolist()
    counts, value = [0], False
    for pixel in columns:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def compressed(mask: NDArray[np.bool_]) -> Tree:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def odd_masks() -> dict[str, NDArray[np.bool_]]:
    empty = np.zeros((HEIGHT, WIDTH), bool)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(rows - 12, columns - 15)
    return {
        "empty": empty,
        "full": ~empty,
        "one row": rows == 5,
        "one column": columns == 29,
        "one pixel in the last corner": (rows == HEIGHT - 1) & (columns == WIDTH - 1),
        "diagonal": rows == columns,
        "ring": (distance < 10) & (distance > 8),
        "disk with a hole": (distance < 11) & (distance > 1),
        "chequered": (rows + columns) % 2 == 0,
        "noise": np.random.default_rng(3).random((HEIGHT, WIDTH)) < 0.5,
    }


POLYGONS: dict[str, Any] = {
    "triangle": [[2.0, 2.0, 20.0, 3.5, 8.25, 17.0]],
    "two parts that overlap": [[1, 1, 12, 1, 12, 12, 1, 12], [6, 6, 25, 6, 25, 20, 6, 20]],
    "a little over the edge": [[-1.5, -2.0, 31.2, 3.0, 12.0, 25.5]],
    "one pixel wide": [[3.0, 3.0, 4.0, 3.0, 4.0, 20.0, 3.0, 20.0]],
    "without area": [[3.0, 3.0, 9.0, 3.0, 5.0, 3.0]],
    "self-crossing": [[2, 2, 20, 20, 20, 2, 2, 20]],
}


def coco_tree() -> Tree:
    """Three images: every odd mask in two forms, polygons, nothing."""
    annotations: list[Tree] = []
    for k, mask in enumerate(odd_masks().values()):
        for form in (uncompressed, compressed):
            annotations.append(
                {"image_id": 5, "category_id": 3, "segmentation": form(mask), "iscrowd": k % 2, "area": 1.0}
            )
    annotations += [{"image_id": 2, "category_id": 9, "segmentation": each} for each in POLYGONS.values()]
    for k, annotation in enumerate(annotations):
        annotation["id"] = 4700 + k
    # In the file, the annotations of an image need not stand together.
    annotations = annotations[::2] + annotations[1::2]
    images = [
        {"id": number, "width": WIDTH, "height": HEIGHT, "file_name": f"cam7/0001{number}.jpg"} for number in (5, 2, 8)
    ]
    return {"info": {}, "images": images, "categories": copy.deepcopy(CATEGORIES), "annotations": annotations}


def small_tree() -> Tree:
    mask = {"size": [2, 2], "counts": "121"}
    polygon = [[0.0, 0.0, 2.0, 0.0, 0.0, 2.0]]
    return {
        "images": [
            {"id": 1, "width": 2, "height": 2, "file_name": "a.png"},
            {"id": 2, "width": 2, "height": 2, "file_name": "b.png", "neg_category_ids": [9]},
        ],
        "categories": [{"id": 3, "name": "car"}, {"id": 9, "name": "person"}],
        "annotations": [
            {"id": 4711, "image_id": 1, "category_id": 3, "segmentation": mask, "iscrowd": 0},
            {"id": 4712, "image_id": 2, "category_id": 3, "segmentation": polygon},
            {"id": 4713, "image_id": 2, "category_id": 3, "segmentation": {"size": [2, 2], "counts": [1, 2, 1]}},
        ],
    }


class TestCocoInstances:
    def test_each_mask_is_the_one_that_pycocotools_paints(self, tmp_path: Path) -> None:
        path = written(tmp_path, coco_tree())
        theirs = COCO(str(path))
        records = read(path)
        assert [record["input_id"] for record in records] == ["00015", "00012", "00018"]
        for number, record in zip((5, 2, 8), records, strict=True):
            # getAnnIds follows the file's order within an image, as the records do.
            annotations = theirs.loadAnns(theirs.getAnnIds(imgIds=[number]))
            assert len(record["instances"]) == len(annotations)
            for instance, annotation in zip(record["instances"], annotations, strict=True):
                assert np.array_equal(painted(instance["mask"], HEIGHT, WIDTH), theirs.annToMask(annotation))
                assert instance["class"] == theirs.cats[annotation["category_id"]]["name"]
                assert instance.get("crowd", False) == bool(annotation.get("iscrowd"))
            crowds = [bool(annotation.get("iscrowd")) for annotation in annotations]
            assert [instance.crowd for instance in decoded(record).instances or ()] == crowds
        assert sum(len(record["instances"]) for record in records) == 2 * len(odd_masks()) + len(POLYGONS)

    def test_uncompressed_runs_become_pycocotools_string(self, tmp_path: Path) -> None:
        tree = coco_tree()
        for record in read(written(tmp_path, tree)):
            for instance in record["instances"]:
                assert isinstance(instance["mask"], list) or isinstance(instance["mask"]["counts"], str)
        [first] = [a for a in tree["annotations"] if a["id"] == 4700 + 18]
        assert isinstance(first["segmentation"]["counts"], list)
        noise = compressed(odd_masks()["noise"])
        masks = [instance["mask"] for instance in read(written(tmp_path, tree))[0]["instances"]]
        assert masks.count(noise) == 2

    def test_records_carry_what_the_caller_says(self, tmp_path: Path) -> None:
        [record, *_] = read(
            written(tmp_path, small_tree()),
            purpose="audit",
            model=Model("street", "3"),
            selection_probability=0.25,
        )
        assert {name: value for name, value in record.items() if name != "instances"} == {
            "type": "segwatch.label.v1",
            "input_id": "a",
            "annotator": "ann",
            "annotation_version": 2,
            "label_time": "2026-11-23T12:30:00Z",
            "purpose": "audit",
            "model": {"name": "street", "version": "3"},
            "selection_probability": 0.25,
            "image_size": [2, 2],
        }
        label = decoded(record)
        assert label.purpose == "audit" and label.model == Model("street", "3") and label.label_time == WHEN

    def test_an_image_without_annotations_is_a_label_with_nothing_in_it(self, tmp_path: Path) -> None:
        record = read(written(tmp_path, coco_tree()))[2]
        assert record["instances"] == [] and decoded(record).instances == []

    @pytest.mark.parametrize(
        ("rule", "names"),
        [("stem", ["00015", "00012", "own"]), ("file_name", ["cam7/00015.jpg", "cam7/00012.jpg", "own"]),
         ("id", ["5", "2", "own"])],
    )  # fmt: skip
    def test_inputs_are_named_as_asked_and_the_images_own_field_wins(
        self, tmp_path: Path, rule: str, names: list[str]
    ) -> None:
        tree = coco_tree()
        tree["images"][2]["input_id"] = "own"
        assert [record["input_id"] for record in read(written(tmp_path, tree), input_id=rule)] == names

    def test_texts_serve_as_ids_too(self, tmp_path: Path) -> None:
        tree = small_tree()
        for entry in (*tree["images"],):
            entry["id"] = f"frankfurt_{entry['id']}"
        for annotation in tree["annotations"]:
            annotation["image_id"] = f"frankfurt_{annotation['image_id']}"
        assert [record["input_id"] for record in read(written(tmp_path, tree), input_id="id")] == [
            "frankfurt_1",
            "frankfurt_2",
        ]

    def test_a_byte_order_mark_does_no_harm(self, tmp_path: Path) -> None:
        path = tmp_path / "marked.json"
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(small_tree()).encode())
        assert len(read(path)) == 2

    def test_lvis_says_which_classes_were_looked_for(self, tmp_path: Path) -> None:
        tree = small_tree()
        tree["categories"] += [{"id": 1, "name": "zebra"}, {"id": 2, "name": "unicycle"}]
        images = tree["images"]
        for image in images:
            image["coco_url"] = f"http://images.cocodataset.org/val2017/{image.pop('file_name')}?x=1"
        images[1].update(neg_category_ids=[9, 1], not_exhaustive_category_ids=[3])
        images.append({"id": 3, "width": 2, "height": 2, "coco_url": "x/c.jpg", "neg_category_ids": []})
        first, second, third = read(written(tmp_path, tree))
        assert "judged_classes" not in first and first["input_id"] == "a"
        assert second["judged_classes"] == ["car", "person", "zebra"]
        assert second["absent"] == ["person", "zebra"] and second["not_exhaustive"] == ["car"]
        assert third["judged_classes"] == [] and third["instances"] == []
        # What the model cannot predict is left out of the lists.
        known = read(written(tmp_path, tree), classes=CLASSES)[1]
        assert known["judged_classes"] == ["car", "person"] and known["absent"] == ["person"]
        assert len(decoded(second).instances or ()) == 2


def _change(*where: Any, to: Any) -> Callable[[Tree], None]:
    def change(tree: Any) -> None:
        for step in where[:-1]:
            tree = tree[step]
        if to is ...:
            del tree[where[-1]]
        else:
            tree[where[-1]] = to

    return change


A, B = ("annotations", 0), "annotations[0] (id 4711)"
C = "annotations[1] (id 4712)"
BAD_COCO: dict[str, tuple[Callable[[Tree], None], str]] = {
    "no images": (_change("images", to=...), "images is missing"),
    "no annotations": (_change("annotations", to=...), "annotations is missing"),
    "no categories": (_change("categories", to=...), "categories is missing"),
    "annotations are no list": (_change("annotations", to={}), "annotations: Expected array, got object"),
    "an annotation is a number": (_change(*A, to=5), "annotations[0]: Expected object, got int"),
    "category unknown": (_change(*A, "category_id", to=4), f"{B}: category_id 4 is none of the categories"),
    "category missing": (_change(*A, "category_id", to=...), f"{B}.category_id is missing"),
    "category a text": (_change(*A, "category_id", to="3"), f"{B}.category_id: Expected int, got str, value '3'"),
    "image unknown": (_change(*A, "image_id", to=77), f"{B}: image_id 77 is none of the images"),
    "image a boolean": (_change(*A, "image_id", to=True), f"{B}.image_id: Expected int | str, got bool"),
    "image id twice": (_change("images", 1, "id", to=1), "images[1] (id 1): has the id of images[0]"),
    "annotation id twice": (_change(*A, "id", to=4712), "annotations[1] (id 4712): has the id of annotations[0]"),
    "category id twice": (_change("categories", 1, "id", to=3), "categories[1] (id 3): its id stands there twice"),
    "input twice": (
        _change("images", 1, "file_name", to="x/a.jpg"),
        "images[1] (id 2): input_id 'a' is that of images[0] (id 1) too",
    ),
    "no name": (_change("images", 1, "file_name", to=...), "images[1] (id 2): gives no input_id"),
    "name too long": (_change("images", 1, "file_name", to="n" * 300), "images[1] (id 2): input_id"),
    "name with NUL": (_change("images", 1, "file_name", to="a\0b"), "contains the character U+0000"),
    "negative width": (_change("images", 0, "width", to=-2), "images[0] (id 1).width: Expected int >= 1"),
    "no height": (_change("images", 0, "height", to=...), "images[0] (id 1).height is missing"),
    "no segmentation": (_change(*A, "segmentation", to=...), f"{B}: segmentation is missing: a box is no mask"),
    "segmentation null": (_change(*A, "segmentation", to=None), f"{B}: segmentation: Expected"),
    "segmentation empty": (_change(*A, "segmentation", to=[]), f"{B}: segmentation: there is no polygon in the list"),
    "flat polygon": (_change(*A, "segmentation", to=[0, 0, 1, 0, 1, 1]), f"{B}: segmentation[0]: Expected array"),
    "two points": (_change(*A, "segmentation", to=[[0, 0, 1, 1]]), f"{B}: segmentation[0]: Expected array of length"),
    "odd coordinates": (_change(*A, "segmentation", to=[[0, 0, 1, 0, 1, 1, 2]]), f"{B}: segmentation: a polygon needs"),
    "polygon outside": (
        _change(*A, "segmentation", to=[[0, 0, 1, 0, 1, 1], [2.5, 0, 3, 0, 3, 1]]),
        f"{B}: segmentation: polygon 1 lies outside the image of 2 x 2: it spans x, y from [2.5, 0.0] to [3.0, 1.0]",
    ),
    "polygon far": (
        _change(*A, "segmentation", to=[[0, 0, 1, 0, 1, 900]]),
        f"{B}: segmentation: polygon 0 reaches more than an image's side out of the image",
    ),
    "coordinate of 10^9": (_change(*A, "segmentation", to=[[0, 0, 1e9, 0, 1, 1]]), "beyond +-10000000"),
    "counts too short": (
        _change(*A, "segmentation", "counts", to="12"),
        f"{B}: segmentation: the counts do not add up",
    ),
    "counts cut": (_change(*A, "segmentation", "counts", to="1P"), f"{B}: segmentation: counts ends within a number"),
    "counts of other characters": (_change(*A, "segmentation", "counts", to="é~ "), "outside '0'..'o'"),
    "count negative": (
        _change(*A, "segmentation", "counts", to=[5, -1]),
        f"{B}: segmentation.counts[1]: Expected int >= 0",
    ),
    "count of 10^30": (_change(*A, "segmentation", "counts", to=[10**30]), f"{B}: segmentation"),
    "size of another image": (
        _change(*A, "segmentation", to={"size": [2, 3], "counts": "33"}),
        f"{B}: segmentation: size is [2, 3], the image's [2, 2]",
    ),
    "size negative": (_change(*A, "segmentation", "size", 0, to=-2), f"{B}: segmentation.size[0]: Expected int >= 1"),
    "size missing": (_change(*A, "segmentation", "size", to=...), f"{B}: segmentation: size is missing"),
    "crowd of 2": (_change(*A, "iscrowd", to=2), f"{B}.iscrowd: Expected int <= 1"),
    "class without name": (
        _change("categories", 0, "name", to=""),
        "categories[0] (id 3).name: Expected str of length",
    ),
    "class named by NUL": (_change("categories", 0, "name", to="a\0"), "instances[0].class: 'a\\x00' contains"),
    "absent class annotated": (
        _change("images", 1, "neg_category_ids", to=[3]),
        f"images[1] (id 2): neg_category_ids: 3 is annotated by {C}",
    ),
    "absent class unknown": (
        _change("images", 1, "neg_category_ids", to=[77]),
        "images[1] (id 2): neg_category_ids: 77 is none of the categories",
    ),
    "absent classes a number": (
        _change("images", 1, "neg_category_ids", to=3),
        "images[1] (id 2): neg_category_ids: Expected array | null, got int",
    ),
    "other class unknown": (
        _change("images", 1, "not_exhaustive_category_ids", to=[-1]),
        "images[1] (id 2): not_exhaustive_category_ids: -1 is none of the categories",
    ),
}

BAD_TEXTS: dict[str, tuple[str, str]] = {
    "empty": ("", "is empty"),
    "blank": (" \n ", "is empty"),
    "not JSON": ("<annotations/>", "not JSON: JSON is malformed"),
    "truncated": (json.dumps(small_tree())[:-40], "not JSON: Input data was truncated"),
    "NaN": (json.dumps(small_tree()).replace("[[0.0", "[[NaN"), "not JSON: JSON is malformed"),
    "a list": ("[]", "Expected object, got array"),
    "nested deeply": ('{"info": ' + "[" * 100_000, "not JSON: nested too deeply"),
    "huge number": (json.dumps(small_tree()).replace("4711", "1" * 400), "annotations[0]"),
}


class TestBadCocoFiles:
    @pytest.mark.parametrize("fault", BAD_COCO)
    def test_they_are_refused_with_file_entry_and_reason(self, tmp_path: Path, fault: str) -> None:
        change, message = BAD_COCO[fault]
        tree = small_tree()
        change(tree)
        path = written(tmp_path, tree)
        with pytest.raises(InputError) as caught:
            read_labels(path, "coco", annotator="ann", annotation_version=1, label_time=WHEN)
        assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 + len(str(path))

    @pytest.mark.parametrize("fault", BAD_TEXTS)
    def test_damaged_json_is_refused(self, tmp_path: Path, fault: str) -> None:
        text, message = BAD_TEXTS[fault]
        path = written(tmp_path, text)
        with pytest.raises(InputError) as caught:
            read(path, "coco")
        assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)

    def test_texts_that_are_no_text_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "export.json"
        path.write_bytes(json.dumps(small_tree()).encode().replace(b"a.png", b"\xff\xfe"))
        with pytest.raises(InputError, match="not UTF-8"):
            read(path)

    def test_images_above_the_limit_of_pixels_are_refused_before_anything_is_made(self, tmp_path: Path) -> None:
        tree = small_tree()
        tree["images"][0].update(width=2**31 - 1, height=2**31 - 1)
        with pytest.raises(InputError, match=r"images\[0\] \(id 1\): 2147483647 x 2147483647 pixels, the limit is"):
            read(written(tmp_path, tree))

    def test_outlines_that_would_fill_the_memory_of_a_painter_are_refused(self, tmp_path: Path) -> None:
        side = 4000
        corners = 2 * (MAX_OUTLINE // side // 2 + 1)
        zigzag = [[value for k in range(corners) for value in (side * (k % 2), k % side)]]
        tree = small_tree()
        tree["images"][0].update(width=side, height=side)
        tree["annotations"][0]["segmentation"] = zigzag
        with pytest.raises(InputError, match=r"annotations\[0\] \(id 4711\): segmentation: outlines of \d+ pixels"):
            read(written(tmp_path, tree))
        tree["annotations"][0]["segmentation"] = [zigzag[0][: len(zigzag[0]) - 8]]
        assert len(read(written(tmp_path, tree))) == 2

    def test_records_that_segwatch_would_not_take_are_refused(self, tmp_path: Path) -> None:
        tree = small_tree()
        one = tree["annotations"][0]
        tree["annotations"] += [{**one, "id": 5000 + k} for k in range(10_000)]
        with pytest.raises(InputError, match=r"images\[0\] \(id 1\): instances: Expected array of length <= 10000"):
            read(written(tmp_path, tree))
        with pytest.raises(InputError, match=r"images\[0\] \(id 1\): the value has \d+ bytes, the limit is 300"):
            read(written(tmp_path, tree), limits=Limits(max_value_bytes=300))

    def test_a_segmentation_above_the_limit_of_bytes_is_not_even_decoded(self, tmp_path: Path) -> None:
        tree = small_tree()
        tree["annotations"][0]["segmentation"]["counts"] = [0] * 1000
        with pytest.raises(InputError, match=r"\(id 4711\): segmentation has \d+ bytes, a record at most 500"):
            read(written(tmp_path, tree), limits=Limits(max_value_bytes=500))

    def test_a_class_that_the_model_does_not_have_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path, small_tree())
        assert len(read(path, classes=CLASSES)) == 2
        with pytest.raises(
            InputError, match=r"annotations\[0\] \(id 4711\): category_id 3 is 'car', which the classes"
        ):
            read(path, classes=Classes(("person",), (0,)))

    def test_more_objects_than_memory_is_meant_for_are_refused_before_they_are_decoded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("monitor.labels.coco_json.MAX_OBJECTS", 50)
        path = written(tmp_path, '{"images": [' + "{}," * 50)
        with pytest.raises(InputError, match="51 objects, the limit is 50"):
            read(path)

    def test_no_record_is_given_of_a_file_whose_last_entry_is_bad(self, tmp_path: Path) -> None:
        tree = small_tree()
        tree["annotations"][2]["segmentation"]["counts"] = [1, 2, 2]
        with pytest.raises(InputError, match=r"annotations\[2\] \(id 4713\)"):
            read_labels(written(tmp_path, tree), annotator="ann", annotation_version=1, label_time=WHEN)

    @pytest.mark.parametrize(
        ("field", "value"),
        [("annotator", ""), ("annotator", "a\0"), ("annotation_version", -1), ("annotation_version", 2**63),
         ("purpose", "fun"), ("selection_probability", 0.0), ("label_time", WHEN.replace(tzinfo=None)),
         ("label_time", datetime(1999, 1, 1, tzinfo=UTC)), ("input_id", "name"), ("format", "xml")],
    )  # fmt: skip
    def test_a_bad_argument_is_named(self, tmp_path: Path, field: str, value: Any) -> None:
        with pytest.raises(InputError, match=field):
            read(written(tmp_path, small_tree()), **{field: value})

    @pytest.mark.parametrize("what", ["missing", "pipe", "folder", "nul", "loop", "dot"])
    def test_what_is_no_file_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
        path = tmp_path / what
        if what == "pipe":
            os.mkfifo(path)
        elif what == "folder":
            path.mkdir()
        elif what == "nul":
            path = tmp_path / "a\0b"
        elif what == "loop":
            path.symlink_to(path)
        elif what == "dot":
            monkeypatch.chdir(tmp_path)
            path = Path(".")
        for name in ("auto", *FORMATS):
            with pytest.raises(InputError):
                read(path, name, classes=CLASSES)


def panoptic_ids() -> dict[str, NDArray[np.int64]]:
    rng = np.random.default_rng(11)
    first = np.full((HEIGHT, WIDTH), 5)
    first[4:10, 3:9] = 70_000
    first[6, 5] = 5
    first[20:, :] = 16_777_215
    first[:, 29] = 0
    second = rng.choice([1, 300, 65_536], (HEIGHT, WIDTH))
    return {"a": first, "b": second}


SEGMENTS: dict[str, dict[int, tuple[int, int]]] = {
    "a": {5: (40, 0), 70_000: (3, 0), 16_777_215: (9, 1)},
    "b": {1: (3, 0), 300: (3, 0), 65_536: (40, 0)},
}
"""Id: category, iscrowd."""


def rgb(ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.stack([ids % 256, ids // 256 % 256, ids // 65_536], axis=2).astype(np.uint8)


def panoptic_tree() -> Tree:
    return {
        "images": [
            {"id": k, "width": WIDTH, "height": HEIGHT, "file_name": f"{name}.jpg"}
            for k, name in enumerate(panoptic_ids())
        ],
        "categories": copy.deepcopy(CATEGORIES),
        "annotations": [
            {
                "image_id": k,
                "file_name": f"{name}.png",
                "segments_info": [
                    {"id": number, "category_id": category, "iscrowd": crowd, "area": 1, "bbox": [0, 0, 1, 1]}
                    for number, (category, crowd) in SEGMENTS[name].items()
                ],
            }
            for k, name in enumerate(panoptic_ids())
        ],
    }


def panoptic_export(folder: Path, change: Callable[[Tree], None] = lambda tree: None) -> Path:
    tree = panoptic_tree()
    change(tree)
    (folder / "panoptic").mkdir(exist_ok=True)
    for name, ids in panoptic_ids().items():
        (folder / "panoptic" / f"{name}.png").write_bytes(png(rgb(ids)))
    return written(folder, tree, "panoptic.json")


BAD_PANOPTIC: dict[str, tuple[Callable[[Tree], None], str]] = {
    "traversal": (_change(*A, "file_name", to="../../etc/passwd"), "leads out of"),
    "traversal inside": (_change(*A, "file_name", to="x/../a.png"), "leads out of"),
    "backslashes": (_change(*A, "file_name", to="..\\..\\a.png"), "leads out of"),
    "absolute": (_change(*A, "file_name", to="/etc/passwd"), "leads out of"),
    "name with NUL": (_change(*A, "file_name", to="a\0.png"), "is no file name"),
    "no name": (_change(*A, "file_name", to=""), "is no file name"),
    "name too long": (_change(*A, "file_name", to="n" * 4000), "File name too long"),
    "missing file": (_change(*A, "file_name", to="c.png"), "No such file"),
    "folder": (_change(*A, "file_name", to="."), "is a symbolic link that leads out of"),
    "id of 2^24": (_change(*A, "segments_info", 0, "id", to=2**24), "Expected int <= 16777215"),
    "id twice": (_change(*A, "segments_info", 1, "id", to=5), "segments_info[1] (id 5): its id stands there twice"),
    "id not drawn": (
        _change(*A, "segments_info", 0, "id", to=6),
        "the PNG file has the segment id 5, segments_info does not",
    ),
    "category unknown": (
        _change(*A, "segments_info", 0, "category_id", to=1),
        "annotations[0] (image_id 0): segments_info[0] (id 5): category_id 1 is none of the categories",
    ),
    "class unknown": (_change("categories", 0, "name", to="cat"), "is 'cat', which the classes do not have"),
    "isthing missing": (_change("categories", 0, "isthing", to=...), "categories[0] (id 3): isthing is missing"),
    "image unknown": (_change(*A, "image_id", to=6), "image_id 6 is none of the images"),
    "image twice": (_change(*A, "image_id", to=1), "is for the same image as annotations[0]"),
    "image not annotated": (_change(*A, to=...), "images[0] (id 0): has no annotation"),
    "other size": (
        _change("images", 0, "width", to=WIDTH + 1),
        f"annotations[0] (image_id 0): 'a.png' is {HEIGHT} x {WIDTH}, the image {HEIGHT} x {WIDTH + 1}",
    ),
}

BAD_SEGMENT_PNGS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a PNG file"),
    "text": (b"root:x:0:0", "not a PNG file"),
    "truncated": (png(rgb(panoptic_ids()["a"]))[:-30], "truncated"),
    "greyscale": (png(np.zeros((HEIGHT, WIDTH), np.uint8)), "no 8-bit RGB PNG"),
    "with alpha": (png(np.zeros((HEIGHT, WIDTH, 4), np.uint8)), "no 8-bit RGB PNG"),
    "claims 2^31 pixels a side": (
        assembled(header(2**31 - 1, 2**31 - 1, colour=2), b"\0"),
        "is 2147483647 x 2147483647, the image",
    ),
    "16-bit": (assembled(header(HEIGHT, WIDTH, 16, 2), b"\0" * (HEIGHT * (1 + 6 * WIDTH))), "no 8-bit RGB PNG"),
    "too few samples": (assembled(header(HEIGHT, WIDTH, 8, 2), b"\0" * 50), "a.png"),
}


class TestCocoPanoptic:
    def test_things_become_instances_and_every_pixel_a_class(self, tmp_path: Path) -> None:
        records = read(panoptic_export(tmp_path), classes=CLASSES)
        assert [record["input_id"] for record in records] == ["a", "b"]
        name_of = {category["id"]: category["name"] for category in CATEGORIES}
        for record, (name, ids) in zip(records, panoptic_ids().items(), strict=True):
            things = {n: pair for n, pair in SEGMENTS[name].items() if pair[0] != 40}
            assert len(record["instances"]) == len(things)
            for instance, (number, (category, crowd)) in zip(record["instances"], things.items(), strict=True):
                assert instance["mask"] == compressed(ids == number)
                assert instance["class"] == name_of[category] and instance.get("crowd", False) == bool(crowd)
            expected = np.full((HEIGHT, WIDTH), 255)
            for number, (category, _) in SEGMENTS[name].items():
                expected[ids == number] = dict(zip(CLASSES.names, CLASSES.indices, strict=True))[name_of[category]]
            data = base64.b64decode(record["semantic"]["classes_png"])
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), expected)
            label = decoded(record)
            assert label.semantic is not None
            assert np.array_equal(read_samples(label.semantic.classes_png, "map", 10**6), expected)

    def test_one_segment_of_the_whole_image_is_a_full_mask(self, tmp_path: Path) -> None:
        def only(tree: Tree) -> None:
            tree["images"], tree["annotations"] = tree["images"][:1], tree["annotations"][:1]
            tree["annotations"][0]["segments_info"] = [{"id": 9, "category_id": 3}]

        path = panoptic_export(tmp_path, only)
        (tmp_path / "panoptic" / "a.png").write_bytes(png(rgb(np.full((HEIGHT, WIDTH), 9))))
        [record] = read(path, classes=CLASSES)
        assert record["instances"][0]["mask"] == compressed(np.ones((HEIGHT, WIDTH), bool))
        indices = read_samples(base64.b64decode(record["semantic"]["classes_png"]), "map", 10**6)
        assert indices.dtype == np.uint8 and (indices == 7).all()

    def test_the_folder_may_be_named(self, tmp_path: Path) -> None:
        path = panoptic_export(tmp_path)
        (tmp_path / "panoptic").rename(tmp_path / "elsewhere")
        assert len(read(path, classes=CLASSES, png_folder=tmp_path / "elsewhere")) == 2
        with pytest.raises(InputError, match="the folder of its PNG files is not there"):
            read(path, classes=CLASSES)

    def test_classes_are_needed(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="needs the model's classes"):
            read(panoptic_export(tmp_path))

    @pytest.mark.parametrize("fault", BAD_PANOPTIC)
    def test_bad_entries_are_refused(self, tmp_path: Path, fault: str) -> None:
        change, message = BAD_PANOPTIC[fault]
        path = panoptic_export(tmp_path, change)
        with pytest.raises(InputError) as caught:
            read(path, classes=CLASSES)
        assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)

    def test_a_declared_segment_without_a_pixel_is_refused(self, tmp_path: Path) -> None:
        def add(tree: Tree) -> None:
            tree["annotations"][0]["segments_info"].append({"id": 12, "category_id": 3})

        with pytest.raises(InputError, match="segments_info has the id 12, the PNG file has no pixel of it"):
            read(panoptic_export(tmp_path, add), classes=CLASSES)

    def test_void_needs_an_ignored_index(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"annotations\[0\].*VOID"):
            read(panoptic_export(tmp_path), classes=Classes(CLASSES.names, CLASSES.indices))

    @pytest.mark.parametrize("inside", [True, False])
    def test_links_are_followed_inside_the_folder_alone(self, tmp_path: Path, inside: bool) -> None:
        path = panoptic_export(tmp_path)
        file = tmp_path / "panoptic" / "a.png"
        target = tmp_path / "panoptic" / "moved.png" if inside else tmp_path / "moved.png"
        file.rename(target)
        file.symlink_to(target)
        if inside:
            assert len(read(path, classes=CLASSES)) == 2
        else:
            with pytest.raises(InputError, match="symbolic link that leads out of"):
                read(path, classes=CLASSES)

    @pytest.mark.parametrize("fault", BAD_SEGMENT_PNGS)
    def test_bad_png_files_are_refused(self, tmp_path: Path, fault: str) -> None:
        data, message = BAD_SEGMENT_PNGS[fault]
        path = panoptic_export(tmp_path)
        (tmp_path / "panoptic" / "a.png").write_bytes(data)
        with pytest.raises(InputError) as caught:
            read(path, classes=CLASSES)
        assert str(caught.value).startswith(f"{path}: annotations[0] (image_id 0): ") and message in str(caught.value)


class TestPngFolder:
    def test_files_are_passed_on_as_they_are(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(2)
        grey = png(rng.choice([0, 7, 255], (9, 11)).astype(np.uint8))
        palette = png(rng.choice([0, 7, 255], (9, 11)).astype(np.uint8), 256)
        deep = png(rng.choice([0, 300], (9, 11)).astype(np.uint16))
        folder = tmp_path / "maps"
        (folder / "cam7").mkdir(parents=True)
        (folder / "b.png").write_bytes(grey)
        (folder / "a.PNG").write_bytes(palette)
        (folder / "cam7" / "c.d.png").write_bytes(deep)
        (folder / ".hidden.png").write_bytes(b"")
        (folder / "labelmap.txt").write_text("sky:0,0,0::")
        records = read(folder, classes=CLASSES)
        assert {r["input_id"]: base64.b64decode(r["semantic"]["classes_png"]) for r in records} == {
            "a": palette,
            "b": grey,
            "c.d": deep,
        }
        assert all("instances" not in record and decoded(record).semantic is not None for record in records)
        names = [record["input_id"] for record in read(folder, classes=CLASSES, input_id="file_name")]
        assert names == ["a.PNG", "b.png", "cam7/c.d.png"]

    def folder(self, tmp_path: Path, data: bytes) -> Path:
        (tmp_path / "maps").mkdir()
        (tmp_path / "maps" / "a.png").write_bytes(png(np.zeros((4, 4), np.uint8)))
        (tmp_path / "maps" / "z.png").write_bytes(data)
        return tmp_path / "maps"

    def test_an_index_that_is_neither_named_nor_ignored_is_refused(self, tmp_path: Path) -> None:
        samples = np.zeros((4, 5), np.uint8)
        samples[2, 3] = 8
        with pytest.raises(
            InputError, match=r"maps: 'z.png': index 8 at row 2, column 3 is neither a class nor ignored"
        ):
            read(self.folder(tmp_path, png(samples)), classes=CLASSES)

    @pytest.mark.parametrize(
        ("data", "message"),
        [(b"", "not a PNG"), (png(np.zeros((4, 4, 3), np.uint8)), "8-bit colour"),
         (png(np.zeros((4, 4), np.uint8))[:-20], "cut short"),
         (assembled(header(50_000, 50_000), b"\0" * 99), "the limit is"),
         (assembled(header(4, 4), b"\0" * 10**7), "cut short or overlong"),
         (png(np.zeros((4, 4), np.uint8))[:33] + chunk(b"IDAT", b"xx") + chunk(b"IEND", b""), "damaged")],
    )  # fmt: skip
    def test_bad_files_are_refused(self, tmp_path: Path, data: bytes, message: str) -> None:
        path = self.folder(tmp_path, data)
        with pytest.raises(InputError) as caught:
            read(path, classes=CLASSES)
        said = str(caught.value)
        assert said.startswith(f"{path}: 'z.png': ") and message in said
        assert said.count("z.png") == 1 and ": it: " not in said

    def test_a_file_above_the_limit_of_bytes_is_not_read(self, tmp_path: Path) -> None:
        path = self.folder(tmp_path, b"x" * 5000)
        with pytest.raises(InputError, match="'z.png': .*has 5000 bytes, the limit is 4000"):
            read(path, classes=CLASSES, limits=Limits(max_image_bytes=4000))

    def test_a_file_named_in_no_encoding_is_refused_on_one_printable_line(self, tmp_path: Path) -> None:
        path = self.folder(tmp_path, png(np.zeros((4, 4), np.uint8)))
        (path / os.fsdecode(b"b\xff\n.png")).write_bytes((path / "z.png").read_bytes())
        with pytest.raises(InputError, match="maps: 'b.*png': ") as caught:
            read(path, classes=CLASSES)
        assert str(caught.value).isprintable()

    def test_two_files_of_one_input_are_refused(self, tmp_path: Path) -> None:
        path = self.folder(tmp_path, png(np.zeros((4, 4), np.uint8)))
        (path / "cam").mkdir()
        (path / "cam" / "a.png").write_bytes((path / "z.png").read_bytes())
        with pytest.raises(InputError, match=r"'cam/a.png': input_id 'a' is that of 'a.png' too"):
            read(path, classes=CLASSES)
        assert len(read(path, classes=CLASSES, input_id="file_name")) == 3

    @pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
    def test_links_out_of_the_folder_and_pipes_are_refused(self, tmp_path: Path, kind: str) -> None:
        path = self.folder(tmp_path, png(np.zeros((4, 4), np.uint8)))
        outside = tmp_path / "outside.png"
        outside.write_bytes((path / "a.png").read_bytes())
        if kind == "file":
            (path / "m.png").symlink_to(outside)
        elif kind == "folder":
            (path / "m").symlink_to(tmp_path)
        else:
            os.mkfifo(path / "m.png")
        with pytest.raises(InputError, match=r"'m(.png)?'"):
            read(path, classes=CLASSES)

    def test_classes_are_needed_and_files_have_no_id(self, tmp_path: Path) -> None:
        path = self.folder(tmp_path, png(np.zeros((4, 4), np.uint8)))
        with pytest.raises(InputError, match="needs the model's classes"):
            read(path)
        with pytest.raises(InputError, match="PNG files have no id"):
            read(path, classes=CLASSES, input_id="id")
        (tmp_path / "none").mkdir()
        with pytest.raises(InputError, match="no PNG file in it"):
            read(tmp_path / "none", classes=CLASSES)


CVAT_XML = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<image id="0" name="a.png" width="4" height="3">
  <mask label="car" source="manual" occluded="0" rle="1, 2, 1" left="1" top="0" width="2" height="2" z_order="0"></mask>
  <polygon label="sky" points="0.0,0.0;3.5,0.0;0.0,2.5" z_order="-1"></polygon>
  <tag label="night"></tag>
</image>
<image id="1" name="b.png" width="4" height="3"/>
</annotations>
"""


def cvat_tree() -> Tree:
    shape = {"type": "mask", "frame": 0, "label_id": 5, "points": [1.0, 2.0, 1.0, 1.0, 0.0, 2.0, 1.0]}
    frames = [{"name": "a.png", "width": 4, "height": 3}]
    return {
        "labels": [{"id": 5, "name": "car", "attributes": []}],
        "meta": {"size": 1, "frames": frames, "deleted_frames": []},
        "annotations": {"version": 1, "tags": [], "shapes": [shape], "tracks": []},
    }


def label_studio_tree() -> list[Tree]:
    """A brush mask over all of 1 x 2 pixels, a polygon, and what is no label."""
    size = {"original_width": 2, "original_height": 1, "image_rotation": 0}
    rle = [0, 0, 0, 8, 57, 27, 252, 255, 224]
    brush = {"type": "brushlabels", "value": {"format": "rle", "rle": rle, "brushlabels": ["car"]}, **size}
    points = [[0.0, 0.0], [100.0, 0.0], [100.0, 100.0]]
    polygon = {"type": "polygonlabels", "value": {"points": points, "polygonlabels": ["sky"]}, **size}
    choice = {"type": "choices", "value": {"choices": ["blurred"]}}
    done = {"id": 1, "updated_at": "2026-11-23T13:00:00Z", "result": [brush, polygon, choice]}
    skipped = {"id": 2, "was_cancelled": True, "result": []}
    return [
        {"id": 4, "data": {"image": "/data/local-files/?d=cam/a.png"}, "annotations": [done, skipped]},
        {"id": 5, "data": {"image": "b.png"}, "annotations": []},
    ]


class TestTools:
    def test_cvats_shapes(self, tmp_path: Path) -> None:
        for name in ("cvat", "cvat-json"):
            first = read(exports(tmp_path / name)[name])[0]
            assert (first["input_id"], first["image_size"]) == ("a", [3, 4])
            [car] = [one for one in first["instances"] if one["class"] == "car"]
            assert painted(car["mask"], 3, 4).tolist() == [[0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
        first, second = read(exports(tmp_path / "again")["cvat"])
        # By z_order: what lies under the others comes first.
        assert [one["class"] for one in first["instances"]] == ["sky", "car"]
        assert first["instances"][0]["mask"] == [[0.0, 0.0, 3.5, 0.0, 0.0, 2.5]]
        assert second["instances"] == []

    def test_label_studios_results(self, tmp_path: Path) -> None:
        [record] = read(written(tmp_path, label_studio_tree()))
        assert record["input_id"] == "a" and record["label_time"] == "2026-11-23T13:00:00Z"
        car, sky = record["instances"]
        assert painted(car["mask"], 1, 2).tolist() == [[1, 1]]
        assert sky["mask"] == [[0.0, 0.0, 2.0, 0.0, 2.0, 1.0]]

    def test_a_map_is_made_where_it_is_asked_for(self, tmp_path: Path) -> None:
        record = read(written(tmp_path, CVAT_XML, "a.xml"), form="semantic", classes=CLASSES)[0]
        indices = read_samples(base64.b64decode(record["semantic"]["classes_png"]), "it", 100)
        assert indices[0, 2] == 7 and indices[2, 3] == 255 and indices[0, 0] == 0
        without = Classes(CLASSES.names, CLASSES.indices)
        with pytest.raises(InputError, match="has no mask, and the classes ignore no index"):
            read(written(tmp_path, CVAT_XML, "a.xml"), form="semantic", classes=without)


def exports(folder: Path) -> dict[str, Path]:
    """One good export of each format."""
    (folder / "maps").mkdir(parents=True)
    (folder / "maps" / "a.png").write_bytes(png(np.zeros((4, 4), np.uint8)))
    return {
        "coco": written(folder, coco_tree(), "instances.json"),
        "coco-panoptic": panoptic_export(folder),
        "cvat": written(folder, CVAT_XML, "annotations.xml"),
        "cvat-json": written(folder, cvat_tree(), "job.json"),
        "labelstudio": written(folder, label_studio_tree(), "tasks.json"),
        "png-folder": folder / "maps",
    }


class TestEveryFormat:
    @pytest.mark.parametrize("name", FORMATS)
    def test_it_is_recognised_and_gives_records_that_segwatch_takes(self, tmp_path: Path, name: str) -> None:
        path = exports(tmp_path)[name]
        assert detect_format(path) == name
        records = read(path, classes=CLASSES)
        assert records and records == read(path, name, classes=CLASSES)
        for record in records:
            label = decoded(json.loads(json.dumps(record)))
            assert label.input_id == record["input_id"] and label.annotator == "ann"

    def test_the_table_is_complete(self, tmp_path: Path) -> None:
        assert set(exports(tmp_path)) == set(FORMATS)

    def test_other_files_are_none_of_them(self, tmp_path: Path) -> None:
        with pytest.raises(
            InputError, match="is none of the formats coco-panoptic, cvat, cvat-json, labelstudio, coco"
        ):
            read(written(tmp_path, "annotations"))
        with pytest.raises(InputError, match="no such file"):
            read(tmp_path / "missing.json")


scalars = (
    st.none() | st.booleans() | st.floats() | st.integers(-(10**20), 10**20) | st.text(max_size=5)
    | st.sampled_from([0, 1, 2, 3, -1, 2**31 - 1, 2**31, 2**63, 1e300, "../x", "a\0", "a.png", "121", 10**40])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.dictionaries(st.sampled_from(["size", "counts", "id", "name", "file_name", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs: Any = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield (*at, key)
        yield from places(value, (*at, key))


def damaged(data: st.DataObject, tree: Tree) -> str:
    tree = copy.deepcopy(tree)
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.sampled_from(list(places(tree)) or [("x",)]))
        _change(*where, to=data.draw(st.just(...) | values))(tree)
    text = json.dumps(tree)
    if data.draw(st.integers(0, 4)) == 0:
        first = data.draw(st.integers(0, len(text)))
        text = text[:first] + data.draw(st.text(max_size=3)) + text[first + data.draw(st.integers(0, 40)) :]
    return text


fuzzed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestFuzzing:
    """Whatever stands in an export, only InputError comes out, or records that segwatch takes."""

    @fuzzed
    @given(data=st.data())
    def test_coco(self, tmp_path: Path, data: st.DataObject) -> None:
        path = tmp_path / "export.json"
        path.write_bytes(damaged(data, small_tree()).encode("utf-8", "surrogatepass"))
        self.check(path, "coco")

    @fuzzed
    @given(data=st.data())
    def test_cvat_json(self, tmp_path: Path, data: st.DataObject) -> None:
        path = tmp_path / "job.json"
        path.write_bytes(damaged(data, cvat_tree()).encode("utf-8", "surrogatepass"))
        self.check(path, "cvat-json")

    @fuzzed
    @given(data=st.data())
    def test_label_studio(self, tmp_path: Path, data: st.DataObject) -> None:
        path = tmp_path / "tasks.json"
        tasks: Any = 2 * label_studio_tree()
        path.write_bytes(damaged(data, tasks).encode("utf-8", "surrogatepass"))
        self.check(path, "labelstudio")

    @fuzzed
    @given(data=st.data())
    def test_cvat(self, tmp_path: Path, data: st.DataObject) -> None:
        text = CVAT_XML
        for _ in range(data.draw(st.integers(1, 3))):
            first = data.draw(st.integers(0, len(text)))
            new = data.draw(st.text(max_size=3) | st.sampled_from(["-1", "9" * 30, "nan", "&x;", "<", '"', "inf"]))
            text = text[:first] + new + text[first + data.draw(st.integers(0, 12)) :]
        path = tmp_path / "annotations.xml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        self.check(path, "cvat")

    @fuzzed
    @given(data=st.data())
    def test_panoptic(self, tmp_path: Path, data: st.DataObject) -> None:
        path = panoptic_export(tmp_path)
        path.write_bytes(damaged(data, panoptic_tree()).encode("utf-8", "surrogatepass"))
        self.check(path, "coco-panoptic")

    @fuzzed
    @given(data=st.data(), name=st.sampled_from(["coco-panoptic", "png-folder"]))
    # Pillow warns of damaged animation chunks, and goes on with the picture.
    @pytest.mark.filterwarnings("ignore:Invalid APNG")
    def test_png_files(self, tmp_path: Path, data: st.DataObject, name: str) -> None:
        path = panoptic_export(tmp_path)
        file = tmp_path / "panoptic" / "a.png"
        content = bytearray(file.read_bytes() if name == "coco-panoptic" else png(np.zeros((9, 9), np.uint8), 4))
        for _ in range(data.draw(st.integers(1, 3))):
            first = data.draw(st.integers(0, len(content)))
            content[first : first + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
        file.write_bytes(content)
        (tmp_path / "panoptic" / "b.png").write_bytes(png(rgb(panoptic_ids()["b"])))
        self.check(path if name == "coco-panoptic" else tmp_path / "panoptic", name)

    def check(self, path: Path, name: str) -> None:
        try:
            records = read(path, name, classes=CLASSES)
        except InputError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error) and str(error).isprintable()
        else:
            assert all(decoded(record) for record in records)
