"""What stands behind a transformer in the graph: softmax and labels, or pooling and length 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cloche.bundle.converters import _graph
from cloche.bundle.converters._hf_folder import Folder, refuse

_LEAST = 1e-9  # as sentence-transformers divides


class _Tail:
    """A _Tail adds nodes at the end of a graph, and names what they give."""

    def __init__(self, model: ModelProto) -> None:
        self._graph = model.graph
        self._count = 0

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or self._name()
        self._graph.node.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def pair(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """The first of two results."""
        name = self._name()
        self._graph.node.append(helper.make_node(kind, list(inputs), [name, self._name()], **attributes))
        return name

    def constant(self, value: Any) -> str:
        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def strings(self, values: tuple[str, ...]) -> str:
        name = self._name()
        texts = [value.encode() for value in values]
        self._graph.initializer.append(helper.make_tensor(name, TensorProto.STRING, [len(values)], texts))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"tail_{self._count}"


def finish(model: ModelProto, folder: Folder, inputs: list[str]) -> None:
    """Makes the outputs what callers want: label and probabilities, value, or embedding; drops all others.

    `inputs` are the names of the graph's inputs. Raises ConversionError.
    """
    if all(each.version < 13 for each in model.opset_import if each.domain in ("", "ai.onnx")):
        raise refuse("the ONNX file has an opset below 13", "export it anew")
    tail = _Tail(model)
    names = [value.name for value in model.graph.output]
    if folder.task == "embeddings":
        outputs = {"embedding": (_embed(tail, folder, names, inputs), TensorProto.FLOAT, ["n", None])}
    else:
        outputs = _classify(tail, folder, names)
    del model.graph.output[:]
    for name, (source, kind, shape) in outputs.items():
        tail.node("Identity", source, output=f"output:{name}")
        model.graph.output.append(helper.make_tensor_value_info(f"output:{name}", kind, shape))
    _graph.prune(model)
    _graph.strip(model)
    _graph.rename_outputs(model, list(outputs))


def _classify(tail: _Tail, folder: Folder, names: list[str]) -> dict[str, tuple[str, int, list[Any]]]:
    logits = _find(names, "logits")
    logits = tail.node("Cast", logits, to=TensorProto.FLOAT)
    if folder.problem == "regression":
        value = tail.node("Squeeze", logits, tail.constant(np.array([1])))
        return {"value": (value, TensorProto.FLOAT, ["n"])}
    is_multi = folder.problem == "multi"
    probabilities = tail.node("Sigmoid", logits) if is_multi else tail.node("Softmax", logits, axis=-1)
    best = tail.node("ArgMax", logits, axis=-1, keepdims=0)
    label = tail.node("Gather", tail.strings(folder.labels), best)
    return {
        "label": (label, TensorProto.STRING, ["n"]),
        "probabilities": (probabilities, TensorProto.FLOAT, ["n", len(folder.labels)]),
    }


def _embed(tail: _Tail, folder: Folder, names: list[str], inputs: list[str]) -> str:
    if "sentence_embedding" in names:  # an ONNX file that pools itself
        return tail.node("Cast", "sentence_embedding", to=TensorProto.FLOAT)
    hidden = tail.node("Cast", _find(names, "last_hidden_state", "token_embeddings"), to=TensorProto.FLOAT)
    if folder.pooling == "cls":
        pooled = tail.node("Gather", hidden, tail.constant(np.array(0)), axis=1)
    else:
        if "attention_mask" not in inputs:
            raise refuse("the graph takes no attention_mask, which pooling needs", "export it with one")
        mask = tail.node("Cast", "attention_mask", to=TensorProto.FLOAT)
        mask = tail.node("Unsqueeze", mask, tail.constant(np.array([2])))
        pooled = _mean(tail, hidden, mask) if folder.pooling == "mean" else _max(tail, hidden, mask)
    return tail.node("LpNormalization", pooled, axis=-1, p=2) if folder.normalize else pooled


def _mean(tail: _Tail, hidden: str, mask: str) -> str:
    axes = tail.constant(np.array([1]))
    total = tail.node("ReduceSum", tail.node("Mul", hidden, mask), axes, keepdims=0)
    count = tail.node("ReduceSum", mask, axes, keepdims=0)
    return tail.node("Div", total, tail.node("Max", count, tail.constant(np.float32(_LEAST))))


def _max(tail: _Tail, hidden: str, mask: str) -> str:
    taken = tail.node("Cast", mask, to=TensorProto.BOOL)
    masked = tail.node("Where", taken, hidden, tail.constant(np.float32(-1e9)))
    # of the one row of the greatest: ReduceMax takes its axes otherwise from opset to opset
    best = tail.pair("TopK", masked, tail.constant(np.array([1])), axis=1)
    return tail.node("Squeeze", best, tail.constant(np.array([1])))


def _find(names: list[str], *wanted: str) -> str:
    for name in wanted:
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    raise refuse(f"the graph gives {', '.join(names)}, and none is called {wanted[0]}", "export it with its names")
