"""Weights files: hashed, and read without ever running what is inside them."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn


class BackboneError(ValueError):
    """A backbone cannot be built: its name, its weights file or its shape is wrong. The message names which."""


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hex. Raises BackboneError where there is no readable file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BackboneError(f"weights file {path}: {error.strerror or error}") from None


def read_tensors(file: io.BytesIO) -> object:
    """What torch.save wrote, by the weights-only reader, which knows tensors and plain containers and calls nothing."""
    found: object = torch.load(file, map_location="cpu", weights_only=True)
    return found


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, by name: safetensors, or what torch's weights-only reader takes.

    A training checkpoint that keeps them under ``state_dict`` or ``model`` is opened; the prefix that
    DataParallel puts before every name is taken off. A file that needs full unpickling is refused, since
    unpickling runs code. Raises BackboneError.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BackboneError(f"weights file {path}: {error.strerror or error}") from None
    tensors: object
    try:
        if path.suffix == ".safetensors":
            tensors = load_safetensors(data)
        else:
            tensors = read_tensors(io.BytesIO(data))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise BackboneError(f"weights file {path}: not readable as weights only: {_first_line(error)}") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(tensors, dict) and isinstance(tensors.get(wrapper), dict):
            tensors = tensors[wrapper]
    if not isinstance(tensors, dict):
        raise BackboneError(f"weights file {path}: holds a {type(tensors).__name__}, not named tensors")
    named = {str(name).removeprefix("module."): t for name, t in tensors.items() if isinstance(t, Tensor)}
    if not named:
        raise BackboneError(f"weights file {path}: holds no tensors")
    return named


def load_strictly(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Fill every parameter and buffer of ``network``, or say which do not fit. Nothing is left random."""
    expected = network.state_dict()
    # Counts of training steps: not part of what the network computes, and absent from older files.
    uncounted = {name for name in expected if name.endswith("num_batches_tracked")} - tensors.keys()
    missing = sorted(expected.keys() - tensors.keys() - uncounted)
    unknown = sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        parts = [
            f"{len(names)} {what} (first: {names[0]})"
            for what, names in (("missing", missing), ("unknown", unknown))
            if names
        ]
        raise BackboneError(f"weights file {path} does not fit {type(network).__name__}: tensors {', '.join(parts)}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise BackboneError(
                f"weights file {path} does not fit {type(network).__name__}: {name} has shape"
                f" {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            )
    network.load_state_dict(tensors, strict=not uncounted)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
