"""Networks in files of their own: torch.export programs (.pt2) and TorchScript (.pt).

Reading a TorchScript file runs no Python: it has an unpickler of its own that knows tensors and TorchScript's
classes only. ``torch.export.load`` is different: it unpickles whatever an archive marks as pickled, falls back
to full unpickling where the weights-only reader refuses, evaluates symbolic shapes as Python expressions, and takes
any function below ``torch`` for an operation. So an archive is inspected first, and refused where any of that
could run code.
"""

from __future__ import annotations

import ast
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from embeddings.state_dicts import BackboneError, read_tensors

_OPERATION = re.compile(
    r"torch\.ops\.(aten|prims|torchvision)\.\w+(\.\w+)?|_operator\.(getitem|add|sub|mul|floordiv|mod|neg|eq|ne|lt|le|gt|ge)"
)
_SHAPE_CALLS = frozenset({"Symbol", "Integer", "Add", "Mul", "Max", "Min", "FloorDiv", "CeilDiv", "Mod", "PythonMod"})
_SHAPE_PARTS = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator,
    ast.unaryop,
)  # fmt: skip


def load_program(path: Path) -> ExportedProgram:
    """A torch.export archive. Raises BackboneError where it is damaged, or would run code while being read."""
    data = _read(path)
    try:
        _inspect(data, path)
        program = torch.export.load(io.BytesIO(data))
    except BackboneError:
        raise
    except Exception as error:  # whatever a damaged archive leads to; the reader has no error of its own
        raise BackboneError(f"{path}: not a readable torch.export archive: {_first_line(error)}") from None
    return program


def load_torchscript(path: Path) -> nn.Module:
    """A TorchScript file, on the CPU, in evaluation mode. Raises BackboneError."""
    data = _read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends torch.export; files made before that are still read
        try:
            network: nn.Module = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise BackboneError(f"{path}: not a readable TorchScript file: {_first_line(error)}") from None
    return network.eval()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BackboneError(f"{path}: {error.strerror or error}") from None


def _inspect(data: bytes, path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        if not any("/models/" in name and name.endswith(".json") for name in names):
            raise BackboneError(f"{path}: not a torch.export archive as torch 2.8 or later writes it; export it again")
        for name in names:
            if name.endswith(".json"):
                _inspect_json(json.loads(archive.read(name)), path)
            elif name.endswith(".pt"):
                # Read here by the weights-only reader, which raises where torch.export.load would fall back to pickle.
                read_tensors(io.BytesIO(archive.read(name)))
            elif "/data/weights/" not in name and "/data/constants/" not in name and name.endswith((".pkl", ".py")):
                raise BackboneError(f"{path}: holds {name}, which is not read")


def _inspect_json(tree: object, path: Path) -> None:
    for key, value in _items(tree):
        if key == "use_pickle" and value is not False:
            raise BackboneError(f"{path}: holds pickled tensors or objects, which are not read")
        if key == "expr_str" and not _is_arithmetic(value):
            raise BackboneError(f"{path}: has a shape {value!r}, which is no arithmetic on dimensions")
        if key == "nodes" and isinstance(value, list):
            for node in value:
                target = node.get("target") if isinstance(node, dict) else None
                if not isinstance(target, str) or not _OPERATION.fullmatch(target):
                    raise BackboneError(f"{path}: runs {target!r}, which is no tensor operation")


def _is_arithmetic(expression: object) -> bool:
    """Whether it can only calculate with named dimensions, as ``Mul(Integer(2), Symbol('s0'))`` does."""
    if not isinstance(expression, str):
        return False
    try:
        parts = list(ast.walk(ast.parse(expression, mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False
    called = {id(part.func) for part in parts if isinstance(part, ast.Call)}
    for part in parts:
        if not isinstance(part, _SHAPE_PARTS):
            return False
        if (
            isinstance(part, ast.Constant)
            and isinstance(part.value, str)
            and not re.fullmatch(r"[a-z]+\d+", part.value)
        ):
            return False
        if isinstance(part, ast.Call) and not isinstance(part.func, ast.Name):
            return False
        if isinstance(part, ast.Name):
            allowed = part.id in _SHAPE_CALLS if id(part) in called else re.fullmatch(r"[a-z]+\d+", part.id)
            if not allowed:
                return False
    return True


def _items(tree: object) -> Iterator[tuple[str, object]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key, value
            yield from _items(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _items(value)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
