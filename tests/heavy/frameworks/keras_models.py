"""Keras models and SavedModels become bundles that answer as they do; run by pytest beside TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tests.conformance.checks import check_converter
from tests.heavy.frameworks.journey import check_journey

import cloche
from cloche.bundle.converters.base import find_converter

SHAPE = (32, 32, 3)


@keras.saving.register_keras_serializable()
class MeanLess(keras.layers.Layer):
    """An answer that depends on the other rows."""

    def call(self, x):
        return x - keras.ops.mean(x, axis=0, keepdims=True)


class Doubler(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([4, 3], tf.float32)])
    def fixed(self, x):
        return {"y": x * 2}

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32), tf.TensorSpec([None], tf.int64)])
    def open(self, x, times):
        return {"y": x * tf.cast(times, tf.float32)[:, None], "sum": tf.reduce_sum(x, 1)}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (30, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def cnn() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Input(SHAPE),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )


@pytest.fixture
def numbers() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)


def test_a_keras_model_keeps_the_promises(cnn: keras.Model, images: np.ndarray) -> None:
    check_converter(find_converter(cnn), cnn, images)


def test_a_keras_model_answers_the_same_packed_exported_imported_and_served(
    cnn: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    wanted = cnn.predict(images, verbose=0)
    bundle = cloche.pack(cnn, images, name="cnn", directory=tmp_path)
    assert bundle.manifest.framework == f"Keras {keras.__version__}"
    assert [(field.name, field.shape) for field in bundle.signature.outputs] == [("output", (-1, 5))]
    check_journey(bundle, tmp_path, {"x": images}, wanted)


def test_softmax_of_a_classifier_is_its_probabilities(
    cnn: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    wanted = cnn.predict(images, verbose=0)
    labels = wanted.argmax(axis=1)
    bundle = cloche.pack(cnn, images, labels, name="kinds", task="classification", directory=tmp_path)
    assert bundle.manifest.quality is not None and bundle.manifest.quality["accuracy"] == 1.0
    with cloche.load(bundle, directory=tmp_path) as loaded:
        assert loaded.predict(images).tolist() == labels.tolist()
        np.testing.assert_allclose(loaded.predict_proba(images), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_saved_model_is_packed_without_tensorflow_in_this_process(
    form: str, cnn: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / ("cnn.keras" if form == "file" else "saved")
    cnn.save(path) if form == "file" else cnn.export(str(path), verbose=False)
    np.save(tmp_path / "images.npy", images)
    program = (
        "import sys, numpy, cloche; cloche.pack(sys.argv[1], numpy.load('images.npy'), name='cnn');"
        "assert not {'tensorflow', 'keras', 'tf2onnx'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], cwd=tmp_path, check=True, timeout=300)
    with cloche.load("cnn", directory=tmp_path) as loaded:
        assert "Keras" in loaded.bundle.manifest.framework or form == "folder"
        assert loaded.bundle.manifest.parity is not None
        wanted = cnn.predict(images, verbose=0)
        np.testing.assert_allclose(loaded.predict(images), wanted, rtol=1e-4, atol=1e-6)


def test_inputs_and_outputs_with_names_keep_them(tmp_path: Path) -> None:
    numbers, ids = keras.Input((4,), name="numbers"), keras.Input((3,), dtype="int32", name="ids")
    flat = keras.layers.Flatten()(keras.layers.Embedding(10, 2)(ids))
    joined = keras.layers.Concatenate()([numbers, flat])
    outputs = {"price": keras.layers.Dense(1)(joined), "kind": keras.layers.Dense(3)(joined)}
    model = keras.Model({"numbers": numbers, "ids": ids}, outputs)
    random = np.random.default_rng(0)
    rows = {"numbers": random.normal(size=(30, 4)), "ids": random.integers(0, 10, (30, 3))}
    bundle = cloche.pack(model, rows, name="two", directory=tmp_path)
    assert {field.name: field.datatype for field in bundle.signature.inputs} == {"numbers": "FP32", "ids": "INT32"}
    wanted = model.predict(rows, verbose=0)
    with cloche.load(bundle, directory=tmp_path) as loaded:
        for name, column in loaded.run(rows).items():
            np.testing.assert_allclose(column, wanted[name], rtol=1e-4, atol=1e-6)


def test_a_recurrent_network_is_exact(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((12, 3)), keras.layers.LSTM(6), keras.layers.Dense(1)])
    rows = np.random.default_rng(0).normal(size=(30, 12, 3)).astype(np.float32)
    with cloche.load(cloche.pack(model, rows, name="lstm", directory=tmp_path), directory=tmp_path) as loaded:
        np.testing.assert_allclose(loaded.predict(rows), model.predict(rows, verbose=0), rtol=1e-4, atol=1e-5)


def test_the_signature_is_that_of_serving_default(tmp_path: Path) -> None:
    module = Doubler()
    tf.saved_model.save(module, str(tmp_path / "open"), signatures={"serving_default": module.open})
    random = np.random.default_rng(0)
    rows = {"times": random.integers(1, 9, 30), "x": random.normal(size=(30, 3)).astype(np.float32)}
    bundle = cloche.pack(tmp_path / "open", rows, name="doubler", directory=tmp_path)
    assert {field.name: (field.datatype, field.shape) for field in bundle.signature.inputs} == {
        "x": ("FP32", (-1, 3)),
        "times": ("INT64", (-1,)),
    }
    with cloche.load(bundle, directory=tmp_path) as loaded:
        np.testing.assert_allclose(loaded.run(rows)["y"], rows["x"] * rows["times"][:, None], rtol=1e-6)


def test_without_rows_it_is_proven_on_drawn_ones(cnn: keras.Model, tmp_path: Path) -> None:
    bundle = cloche.pack(cnn, name="cnn", directory=tmp_path)
    assert any("without rows" in note for note in bundle.manifest.notes)


def test_what_is_not_exact_is_refused_with_a_reason(numbers: np.ndarray, tmp_path: Path) -> None:
    module = Doubler()
    tf.saved_model.save(module, str(tmp_path / "fixed"), signatures={"serving_default": module.fixed})
    tf.saved_model.save(module, str(tmp_path / "other"), signatures={"double": module.open})
    lambdas = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    lambdas.save(tmp_path / "lambda.keras")
    words = keras.Sequential(
        [keras.Input((1,), dtype="string"), keras.layers.TextVectorization(vocabulary=["a", "b"])]
    )
    unbuilt = type("Unbuilt", (keras.Model,), {"call": lambda self, x: x})()
    for model, said in [
        (keras.Sequential([keras.Input((4,)), MeanLess()]), "differently when it comes alone"),
        (tmp_path / "fixed", "its first axis is not open"),
        (tmp_path / "other", "no signature 'serving_default'; it has double"),
        (tmp_path / "lambda.keras", "Keras can't load lambda.keras"),
        (words, "is text"),
        (unbuilt, "Keras can't export Unbuilt"),
    ]:
        with pytest.raises(cloche.ConversionError, match=said) as caught:
            cloche.pack(model, numbers, name="bad", directory=tmp_path)
        assert caught.value.code == "CL-E802" and caught.value.hint
