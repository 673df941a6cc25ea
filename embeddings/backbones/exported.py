"""``exported:FILE``: a network in a file of its own, as ``segwatch backbone export`` writes it.

A torch.export program (.pt2) or TorchScript (.pt). It takes (N, 3, S, S) float32 RGB in 0..1, normalises it
itself, and returns (N, D), or a map (N, D, h, w) that is then averaged over h and w.
"""

from __future__ import annotations

from pathlib import Path

from torch.export import ExportedProgram

from embeddings.backbones.spec import UNCHANGED, Backbone, BackboneSpec
from embeddings.programs import load_program, load_torchscript
from embeddings.state_dicts import BackboneError

TAKES_MODEL = "FILE"


def weights_path(model: str, weights: Path | None) -> Path:
    """The file holds network and weights."""
    if weights is not None:
        raise BackboneError(f"backbone exported:{model} has its weights in its file: leave embedding.weights empty")
    return Path(model)


def build(model: str, spec: BackboneSpec) -> Backbone:
    """Read the file; a program must have been exported for ``spec.input_size``."""
    mean, std = UNCHANGED
    if spec.weights.suffix != ".pt2":
        return Backbone(network=load_torchscript(spec.weights), mean=mean, std=std)
    program = load_program(spec.weights)
    batch, size = input_shape(program, spec.weights)
    if size is not None and size != spec.input_size:
        raise BackboneError(f"{spec.weights} takes images of {size} pixels, embedding.input_size is {spec.input_size}")
    # Guards are Python source kept in the file; the shapes that they would check are checked here.
    return Backbone(network=program.module(check_guards=False), mean=mean, std=std, fixed_batch=batch)


def input_shape(program: ExportedProgram, path: Path) -> tuple[int | None, int | None]:
    """(batch, side) of the program's input; None where it takes any. Raises BackboneError for another input."""
    names = set(program.graph_signature.user_inputs)
    inputs = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    shapes = [node.meta["val"].shape for node in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3:
        raise BackboneError(f"{path} takes inputs of shapes {[tuple(s) for s in shapes]}, expected one (N, 3, S, S)")
    batch, _, height, width = shapes[0]
    if height != width:
        raise BackboneError(f"{path} takes images of {height} x {width} pixels, expected square ones")
    return (batch if isinstance(batch, int) else None), (height if isinstance(height, int) else None)
