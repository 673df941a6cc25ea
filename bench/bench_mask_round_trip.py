"""10,000 masks through the annotation tools' own SDKs and back: ``python -m bench.bench_mask_round_trip [--golden]``.

Peers, each in an environment of its own under ``.cache/peers``: cvat-sdk (its mask encoder and decoder, its request
models) and label-studio-sdk (its brush encoder and decoder). Masks are those of ``tests/made_masks.py``. ``--golden``
writes ``tests/data/tool_masks.json`` anew: small masks as the SDKs encode them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.drift.environments import CACHE, ROOT, environ
from detectors.box_runs import box_runs, runs_of_box
from detectors.brush_rle import brush_bytes, brush_runs
from detectors.quality.mask_runs import read_runs
from monitor.masks import encode_rle
from tests.made_masks import adversarial, images_of_masks

PEERS = {"cvat": "cvat-sdk[masks]==2.80.0", "labelstudio": "label-studio-sdk==2.1.2"}
GOLDEN = ROOT / "tests" / "data" / "tool_masks.json"
RUNNER = """
import json, sys, time
import numpy as np
what, source, sink = sys.argv[1:]
cases = json.load(open(source))
out = []
began = time.process_time()
for case in cases:
    height, width = case["size"]
    mask = np.unpackbits(np.array(case["bits"], np.uint8), count=height * width).astype(bool).reshape(height, width)
    if what == "cvat":
        from cvat_sdk.masks import decode_mask, encode_mask
        from cvat_sdk.models import LabeledShapeRequest
        encoded = [int(number) for number in encode_mask(mask)]
        shape = LabeledShapeRequest(type="mask", frame=0, label_id=1, points=[float(one) for one in case["ours"]])
        same = bool((decode_mask(shape.points, image_width=width, image_height=height) == mask).all())
    else:
        from label_studio_sdk.converter.brush import decode_rle, mask2rle
        encoded = mask2rle(mask.astype(np.uint8) * 255)
        picture = decode_rle(case["ours"]).reshape(height, width, 4)
        same = bool(((picture[:, :, 3] > 0) == mask).all())
    out.append({"encoded": [int(one) for one in encoded], "same": same})
json.dump({"cases": out, "seconds": time.process_time() - began}, open(sink, "w"))
"""


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, made where it is not there yet."""
    folder, wanted = CACHE / f"masks-{peer}", PEERS[peer]
    stamp, python = folder / "requirements.txt", folder / "bin" / "python"
    if not (stamp.exists() and stamp.read_text() == wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", wanted], check=True)
        stamp.write_text(wanted)
    return python


def ask(peer: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """What a peer makes of masks, and whether it reads ours as the same."""
    with tempfile.TemporaryDirectory() as name:
        source, sink = Path(name) / "in.json", Path(name) / "out.json"
        source.write_text(json.dumps(cases))
        command = [str(python_of(peer)), "-c", RUNNER, peer, str(source), str(sink)]
        subprocess.run(command, check=True, env=environ())
        found: dict[str, Any] = json.loads(sink.read_text())
        return found


def ours(peer: str, mask: NDArray[np.bool_]) -> list[int]:
    height, width = mask.shape
    runs = read_runs([encode_rle(mask)])
    if peer == "labelstudio":
        return list(brush_bytes(runs.starts, runs.ends, height, width).tolist())
    counts, box = box_runs(runs.starts, runs.ends, height)
    return [*counts.tolist(), box.left, box.top, box.left + box.width - 1, box.top + box.height - 1]


def back(peer: str, encoded: list[int], mask: NDArray[np.bool_]) -> bool:
    """Whether we read the peer's encoding as the same mask."""
    from detectors.box_runs import Box

    height, width = mask.shape
    runs = read_runs([encode_rle(mask)])
    if peer == "labelstudio":
        found = brush_runs(np.array(encoded, np.uint8), height, width)
    else:
        *counts, left, top, right, bottom = encoded
        box = Box(left, top, right - left + 1, bottom - top + 1)
        found = runs_of_box(np.array(counts), box, height, width)
    return bool(np.array_equal(found[0], runs.starts) and np.array_equal(found[1], runs.ends))


def case_of(peer: str, mask: NDArray[np.bool_]) -> dict[str, Any]:
    return {"size": list(mask.shape), "bits": np.packbits(mask).tolist(), "ours": ours(peer, mask)}


def literal(mask: NDArray[np.bool_]) -> list[int]:
    """A Label Studio stream of literal runs alone, up to eight words long, which its SDK never writes."""
    words = np.repeat(mask.ravel(), 4) * 255
    bits = f"{words.size:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    for start in range(0, words.size, 8):
        part = words[start : start + 8]
        bits += f"000{part.size - 1:03b}" + "".join(f"{word:08b}" for word in part)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]


def write_golden() -> None:
    masks = [mask for size in ((1, 1), (1, 9), (6, 1), (9, 7)) for mask in adversarial(*size)]
    asked = {peer: ask(peer, [case_of(peer, mask) for mask in masks])["cases"] for peer in PEERS}
    cases = []
    for k, mask in enumerate(masks):
        rows = ["".join("#" if pixel else "." for pixel in row) for row in mask.tolist()]
        found = {peer: asked[peer][k]["encoded"] for peer in PEERS}
        name = f"{mask.shape[0]}x{mask.shape[1]}-{k % 21}"
        cases.append({"name": name, "size": list(mask.shape), "rows": rows, **found, "literal": literal(mask)})
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    GOLDEN.write_text(f'{{"made_with": {json.dumps(list(PEERS.values()))}, "masks": [\n{lines}\n]}}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", action="store_true")
    parser.add_argument("--masks", type=int, default=10_000)
    asked = parser.parse_args()
    if asked.golden:
        write_golden()
        return
    masks = [mask for image in images_of_masks(asked.masks, seed=20261123) for mask in image]
    print("| Tool | Masks | Same bytes | It reads ours | We read its | Our encoding, us a mask | Its both, us a mask |")
    print("|---|---|---|---|---|---|---|")
    for peer, name in PEERS.items():
        ours(peer, masks[0])
        began = time.process_time()
        encoded = [ours(peer, mask) for mask in masks]
        spent = time.process_time() - began
        found = ask(peer, [case_of(peer, mask) for mask in masks])
        same = sum(one["encoded"] == own for one, own in zip(found["cases"], encoded, strict=True))
        read = sum(one["same"] for one in found["cases"])
        ok = sum(back(peer, one["encoded"], mask) for one, mask in zip(found["cases"], masks, strict=True))
        per = 1e6 / len(masks)
        print(f"| {name} | {len(masks)} | {same} | {read} | {ok} | {spent * per:.0f} | {found['seconds'] * per:.0f} |")


if __name__ == "__main__":
    main()
