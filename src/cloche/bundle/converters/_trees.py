"""Exact ONNX for scikit-learn's trees: every split is decided as scikit-learn decides it, in float64.

skl2onnx writes trees with float32 thresholds and weights, drops where missing values go, and leaves the
label of a binary model to a rule that ONNX Runtime changes when all weights happen to be positive. These
converters take the place of its own (`CONVERTERS` is handed to `convert_sklearn`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, numpy_helper
from skl2onnx.common.data_types import DoubleTensorType
from sklearn import ensemble, tree

from cloche.bundle.converters._forest import switch_points

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: The smallest number above zero: added to a sum it decides an exact tie and changes nothing else.
_TIE = 5e-324


class _Tree(NamedTuple):
    """A tree's nodes as arrays; children of leaves mean nothing."""

    feature: Integers
    threshold: Floats
    left: Integers
    right: Integers
    missing_left: Integers
    leaf: npt.NDArray[np.bool_]
    #: (nodes, targets)
    value: Floats
    #: The class or target of the first column of `value`.
    first: int


def _from_cart(fitted: Any, value: Floats, first: int) -> _Tree:
    nodes = fitted.tree_
    leaf = nodes.children_left < 0
    missing = getattr(nodes, "missing_go_to_left", np.zeros(nodes.node_count))
    return _Tree(
        feature=np.where(leaf, 0, nodes.feature).astype(np.int64),
        threshold=np.where(leaf, 0.0, switch_points(nodes.threshold)),
        left=np.where(leaf, 0, nodes.children_left).astype(np.int64),
        right=np.where(leaf, 0, nodes.children_right).astype(np.int64),
        missing_left=np.where(leaf, 0, missing).astype(np.int64),
        leaf=leaf,
        value=value,
        first=first,
    )


def _from_histogram(predictor: Any, first: int) -> _Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(np.bool_)
    return _Tree(
        feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]),
        left=np.where(leaf, 0, nodes["left"]).astype(np.int64),
        right=np.where(leaf, 0, nodes["right"]).astype(np.int64),
        missing_left=np.where(leaf, 0, nodes["missing_go_to_left"]).astype(np.int64),
        leaf=leaf,
        value=nodes["value"].astype(np.float64).reshape(-1, 1),
        first=first,
    )


def _constant(value: float, first: int, otherwise: float | None = None) -> _Tree:
    """A tree that gives `value` for every row; `otherwise` stands at a leaf that no row reaches."""
    leaves = [value, value if otherwise is None else otherwise]
    return _Tree(
        feature=np.zeros(3, np.int64),
        threshold=np.array([np.inf, 0.0, 0.0]),
        left=np.array([1, 0, 0]),
        right=np.array([2, 0, 0]),
        missing_left=np.array([1, 0, 0]),
        leaf=np.array([False, True, True]),
        value=np.array([[0.0], *([leaf] for leaf in leaves)]),
        first=first,
    )


def _attributes(trees: list[_Tree], prefix: str) -> dict[str, Any]:
    """The attributes of a TreeEnsemble node; `prefix` is `class` or `target`."""
    sizes = [len(each.leaf) for each in trees]
    ids = np.repeat(np.arange(len(trees)), sizes)
    nodes = np.concatenate([np.arange(size) for size in sizes])
    leaf = np.concatenate([each.leaf for each in trees])
    targets = [each.value.shape[1] for each in trees]
    leaves = [np.flatnonzero(each.leaf) for each in trees]

    def joined(name: str) -> list[int]:
        result: list[int] = np.concatenate([getattr(each, name) for each in trees]).tolist()
        return result

    def weighted(parts: list[Integers]) -> list[int]:
        result: list[int] = np.concatenate(parts).tolist()
        return result

    owner = range(len(trees))
    return {
        "nodes_treeids": ids.tolist(),
        "nodes_nodeids": nodes.tolist(),
        "nodes_featureids": joined("feature"),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_values_as_tensor": numpy_helper.from_array(np.concatenate([each.threshold for each in trees])),
        "nodes_truenodeids": joined("left"),
        "nodes_falsenodeids": joined("right"),
        "nodes_missing_value_tracks_true": joined("missing_left"),
        f"{prefix}_treeids": weighted([np.full(len(leaves[i]) * targets[i], i) for i in owner]),
        f"{prefix}_nodeids": weighted([np.repeat(leaves[i], targets[i]) for i in owner]),
        f"{prefix}_ids": weighted(
            [np.tile(np.arange(targets[i]) + trees[i].first, len(leaves[i])) for i in owner]
        ),
        f"{prefix}_weights_as_tensor": numpy_helper.from_array(
            np.concatenate([trees[i].value[leaves[i]].ravel() for i in owner])
        ),
    }


def _as_double(scope: Any, operator: Any, container: Any) -> str:
    """The name of the operator's input as float64."""
    variable = operator.inputs[0]
    if isinstance(variable.type, DoubleTensorType):
        return str(variable.full_name)
    return _cast(scope, container, str(variable.full_name), TensorProto.DOUBLE)


def _cast(scope: Any, container: Any, name: str, to: int, output: str | None = None) -> str:
    result = output or str(scope.get_unique_variable_name("cast"))
    container.add_node("Cast", [name], [result], name=scope.get_unique_operator_name("Cast"), to=to)
    return result


def _add_classifier(scope: Any, operator: Any, container: Any, trees: list[_Tree], transform: str) -> None:
    """Boosting: labels and probabilities by the operator's own rule."""
    scores = _add_scores(scope, operator, container, trees, transform, operator.raw_operator.classes_)
    _finish(scope, container, operator.outputs[1], scores)


def _add_vote(scope: Any, operator: Any, container: Any, trees: list[_Tree]) -> None:
    """Forests: the first class of the largest sum, and the mean as probabilities."""
    classes = operator.raw_operator.classes_
    matrix = np.eye(len(classes), dtype=np.float32) / np.float32(len(trees))
    if more := max(3 - len(classes), 0):
        # ONNX Runtime compares the sums of three classes and more; of fewer it asks only whether the last one's
        # is above zero. So a third is named that no leaf votes for, and taken off again.
        matrix = np.vstack([matrix, np.zeros((more, len(classes)), np.float32)])
        classes = np.append(classes, np.repeat(classes[-1:], more))
    scores = _add_scores(scope, operator, container, trees, "NONE", classes)
    if len(trees) > 1 or more:
        means = str(scope.get_unique_variable_name("means"))
        factors = scope.get_unique_variable_name("factors")
        container.add_initializer(factors, TensorProto.FLOAT, matrix.shape, matrix.ravel())
        container.add_node("MatMul", [scores, factors], [means], name=scope.get_unique_operator_name("MatMul"))
        scores = means
    _finish(scope, container, operator.outputs[1], scores)


def _add_scores(
    scope: Any, operator: Any, container: Any, trees: list[_Tree], transform: str, classes: npt.NDArray[Any]
) -> str:
    labels: dict[str, list[Any]] = {"classlabels_strings": [str(each) for each in classes]}
    if classes.dtype.kind not in "OUS":
        labels = {"classlabels_int64s": [int(each) for each in classes]}
    scores = str(scope.get_unique_variable_name("scores"))
    container.add_node(
        "TreeEnsembleClassifier",
        [_as_double(scope, operator, container)],
        [operator.outputs[0].full_name, scores],
        op_domain="ai.onnx.ml",
        op_version=3,
        name=scope.get_unique_operator_name("Trees"),
        post_transform=transform,
        **labels,
        **_attributes(trees, "class"),
    )
    return scores


def _add_regressor(
    scope: Any, operator: Any, container: Any, trees: list[_Tree], *, targets: int = 1, then: str = ""
) -> None:
    raw = str(scope.get_unique_variable_name("sums"))
    container.add_node(
        "TreeEnsembleRegressor",
        [_as_double(scope, operator, container)],
        [raw],
        op_domain="ai.onnx.ml",
        op_version=3,
        name=scope.get_unique_operator_name("Trees"),
        post_transform="NONE",
        n_targets=targets,
        **_attributes(trees, "target"),
    )
    if then:
        result = str(scope.get_unique_variable_name("linked"))
        container.add_node(then, [raw], [result], name=scope.get_unique_operator_name(then))
        raw = result
    _finish(scope, container, operator.outputs[0], raw)


def _finish(scope: Any, container: Any, output: Any, name: str) -> None:
    """Hands a float32 result on in the type that the next step expects."""
    if isinstance(output.type, DoubleTensorType):
        _cast(scope, container, name, TensorProto.DOUBLE, str(output.full_name))
    else:
        identity = scope.get_unique_operator_name("Identity")
        container.add_node("Identity", [name], [output.full_name], name=identity)


def _members(model: Any) -> list[Any]:
    return list(getattr(model, "estimators_", [model]))


def _forest_classifier(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    if model.n_outputs_ != 1:
        raise NotImplementedError("classifiers of several labels at once are not converted")
    trees = []
    for member in _members(model):
        value = member.tree_.value[:, 0, :].astype(np.float64)
        sums = value.sum(axis=1, keepdims=True)
        # Counts, as scikit-learn before 1.3 kept them.
        trees.append(_from_cart(member, value if np.allclose(sums, 1.0) else value / sums, 0))
    # The label is decided on the plain sums, as scikit-learn's: dividing each leaf would break ties by rounding.
    _add_vote(scope, operator, container, trees)


def _forest_regressor(scope: Any, operator: Any, container: Any) -> None:
    members = _members(operator.raw_operator)
    trees = [_from_cart(each, each.tree_.value[:, :, 0] / len(members), 0) for each in members]
    _add_regressor(scope, operator, container, trees, targets=members[0].n_outputs_)


def _boosted(model: Any, scale: float = 1.0) -> list[_Tree]:
    """The first guess, then the stages in order: sums are rounded as scikit-learn's are."""
    init = getattr(model, "init_", None)
    if init != "zero" and type(init).__name__ not in ("DummyClassifier", "DummyRegressor"):
        raise NotImplementedError(f"boosting that starts from a {type(init).__name__} is not converted")
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32)).ravel()
    trees = [_constant(scale * float(value), i) for i, value in enumerate(start)]
    for stage in model.estimators_:
        for i, member in enumerate(stage):
            value = member.tree_.value[:, :, 0] * model.learning_rate * scale
            trees.append(_from_cart(member, value, i))
    return trees


def _boosting_classifier(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    if model.n_classes_ > 2:
        _add_classifier(scope, operator, container, _boosted(model), "SOFTMAX")
        return
    # The exponential loss's probability is expit(2 raw).
    trees = _boosted(model, 2.0 if model.loss == "exponential" else 1.0)
    # ONNX Runtime says the second class for raw > 0, or for raw > 0.5 where no weight is negative; scikit-learn
    # says it for raw >= 0. One more tree brings a negative weight that no row reaches, and decides the tie.
    trees.append(_constant(_TIE, 0, otherwise=-1.0))
    _add_classifier(scope, operator, container, trees, "LOGISTIC")


def _boosting_regressor(scope: Any, operator: Any, container: Any) -> None:
    _add_regressor(scope, operator, container, _boosted(operator.raw_operator))


def _histogram_trees(model: Any) -> list[_Tree]:
    start = np.ravel(model._baseline_prediction)
    trees = [_constant(float(value), i) for i, value in enumerate(start)]
    for stage in model._predictors:
        trees.extend(_from_histogram(predictor, i) for i, predictor in enumerate(stage))
    return trees


def _histogram_classifier(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    trees = _histogram_trees(model)
    if len(model.classes_) > 2:
        _add_classifier(scope, operator, container, trees, "SOFTMAX")
        return
    # As above, but here scikit-learn says the second class for raw > 0 only.
    trees.append(_constant(0.0, 0, otherwise=-1.0))
    _add_classifier(scope, operator, container, trees, "LOGISTIC")


def _histogram_regressor(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    link = type(model._loss.link).__name__
    if link not in ("IdentityLink", "LogLink"):
        raise NotImplementedError(f"histogram boosting with a {link} is not converted")
    _add_regressor(scope, operator, container, _histogram_trees(model), then="Exp" if link == "LogLink" else "")


#: scikit-learn class -> what writes its nodes.
CONVERTERS: dict[type, Callable[[Any, Any, Any], None]] = {
    tree.DecisionTreeClassifier: _forest_classifier,
    tree.ExtraTreeClassifier: _forest_classifier,
    ensemble.RandomForestClassifier: _forest_classifier,
    ensemble.ExtraTreesClassifier: _forest_classifier,
    tree.DecisionTreeRegressor: _forest_regressor,
    tree.ExtraTreeRegressor: _forest_regressor,
    ensemble.RandomForestRegressor: _forest_regressor,
    ensemble.ExtraTreesRegressor: _forest_regressor,
    ensemble.GradientBoostingClassifier: _boosting_classifier,
    ensemble.GradientBoostingRegressor: _boosting_regressor,
    ensemble.HistGradientBoostingClassifier: _histogram_classifier,
    ensemble.HistGradientBoostingRegressor: _histogram_regressor,
}
