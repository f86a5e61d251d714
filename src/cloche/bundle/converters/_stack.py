"""Many columns of numbers as one input of the graph: what inputs cost a call grows faster than their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cloche.core.signature import Field

#: With fewer columns there is little to be gained.
LEAST = 8
STACKED = "input:columns"
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


class _Join(NamedTuple):
    """A Join is a Concat of nothing but inputs: their places, the casts in between, and the type that it gives."""

    places: list[int]
    casts: list[str]
    element: int


def stack_inputs(model: ModelProto, fields: Sequence[Field]) -> tuple[str, ...]:
    """Makes one first input [n, k] of the columns that the graph only joins; their names, in their order there.

    The graph's inputs are those of the fields, in order. Taken are numbers of one value a row that go, cast or
    not, into a Concat of such alone, and on as floats; all others stay inputs of their own. The new input is
    float32 where all of them are, else float64, which holds whole numbers up to 2 ** 53 as the cast did. Empty,
    and nothing changed, where it does not pay.
    """
    graph = model.graph
    joins = _joins(model, fields)
    taken = sorted({place for join in joins.values() for place in join.places})
    if len(taken) < LEAST:
        return ()
    given = {graph.input[place].type.tensor_type.elem_type for place in taken}
    element = TensorProto.FLOAT if given == {TensorProto.FLOAT} else TensorProto.DOUBLE
    columns = {place: column for column, place in enumerate(taken)}
    casts = {cast for join in joins.values() for cast in join.casts}
    nodes: list[NodeProto] = []
    for node in graph.node:
        join = joins.get(node.output[0]) if node.output else None
        if join is not None:
            picked = np.array([columns[place] for place in join.places], np.int64)
            nodes += _pick(model, picked, len(taken), node.output[0], element, join.element)
        elif not node.output or node.output[0] not in casts:
            nodes.append(node)
    others = [value for place, value in enumerate(graph.input) if place not in columns]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(STACKED, element, ["n", len(taken)]))
    graph.input.extend(others)
    return tuple(fields[place].name for place in taken)


def _joins(model: ModelProto, fields: Sequence[Field]) -> dict[str, _Join]:
    """Every Concat that can be taken, by its output."""
    graph = model.graph
    places = {value.name: place for place, value in enumerate(graph.input)}
    readers: dict[str, list[NodeProto | None]] = {value.name: [None] for value in graph.output}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    found: dict[str, _Join] = {}
    for node in graph.node:
        if node.op_type != "Concat" or helper.get_node_attr_value(node, "axis") != 1:
            continue
        between = [name for name in node.input if name in casts]
        sources = [casts[name].input[0] if name in casts else name for name in node.input]
        if any(name not in places for name in sources) or len(set(sources)) < len(sources):
            continue
        if any(len(readers[name]) > 1 for name in (*between, *sources)):
            continue
        joined = [places[name] for name in sources]
        if any(fields[place].datatype == "BYTES" or len(fields[place].shape) > 1 for place in joined):
            continue
        first = node.input[0]
        element = (
            helper.get_node_attr_value(casts[first], "to")
            if first in casts
            else graph.input[places[first]].type.tensor_type.elem_type
        )
        if element in _FLOATS or all(_to_float(reader) for reader in readers[node.output[0]]):
            found[node.output[0]] = _Join(joined, between, element)
    return found


def _to_float(node: NodeProto | None) -> bool:
    return node is not None and node.op_type == "Cast" and helper.get_node_attr_value(node, "to") in _FLOATS


def _pick(
    model: ModelProto, picked: np.ndarray, width: int, output: str, element: int, wanted: int
) -> list[NodeProto]:
    """The nodes that give these columns of the stacked input as `output`."""
    nodes = []
    source = STACKED
    casts = wanted in _FLOATS and wanted != element
    if picked.tolist() != list(range(width)):
        index = f"{output}:columns"
        model.graph.initializer.append(numpy_helper.from_array(picked, index))
        source = f"{output}:picked" if casts else output
        nodes.append(helper.make_node("Gather", [STACKED, index], [source], axis=1))
    if casts:
        nodes.append(helper.make_node("Cast", [source], [output], to=wanted))
    elif source == STACKED:
        nodes.append(helper.make_node("Identity", [source], [output]))  # taken out when a session is made
    return nodes
