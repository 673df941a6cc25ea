"""What images cost: decoding against Pillow with torchvision, and backbones against PyTorch as it comes.

All in one run. CPU time of one thread is what counts, so that a busy neighbour slows all alike; a figure is that of
the best of several rounds. ``eager`` is the network in evaluation mode under inference_mode: at batch 1 as the naive
pipeline calls it, and at batch 8 in channels_last, first with glibc's allocator as it comes, then, beside segwatch's
own figures, with the settings of ``embeddings.allocator``. ``gemm`` is a product of two 2048 x 2048 matrices, as a
measure of the core's peak. ResNet-50 has random weights, which time does not depend on.

    OMP_NUM_THREADS=1 python bench/bench_embeddings.py [--rounds 8] [--pipeline-images 400]

Prints JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch import nn
from torchvision import transforms

from embeddings.backbones import BackboneSpec, backbone_spec
from embeddings.backbones.efficientnet_lite0 import build_classifier
from embeddings.embedder import Embedder, computes_bfloat16
from embeddings.images import prepare

SIZE, BATCH = 224, 8
RESNET50_GFLOP = 8.18  # 4.09 G multiply-adds at 224 x 224
TRANSFORM = transforms.Compose(
    [
        transforms.Resize((SIZE, SIZE)),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


def photograph() -> bytes:
    """A JPEG of 640 x 480 pixels."""
    pixels = cv2.resize(load_sample_images().images[0], (640, 480), interpolation=cv2.INTER_AREA)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return file.getvalue()


def with_pillow(data: bytes) -> torch.Tensor:
    """The naive way to a network's input."""
    tensor: torch.Tensor = TRANSFORM(Image.open(io.BytesIO(data)).convert("RGB"))
    return tensor


def rates(contenders: dict[str, tuple[int, Callable[[], object]]], rounds: int) -> dict[str, float]:
    """Items per second of CPU time, the best of ``rounds``, in turns; each contender does so many items a call."""
    best = dict.fromkeys(contenders, float("inf"))
    for turn in range(rounds + 1):
        for name, (_, call) in contenders.items():
            started = time.process_time()
            call()
            if turn:  # the first is for warming up
                best[name] = min(best[name], time.process_time() - started)
    return {name: round(contenders[name][0] / seconds, 1) for name, seconds in best.items()}


def eager(network: nn.Module) -> dict[str, tuple[int, Callable[[], object]]]:
    """The network as it comes."""
    one, eight = torch.randn(1, 3, SIZE, SIZE), torch.randn(BATCH, 3, SIZE, SIZE)
    wide = eight.contiguous(memory_format=torch.channels_last)

    def run(x: torch.Tensor) -> object:
        with torch.inference_mode():
            return network(x)

    return {"eager batch 1": (1, lambda: run(one)), "eager batch 8 channels_last": (BATCH, lambda: run(wide))}


def gemm(dtype: torch.dtype) -> tuple[int, Callable[[], object]]:
    """G floating-point operations, and the product that does them."""
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    return round(2 * 2048**3 / 1e9), lambda: a @ b


def main() -> None:
    """Measure everything, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--pipeline-images", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = photograph()
    results: dict[str, Any] = {"native bfloat16": computes_bfloat16(), "jpeg bytes": len(data)}

    decode = rates(
        {"pillow + torchvision": (1, lambda: with_pillow(data)), "segwatch": (1, lambda: prepare(data, SIZE))},
        options.rounds * 10,
    )
    results["jpeg to input, images/s"] = decode | {
        "ratio": round(decode["segwatch"] / decode["pillow + torchvision"], 2)
    }

    with tempfile.TemporaryDirectory() as folder:
        resnet = torchvision.models.resnet50(weights=None).eval()
        save_file(resnet.state_dict(), Path(folder) / "resnet50.safetensors")
        lite = backbone_spec("efficientnet_lite0")
        networks: dict[str, tuple[nn.Module, BackboneSpec]] = {
            "efficientnet_lite0": (build_classifier(lite), lite),
            "resnet50": (resnet, backbone_spec("torchvision:resnet50", Path(folder) / "resnet50.safetensors")),
        }
        plain = {name: rates(eager(network), options.rounds) for name, (network, _) in networks.items()}
        peak = rates({"float32": gemm(torch.float32), "bfloat16": gemm(torch.bfloat16)}, options.rounds)
        results["gemm, GFLOP/s"] = peak
        for name, (network, spec) in networks.items():
            results[name] = measured(network, spec, plain[name], options.rounds)
        ours = results["resnet50"]["images/s a core"]
        results["resnet50"]["share of gemm peak"] = {
            dtype: round(ours[dtype] * RESNET50_GFLOP / peak[dtype], 2) for dtype in ("float32", "bfloat16")
        }
        results["decode and embed, all cores"] = pipeline(lite, data, options.pipeline_images)
    print(json.dumps(results, indent=2))


def measured(network: nn.Module, spec: BackboneSpec, plain: dict[str, float], rounds: int) -> dict[str, Any]:
    """A backbone's figures: its start, its speed in both dtypes, and beside them the eager network again."""
    images = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    starts, contenders = {}, eager(network)
    for dtype in ("float32", "bfloat16"):
        started = time.perf_counter()
        embedder = Embedder(spec, "cpu", dtype, BATCH, threads=1)  # type: ignore[arg-type]
        starts[dtype] = round(time.perf_counter() - started, 2)
        contenders[dtype] = (BATCH, lambda embedder=embedder: embedder.embed(images))  # type: ignore[misc]
    found = rates(contenders, rounds)
    peer = found["eager batch 8 channels_last"]
    return {
        "images/s a core, allocator as it comes": plain,
        "images/s a core": found,
        "float32 / eager batch 8, same allocator": round(found["float32"] / peer, 2),
        "float32 / eager batch 8, allocator as it comes": round(
            found["float32"] / plain["eager batch 8 channels_last"], 2
        ),
        "bfloat16 / float32": round(found["bfloat16"] / found["float32"], 2),
        "seconds to start": starts,
    }


def pipeline(spec: BackboneSpec, data: bytes, count: int) -> dict[str, Any]:
    """JPEG to embedding on all cores, wall time: one image after the other, and decoded ahead in batches."""
    network = build_classifier(spec)

    def naive(images: int) -> None:
        for _ in range(images):
            with torch.inference_mode():
                network(with_pillow(data)[None])

    def batched(embedder: Embedder, images: int) -> None:
        with ThreadPoolExecutor(2) as pool:
            chunks = [pool.map(lambda _: prepare(data, SIZE), range(64)) for _ in range(0, images, 64)]
            for chunk in chunks:
                embedder.embed(np.stack(list(chunk)))

    def rate(call: Callable[[int], None], images: int) -> dict[str, float]:
        call(64)
        wall, cpu = time.perf_counter(), time.process_time()
        call(images)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {"images/s": round(images / wall, 1), "CPU ms an image": round(1000 * cpu / images, 2)}

    count = count // 64 * 64
    found: dict[str, Any] = {"naive": rate(naive, count // 4)}
    for dtype in ("float32", "bfloat16"):
        embedder = Embedder(spec, "cpu", dtype, BATCH)  # type: ignore[arg-type]
        found[dtype] = rate(lambda images, embedder=embedder: batched(embedder, images), count)  # type: ignore[misc]
    return found


if __name__ == "__main__":
    main()
