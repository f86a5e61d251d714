"""Scores of a network as a classifier's answers: `label` and `probabilities`, for `task="classification"`."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from onnx import ModelProto, TensorProto, helper

from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.core.errors import ConfigError, ConversionError
from cloche.core.signature import Array, Columns, Field

TASK = "classification"


def check_task(options: ConvertOptions) -> bool:
    """Whether the scores are to be classes'. Raises ConfigError for another task."""
    if options.task not in (None, TASK):
        raise ConfigError(
            f"a network has no task {options.task!r}",
            hint=f'write task="{TASK}" where its scores are those of classes, or nothing',
        )
    return options.task == TASK


def classify(model: ModelProto, reference: Columns) -> Columns:
    """Ends the graph in `label` and `probabilities`, and gives the original's answers in the same form.

    The graph itself tells whether its output is probabilities already, [n, k] after Softmax or [n, 1] after
    Sigmoid; other scores are taken for logits. Raises ConversionError for outputs that are no scores.
    """
    if len(reference) != 1:
        raise _refuse(f"it has {len(reference)} outputs: {', '.join(reference)}")
    [(name, scores)] = reference.items()
    if scores.ndim not in (1, 2) or scores.dtype.kind != "f" or len(model.graph.output) != 1:
        raise _refuse(f"{name} is {scores.dtype} of the shape {[-1, *scores.shape[1:]]}")
    many = scores.ndim == 2 and scores.shape[1] > 1
    done = _is_last(model, "Softmax" if many else "Sigmoid")
    _append(model, scores, many=many, done=done)
    probabilities = _probabilities(scores, many=many, done=done)
    return {"label": probabilities.argmax(axis=1), "probabilities": probabilities}


def with_classes(converted: Converted) -> Converted:
    """The classes of an answer, numbered as the network's own scores are."""
    probabilities = converted.signature.output("probabilities")
    assert probabilities is not None
    names = tuple(str(place) for place in range(probabilities.shape[1]))
    outputs: tuple[Field, ...] = tuple(
        msgspec.structs.replace(field, classes=names) for field in converted.signature.outputs
    )
    signature = msgspec.structs.replace(converted.signature, outputs=outputs)
    return msgspec.structs.replace(converted, signature=signature, task=TASK)


def _refuse(what: str) -> ConversionError:
    return ConversionError(
        f"the answers are no scores of classes: {what}",
        code="CL-E802",
        hint=f'task="{TASK}" wants one output of numbers, a column for each class or one for two classes',
    )


def _is_last(model: ModelProto, kind: str) -> bool:
    """Whether the graph ends in such a node, over the last axis where it has one."""
    makers = {output: node for node in model.graph.node for output in node.output}
    maker = makers.get(model.graph.output[0].name)
    while maker is not None and maker.op_type == "Identity":
        maker = makers.get(maker.input[0])
    return (
        maker is not None
        and maker.op_type == kind
        and all(each.i in (1, -1) for each in maker.attribute if each.name == "axis")
    )


def _append(model: ModelProto, scores: Array, *, many: bool, done: bool) -> None:
    graph = model.graph
    last = graph.output[0].name
    add: list[Any] = []

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        add.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    if not done:
        last = node("Softmax" if many else "Sigmoid", [last], "cloche:share", **({"axis": 1} if many else {}))
    if not many:
        element = helper.np_dtype_to_tensor_dtype(scores.dtype)
        graph.initializer.append(helper.make_tensor("cloche:column", TensorProto.INT64, [2], [-1, 1]))
        graph.initializer.append(helper.make_tensor("cloche:one", element, [1], [1.0]))
        second = node("Reshape", [last, "cloche:column"], "cloche:second")
        first = node("Sub", ["cloche:one", second], "cloche:first")
        last = node("Concat", [first, second], "cloche:both", axis=1)
    node("Identity", [last], "probabilities")
    node("ArgMax", [last], "label", axis=1, keepdims=0)
    graph.node.extend(add)
    del graph.output[:]
    element = helper.np_dtype_to_tensor_dtype(scores.dtype)
    width = scores.shape[1] if many else 2
    graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]))
    graph.output.append(helper.make_tensor_value_info("probabilities", element, ["rows", width]))


def _probabilities(scores: Array, *, many: bool, done: bool) -> Array:
    """What the nodes of `_append` compute, in numpy."""
    if many and done:
        return scores
    if many:
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=scores.dtype)
    column = scores.reshape(-1, 1)
    with np.errstate(over="ignore"):
        share = column if done else np.asarray(1 / (1 + np.exp(-column)), dtype=scores.dtype)
    return np.concatenate([1 - share, share], axis=1)
