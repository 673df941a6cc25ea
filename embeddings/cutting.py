"""Cuts a user's network at a named layer, and writes what lies before the cut as a backbone of its own.

Drift is best watched where the network itself looks: at the end of its encoder. The network is captured as a
graph of tensor operations, every one of which remembers the layers (submodules) that it was called from; the
cut is after the last operation of the named layer, and everything that the result does not need falls away.

TorchScript remembers no layers once it is captured. There the calls are followed instead: from the network's
forward to the call of the submodule on the way to the layer, from that one's forward on to the next, each run only
as far as the arguments of that call.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from embeddings.backbones import timm_model, torchvision_model
from embeddings.backbones.spec import IMAGENET_MEAN, IMAGENET_STD, UNCHANGED
from embeddings.programs import load_program, load_torchscript
from embeddings.state_dicts import BackboneError, load_strictly, read_state_dict

Triple = tuple[float, float, float]


class Normalised(nn.Module):
    """RGB in 0..1 to what the network was trained on, then the network."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Triple, std: Triple) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Any:
        """(N, 3, S, S) in 0..1 to whatever the network returns."""
        return self.network((x - self.mean) / self.std)


def export_backbone(
    source: str,
    weights: Path | None,
    layer: str,
    out: Path,
    input_size: int,
    mean: Triple | None = None,
    std: Triple | None = None,
) -> tuple[int, ...]:
    """Write the part of a network up to ``layer`` as a torch.export program, for ``exported:OUT``.

    ``source`` is a TorchScript file (.pt), a torch.export program (.pt2), ``timm:NAME`` or ``torchvision:NAME``
    (also the names of its segmentation networks); the latter two need ``weights``, a file of the whole network.
    ``mean`` and ``std`` are what the network expects images to be normalised with, in units of 0..1; without
    them, that of the training for timm, ImageNet's for torchvision, and none for a file. They become part
    of the program. Returns the shape of the layer's output for one image, without the batch.

    Raises BackboneError for an unknown source or layer, for weights that do not fit, for an output that is no
    (N, D) or (N, D, h, w) tensor, and where ``out`` does not end in .pt2.
    """
    if out.suffix != ".pt2":
        raise BackboneError(f"{out}: a torch.export program's name ends in .pt2")
    if not layer:
        raise BackboneError(f"{source}: there is no layer '' to cut at; name one")
    network, own_mean, own_std = _load(source, weights)
    example = torch.rand(2, 3, input_size, input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about TorchScript's age, and about attributes that tracing leaves behind
        if isinstance(network, torch.jit.ScriptModule):
            cut: nn.Module = make_fx(lambda x: _call_to(network, "", layer, (x,)), pre_dispatch=True)(example)
        else:
            cut = _cut_graph(network, layer, example)
        whole = Normalised(cut, mean or own_mean, std or own_std)
        answer = whole(example)
        if not isinstance(answer, Tensor) or answer.ndim not in (2, 4) or len(answer) != len(example):
            found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise BackboneError(f"layer {layer} of {source} returns {found}, expected (N, D) or (N, D, h, w)")
        program = _export(whole, example)
        exported = program.module(check_guards=False)(example)
    if not torch.allclose(exported, answer, rtol=1e-3, atol=1e-4):
        raise BackboneError(f"layer {layer} of {source}: the exported program answers otherwise than the network")
    program.graph_module.meta.clear()
    torch.export.save(program, out)
    return tuple(answer.shape[1:])


def _load(source: str, weights: Path | None) -> tuple[nn.Module, Triple, Triple]:
    family, _, model = source.partition(":")
    if family == "timm" and model:
        path = timm_model.weights_path(model, weights)
        network = _with_weights(timm_model.create, model, path)
        return network, *timm_model.normalisation(network)
    if family == "torchvision" and model:
        path = torchvision_model.weights_path(model, weights)
        return _with_weights(torchvision_model.create, model, path), IMAGENET_MEAN, IMAGENET_STD
    if weights is not None:
        raise BackboneError(f"{source} has its weights in its file: give none")
    if source.endswith(".pt2"):
        return load_program(Path(source)).module(check_guards=False), *UNCHANGED
    if source.endswith((".pt", ".pth", ".ts", ".torchscript")):
        return load_torchscript(Path(source)), *UNCHANGED
    raise BackboneError(f"{source!r} is no timm:NAME, torchvision:NAME, .pt2 or TorchScript .pt file")


def _with_weights(create: Any, model: str, path: Path) -> nn.Module:
    tensors = read_state_dict(path)
    network = create(model, **_classes(create(model), tensors))
    load_strictly(network, tensors, path)
    network.eval()
    checked: nn.Module = network
    return checked


def _classes(network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The arguments that give the network the number of classes, and the auxiliary head, of the weights file."""
    differing = [
        name
        for name, tensor in network.state_dict().items()
        if name in tensors and name.endswith(("weight", "bias")) and tensors[name].shape != tensor.shape
    ]
    arguments: dict[str, Any] = {}
    if differing:
        arguments["num_classes"] = len(tensors[differing[-1]])
    has_auxiliary = any(name.startswith("aux_classifier.") for name in tensors)
    if has_auxiliary and "aux_classifier" in inspect.getsource(type(network).forward) + str(dir(network)):
        arguments["aux_loss"] = True
    return arguments


def _cut_graph(network: nn.Module, layer: str, example: Tensor) -> GraphModule:
    # A program loaded from a file is a graph already, and still knows the layers that it was made of.
    if isinstance(network, GraphModule):
        captured = network
    else:
        captured = torch.export.export(network, (example,)).module(check_guards=False)
    nodes = [node for node in captured.graph.nodes if node.op == "call_function"]
    inside = [node for node in nodes if layer in _layers(node)]
    if not inside:
        known = sorted({name for node in nodes for name in _layers(node) if name})
        raise BackboneError(f"the network runs no layer {layer!r}; it runs {_some(known)}")
    return _ending_at(captured, inside[-1])


def _layers(node: Node) -> list[str]:
    """Dotted names of the submodules that the operation was called from, outermost first."""
    stack = node.meta.get("nn_module_stack") or {}
    names = [str(entry[0]).removeprefix("L['self'].") for entry in stack.values()]
    return [name.split("@")[0] for name in names]  # "@1" marks a submodule's second call


def _ending_at(captured: GraphModule, node: Node) -> GraphModule:
    graph: Graph = captured.graph
    output = next(n for n in graph.nodes if n.op == "output")
    graph.erase_node(output)
    graph.set_codegen(torch.fx.graph.CodeGen())  # the old one unpacks and packs by the old output's structure
    graph.output(node)
    needed = _ancestors(node)
    for other in graph.nodes:  # what writes into a needed value before the cut is needed too, though unread itself
        if other is node:
            break
        if other not in needed and _writes(other) and any(source in needed for source in other.all_input_nodes[:1]):
            needed |= _ancestors(other)
    for other in reversed(list(graph.nodes)):
        if other not in needed and other.op not in ("output", "placeholder"):
            graph.erase_node(other)
    graph.lint()
    captured.recompile()
    captured.delete_all_unused_submodules()
    return captured


def _ancestors(node: Node) -> set[Node]:
    found, waiting = {node}, [node]
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                waiting.append(source)
    return found


def _writes(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable)


def _export(network: nn.Module, example: Tensor) -> ExportedProgram:
    try:
        return torch.export.export(network, (example,), dynamic_shapes=({0: Dim("batch", min=1, max=1024)},))
    except (RuntimeError, ValueError) as error:
        message = (str(error).splitlines() or ["no reason given"])[0]
        raise BackboneError(f"the network only takes batches of a fixed size: {message}") from None


def _call_to(module: Any, reached: str, layer: str, arguments: tuple[Any, ...], method: str = "forward") -> Any:
    """Run a TorchScript ``module``, which is called ``reached``, as far as ``layer`` in it; return its output."""
    graph = getattr(module, method).graph.copy()
    submodules = dict(module.named_modules())
    for node in graph.nodes():
        if node.kind() != "prim::CallMethod":
            continue
        called, *given = node.inputs()
        path = _path(called)
        if path and layer != path and not layer.startswith(f"{path}."):
            continue
        for _ in list(graph.outputs()):
            graph.eraseOutput(0)
        for value in given:
            graph.registerOutput(value)
        torch._C._jit_pass_dce(graph)
        results = torch._C._create_function_from_graph("cut", graph)(module._c, *arguments)
        inner = results if isinstance(results, tuple) else (results,)
        if path == layer:
            return submodules[path](*inner)
        if not path:  # another method of its own
            return _call_to(module, reached, layer, inner, node.s("name"))
        return _call_to(submodules[path], f"{reached}{path}.", layer.removeprefix(f"{path}."), inner, node.s("name"))
    known = [f"{reached}{name}" for name in submodules if name]
    raise BackboneError(f"the network calls no layer {reached + layer!r} outside of branches; it has {_some(known)}")


def _path(value: Any) -> str:
    names: list[str] = []
    node = value.node()
    while node.kind() == "prim::GetAttr":
        names.insert(0, node.s("name"))
        node = next(node.inputs()).node()
    return ".".join(names)


def _some(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:12]) + (f" and {len(every) - 12} more" if len(every) > 12 else "")
