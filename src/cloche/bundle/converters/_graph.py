"""Surgery on ONNX graphs: entries, exits, names, and what training left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from cloche.core.signature import Field

#: The signature's datatypes -> ONNX's.
ELEMENT_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}

#: Operators whose numbers are float32 whatever goes in.
_FLOAT32_OPERATORS = frozenset({"TreeEnsembleClassifier", "TreeEnsembleRegressor"})


def set_inputs(model: ModelProto, fields: Iterable[Field], *, joined: bool) -> None:
    """Gives the graph one input a field, cast to what it computes with.

    The graph's own inputs are in the order of the fields; where `joined`, it has one of shape [n, k] that the
    fields, of shape [n], are concatenated to.
    """
    graph = model.graph
    inner = list(graph.input)
    del graph.input[:]
    front: list[NodeProto] = []
    pieces: list[str] = []
    for position, field in enumerate(fields):
        target = inner[0] if joined else inner[position]
        wanted = target.type.tensor_type.elem_type
        shape = ["n", 1] if len(field.shape) == 1 else ["n", *field.shape[1:]]
        name = f"given_{position}" if joined or wanted != ELEMENT_TYPES[field.datatype] else target.name
        graph.input.append(helper.make_tensor_value_info(name, ELEMENT_TYPES[field.datatype], shape))
        if wanted != ELEMENT_TYPES[field.datatype]:
            cast = f"cast_{position}" if joined else target.name
            front.append(helper.make_node("Cast", [name], [cast], to=wanted))
            name = cast
        pieces.append(name)
    if joined:
        front.append(helper.make_node("Concat", pieces, [inner[0].name], axis=1))
    _insert_front(graph, front)


def _insert_front(graph: Any, front: list[NodeProto]) -> None:
    nodes = [*front, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def set_outputs(model: ModelProto, sources: list[str], *, boolean: bool = False) -> None:
    """Makes `sources` the outputs, float32 where the last step only widens it; drops what no output needs.

    `boolean` casts the first output to BOOL. Types are left to `set_output_types`: skl2onnx's own are
    sometimes wrong.
    """
    graph = model.graph
    del graph.output[:]
    for position, source in enumerate(sources):
        name = _before_widening(model, source)
        if boolean and position == 0:
            graph.node.append(helper.make_node("Cast", [name], ["truth"], to=TensorProto.BOOL))
            name = "truth"
        graph.output.append(ValueInfoProto(name=name))
    prune(model)


def set_output_types(model: ModelProto, datatypes: list[str], shapes: list[list[Any]]) -> None:
    """Writes down the outputs' types, as ONNX Runtime found them."""
    for value, datatype, shape in zip(model.graph.output, datatypes, shapes, strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, ELEMENT_TYPES[datatype], shape))


def _before_widening(model: ModelProto, name: str) -> str:
    makers = {output: node for node in model.graph.node for output in node.output}
    while (maker := makers.get(name)) is not None:
        widens = maker.op_type == "Cast" and _is_float32(model, makers, maker.input[0])
        if not (widens or maker.op_type == "Identity"):
            break
        name = maker.input[0]
    return name


def _is_float32(model: ModelProto, makers: dict[str, NodeProto], name: str) -> bool:
    maker = makers.get(name)
    if maker is None:
        return False
    if maker.op_type in _FLOAT32_OPERATORS:
        return True
    if maker.op_type in ("MatMul", "Exp"):
        return _is_float32(model, makers, maker.input[0])
    return False


def prune(model: ModelProto) -> None:
    """Takes out nodes and constants that no output needs."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            needed.update(_outer_names(node))
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)


def _outer_names(node: NodeProto) -> set[str]:
    """What a node's inner graphs (of If, Loop, Scan) may take from outside."""
    names: set[str] = set()
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            for inner in graph.node:
                names.update(inner.input)
                names.update(_outer_names(inner))
            names.update(value.name for value in graph.output)
    return names


def rename(model: ModelProto, inputs: list[str], outputs: list[str]) -> None:
    """Gives inputs and outputs these names and everything else short ones.

    A name that stands on both sides, or is empty, becomes another in the graph: the runtime goes by position.
    """
    graph = model.graph
    names: dict[str, str] = {}
    for position, (value, wanted) in enumerate(zip(graph.input, inputs, strict=True)):
        names[value.name] = wanted if wanted and wanted not in outputs else f"input:{position}"
    for position, (value, wanted) in enumerate(zip(graph.output, outputs, strict=True)):
        names[value.name] = wanted or f"output:{position}"
    taken = {*names.values(), *inputs, *outputs}
    has_inner_graphs = any(_outer_names(node) for node in graph.node)
    inner = {name for node in graph.node for name in node.output} | {each.name for each in graph.initializer}
    counter = 0
    for name in sorted(inner - names.keys() - {""}):
        if has_inner_graphs and name not in taken:
            continue
        while f"t{counter}" in taken or f"t{counter}" in inner:
            counter += 1
        names[name] = f"t{counter}"
        counter += 1
    _apply_names(graph, names)


def rename_outputs(model: ModelProto, wanted: list[str]) -> None:
    """Gives the outputs these names; an inner result that has such a name already gets another."""
    graph = model.graph
    new = {value.name: name for value, name in zip(graph.output, wanted, strict=True) if value.name != name}
    names = {name: f"inner:{name}" for name in new.values() if name not in new}
    _apply_names(graph, {**names, **new})


def _apply_names(graph: Any, names: dict[str, str]) -> None:
    for value in [*graph.input, *graph.output, *graph.initializer]:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                if inner.node:
                    _apply_names(inner, names)


def strip(model: ModelProto) -> None:
    """Takes off what no prediction needs: texts, the maker's name, inferred shapes, unused operator sets."""
    graph = model.graph
    model.doc_string = graph.doc_string = model.producer_version = ""
    model.producer_name = "cloche"
    model.domain, model.model_version = "", 0
    del model.metadata_props[:], graph.value_info[:], graph.metadata_props[:], model.training_info[:]
    graph.name = "model"
    for node in graph.node:
        node.doc_string = node.name = ""
        del node.metadata_props[:]
    for value in [*graph.input, *graph.output, *graph.initializer]:
        value.doc_string = ""
    domains = {"", *(_domain(node.domain) for each in graphs(model) for node in each.node)}
    kept = [each for each in model.opset_import if _domain(each.domain) in domains]
    kept.sort(key=lambda each: _domain(each.domain))  # the converter has them in a set
    del model.opset_import[:]
    model.opset_import.extend(kept)


def graphs(model: ModelProto) -> Iterator[Any]:
    """Every graph and function of the model, inner ones as well."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.GRAPH:
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name
