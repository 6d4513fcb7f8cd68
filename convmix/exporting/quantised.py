"""int8 for exported graphs, by NNCF after training: only what lies between the network's first layer with weights and its last.

The preprocessing in front and the answers behind are arithmetic on pixels, sizes and coordinates, which 8 bits would ruin; they are told
from the network by its weights: convolutions and matrix products with a constant.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from convmix.speed.packages import imported, quiet, signal_stack_kept

_LAYERS = {"Conv", "Gemm", "MatMul", "Convolution", "GroupConvolution"}  # of ONNX, of OpenVINO


def quantise_onnx(proto: Any, batches: list[np.ndarray]) -> Any:
    """An ONNX model in int8, its value ranges from arrays as the graph takes them."""
    nodes = {node.name: node for node in proto.graph.node}
    maker = {output: node.name for node in nodes.values() for output in node.output}
    constants = {tensor.name for tensor in proto.graph.initializer} | {
        output for node in nodes.values() if node.op_type == "Constant" for output in node.output
    }
    before = {name: [maker[i] for i in node.input if i in maker] for name, node in nodes.items()}
    layers = {name for name, node in nodes.items() if node.op_type in _LAYERS and constants & set(node.input[:2])}
    return _quantised(proto, before, layers, batches, wrap=lambda images: {"images": images})


def quantise_openvino(model: Any, batches: list[np.ndarray]) -> Any:
    """An OpenVINO model in int8, likewise."""
    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    before = {name: [i.get_source_output().get_node().get_friendly_name() for i in node.inputs()] for name, node in nodes.items()}
    constants: set[str] = set()  # and what is computed of them alone
    for name, node in nodes.items():
        if node.get_type_name() == "Constant" or (before[name] and constants.issuperset(before[name])):
            constants.add(name)
    layers = {name for name, node in nodes.items() if node.get_type_name() in _LAYERS and constants & set(before[name])}
    before = {name: [source for source in sources if source not in constants] for name, sources in before.items() if name not in constants}
    return _quantised(model, before, layers - constants, batches, wrap=lambda images: images)


def _quantised(model: Any, before: Mapping[str, list[str]], layers: set[str], batches: list[np.ndarray], *, wrap: Any) -> Any:
    """before: node -> the nodes that feed it. layers: the nodes with weights."""
    nncf = imported("nncf", extra="export")
    behind = defaultdict(list)
    for name, sources in before.items():
        for source in sources:
            behind[source].append(name)
    inside = _reached(layers, behind) & _reached(layers, before)
    ignored = nncf.IgnoredScope(names=sorted(before.keys() - inside), validate=False)
    with quiet(), signal_stack_kept():
        return nncf.quantize(
            model, nncf.Dataset([wrap(images) for images in batches]), preset=nncf.QuantizationPreset.MIXED, ignored_scope=ignored,
            subset_size=len(batches), fast_bias_correction=True,
        )  # fmt: skip


def _reached(start: Iterable[str], edges: Mapping[str, list[str]]) -> set[str]:
    """Nodes that can be reached, the first ones too."""
    found, waiting = set(), list(start)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += edges.get(name, [])
    return found
