"""Boosted trees as one ONNX node, which compares and adds in the type that the original does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper

Values = npt.NDArray[Any]

ML_DOMAIN = "ai.onnx.ml"
#: The first operator set with trees that add in float64 and test for a set of categories.
ML_OPSET = 5
OPSETS = {"": 21, ML_DOMAIN: ML_OPSET}
_IR_VERSION = 10

#: How a decision compares its feature: `feature <= threshold` goes to the true side, and so on.
LEQ, LT, GT, MEMBER = 0, 1, 3, 6


class Tree(NamedTuple):
    """A Tree is its decisions, the root first, and its leaves; a child below zero is the leaf ~child."""

    feature: Values
    threshold: Values
    true: Values
    false: Values
    #: 1 where NaN goes to the true side.
    missing_true: Values
    #: LEQ, LT, GT or MEMBER, of each decision.
    mode: Values
    #: What each leaf adds.
    leaf: Values
    #: The output that they add to.
    target: int
    #: The set of each decision that is MEMBER, in order.
    members: tuple[Values, ...] = ()


def constant(value: float, target: int) -> Tree:
    """A tree that adds `value` to every row."""
    none = np.zeros(0, np.int64)
    return Tree(none, none, none, none, none, none, np.array([value]), target)


def switch_points(thresholds: Values) -> Values:
    """The largest float64 x of which float32(x) <= threshold, for each threshold.

    Some trees compare float32(x) with a threshold; x <= switch point is the same question.
    """
    below = thresholds.astype(np.float32)
    below = np.where(below > thresholds, np.nextafter(below, np.float32(-np.inf)), below).astype(np.float32)
    above = np.nextafter(below, np.float32(np.inf)).astype(np.float64)
    # Beyond the largest float32, rounding goes by what would come next.
    above = np.where(np.isinf(above), 2.0**128, above)
    # Halfway between two float32 is exact in float64, and rounds to the one whose last bit is 0.
    middle = (below.astype(np.float64) + above) / 2
    even = (below.view(np.uint32) & 1) == 0
    return np.where(even, middle, np.nextafter(middle, -np.inf))


class Writer(Protocol):
    """A Writer adds constants and nodes to a graph, and names what they give."""

    def constant(self, value: Values) -> str: ...

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str: ...


class GraphWriter:
    """A GraphWriter is the Writer of a graph that is made from nothing."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[TensorProto] = []

    def constant(self, value: Values) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self._nodes)}"
        attributes.pop("op_version", None)
        domain = attributes.pop("op_domain", "")
        self._nodes.append(helper.make_node(kind, inputs, [name], domain=domain, **attributes))
        return name

    def finish(self, inputs: Sequence[Any], outputs: Sequence[str]) -> ModelProto:
        """The model, whose outputs have no type yet."""
        results = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self._nodes, "model", inputs, results, self._constants)
        imports = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        return helper.make_model(graph, opset_imports=imports, ir_version=_IR_VERSION)


def add_forest(writer: Writer, matrix: str, trees: Sequence[Tree], targets: int, dtype: Any) -> str:
    """Adds trees over the float matrix [n, features]; the name of their sums [n, targets], in order of the trees.

    `dtype` is that of the matrix, float32 or float64: thresholds, weights and sums are of it as well.
    """
    trees = [each if len(each.mode) else _rooted(each) for each in trees]
    decisions = _starts([len(each.mode) for each in trees])
    leaves = _starts([len(each.leaf) for each in trees])
    true, true_is_leaf = _children([each.true for each in trees], decisions, leaves)
    false, false_is_leaf = _children([each.false for each in trees], decisions, leaves)
    attributes: dict[str, Any] = {
        "n_targets": targets,
        "tree_roots": decisions.tolist(),
        "nodes_featureids": _joined([each.feature for each in trees]).astype(np.int64).tolist(),
        "nodes_splits": _tensor([each.threshold for each in trees], dtype),
        "nodes_modes": _tensor([each.mode for each in trees], np.uint8),
        "nodes_missing_value_tracks_true": _joined([each.missing_true for each in trees])
        .astype(np.int64)
        .tolist(),
        "nodes_truenodeids": true,
        "nodes_trueleafs": true_is_leaf,
        "nodes_falsenodeids": false,
        "nodes_falseleafs": false_is_leaf,
        "leaf_targetids": np.repeat([each.target for each in trees], [len(each.leaf) for each in trees]).tolist(),
        "leaf_weights": _tensor([each.leaf for each in trees], dtype),
    }
    if sets := [[*members, np.nan] for each in trees for members in each.members]:
        attributes["membership_values"] = _tensor([np.array(members) for members in sets], dtype)
    return writer.node("TreeEnsemble", matrix, op_domain=ML_DOMAIN, op_version=ML_OPSET, **attributes)


def _rooted(tree: Tree) -> Tree:
    """A tree of one leaf, with the decision that the format wants at its root."""
    zero = np.zeros(1, np.int64)
    return tree._replace(
        feature=zero, threshold=zero, true=zero - 1, false=zero - 1, missing_true=zero, mode=zero + LEQ
    )


def _starts(sizes: list[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)


def _children(
    children: list[Values], decisions: npt.NDArray[np.int64], leaves: npt.NDArray[np.int64]
) -> tuple[list[int], list[int]]:
    """Where each child is among all decisions or all leaves, and 1 for a leaf."""
    places = [
        np.where(child < 0, ~child + leaf, child + decision)
        for child, decision, leaf in zip(children, decisions, leaves, strict=True)
    ]
    return _joined(places).tolist(), (_joined(children) < 0).astype(np.int64).tolist()


def _joined(parts: list[Values]) -> Values:
    return np.concatenate(parts)


def _tensor(parts: list[Values], dtype: Any) -> TensorProto:
    return numpy_helper.from_array(_joined(parts).astype(dtype))
