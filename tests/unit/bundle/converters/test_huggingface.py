"""Hugging Face folders with an ONNX file: labels, softmax, pooling and length 1 stand in the bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.conformance.checks import check_converter
from tests.unit.runtimes.test_steps_tokenizer import WORDS, tokenizer

import cloche
from cloche.bundle.converters.base import Converted, ConvertOptions, find_converter
from cloche.bundle.converters.huggingface import HuggingFaceConverter
from cloche.core.errors import ConfigError, ConversionError
from cloche.runtimes.base import RuntimePlace, load_runtime
from cloche.runtimes.files import Held

WIDTH = 4
TABLE = np.random.default_rng(0).normal(size=(len(WORDS), WIDTH)).astype(np.float32)
TEXTS = ["a good film", "very bad", "good good good", "a film", "nobody knows this"] * 8
IDS = {text: tokenizer().encode(text).ids for text in TEXTS}
SINGLE = {"architectures": ["BertForSequenceClassification"], "id2label": {str(i): f"c{i}" for i in range(WIDTH)}}
ENCODER = {"architectures": ["BertModel"], "max_position_embeddings": 6}


def write(
    folder: Path, output: str, config: dict[str, Any], *, inputs: tuple[str, ...] = (), **files: Any
) -> Path:
    """A folder whose graph looks each token up in TABLE; `logits` are the mean over tokens."""
    names = inputs or ("input_ids", "attention_mask")
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "tokens"]) for name in names]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["hidden"])]
    shape: list[Any] = ["rows", "tokens", WIDTH]
    constants = [numpy_helper.from_array(TABLE, "table")]
    if output == "logits":
        shape = ["rows", WIDTH]
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
            helper.make_node("Mul", ["hidden", "wide"], ["masked"]),
            helper.make_node("ReduceSum", ["masked", "first"], [output], keepdims=0),
        ]
        constants += [
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([1]), "first"),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["hidden"], [output]))
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "g", values, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def pooling(**modes: bool) -> dict[str, Any]:
    return {
        "modules": [
            {"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "1_Pooling__config": {f"pooling_mode_{name}": value for name, value in modes.items()},
    }


def convert(folder: Path, rows: Any = TEXTS, **options: Any) -> Converted:
    return HuggingFaceConverter().convert(folder, rows, ConvertOptions(**options))


def run(converted: Converted, texts: list[str]) -> Any:
    files, place = Held(converted.files), RuntimePlace(digest="")
    name = converted.signature.inputs[0].name
    return load_runtime(converted.runtime, converted.signature, files, place).run({name: np.array(texts, object)})


def hidden(text: str) -> Any:
    return TABLE[IDS[text]]


def test_it_keeps_the_converters_promises(tmp_path: Path) -> None:
    folder = write(tmp_path / "bert", "logits", SINGLE)
    converted = check_converter(find_converter(folder), folder, TEXTS)
    assert converted.requirements == ("tokenizers>=0.20",)
    assert converted.description == "BertForSequenceClassification"


def test_labels_and_softmax_stand_in_the_bundle(tmp_path: Path) -> None:
    converted = convert(write(tmp_path, "logits", SINGLE))
    answers = run(converted, TEXTS)
    logits = np.array([hidden(text).sum(axis=0) for text in TEXTS])
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answers["probabilities"], chances, rtol=1e-5)
    assert answers["label"].tolist() == [f"c{best}" for best in chances.argmax(axis=1)]
    assert converted.task == "classification"
    assert [field.classes for field in converted.signature.outputs] == [("c0", "c1", "c2", "c3")] * 2


def test_several_labels_at_once_are_sigmoids(tmp_path: Path) -> None:
    converted = convert(write(tmp_path, "logits", SINGLE | {"problem_type": "multi_label_classification"}))
    logits = np.array([hidden(text).sum(axis=0) for text in TEXTS])
    np.testing.assert_allclose(run(converted, TEXTS)["probabilities"], 1 / (1 + np.exp(-logits)), rtol=1e-5)


@pytest.mark.parametrize(
    ("mode", "pool"),
    [
        ("mean_tokens", lambda rows: rows.mean(axis=0)),
        ("cls_token", lambda rows: rows[0]),
        ("max_tokens", lambda rows: rows.max(axis=0)),
    ],
)
def test_pooling_and_length_are_the_folders(mode: str, pool: Any, tmp_path: Path) -> None:
    converted = convert(
        write(tmp_path, "last_hidden_state", ENCODER, **pooling(**{mode: True, "lasttoken": False}))
    )
    vectors = np.array([pool(hidden(text)) for text in TEXTS])
    wanted = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(run(converted, TEXTS)["embedding"], wanted, rtol=1e-5, atol=1e-6)
    assert [(field.name, field.shape) for field in converted.signature.outputs] == [("embedding", (-1, WIDTH))]


def test_without_modules_the_plain_mean_is_taken_when_embeddings_are_asked_for(tmp_path: Path) -> None:
    folder = write(tmp_path, "last_hidden_state", ENCODER)
    with pytest.raises(ConfigError, match="does not say what it is for") as caught:
        convert(folder)
    assert 'task="embeddings"' in (caught.value.hint or "")
    wanted = np.array([hidden(text).mean(axis=0) for text in TEXTS])
    answers = run(convert(folder, task="embeddings"), TEXTS)
    np.testing.assert_allclose(answers["embedding"], wanted, rtol=1e-5, atol=1e-6)


def test_texts_are_cut_at_the_models_limit(tmp_path: Path) -> None:
    converted = convert(write(tmp_path, "last_hidden_state", ENCODER), task="embeddings")
    said = json.loads(converted.files["model/tokenizer.json"])
    assert said["truncation"]["max_length"] == 6
    long, cut = run(converted, ["good " * 50, "good good good good"])["embedding"]
    assert np.array_equal(long, cut)


@pytest.mark.parametrize(
    ("config", "files", "said"),
    [
        (ENCODER, {"modules": [{"path": ""}, {"path": "2", "type": "x.Dense"}]}, "the module Dense"),
        (ENCODER, pooling(lasttoken=True), "pooling by pooling_mode_lasttoken"),
        (ENCODER, pooling(mean_tokens=True, cls_token=True), "pooling by mean and cls"),
        (SINGLE | {"problem_type": "regression"}, {}, "a regression with 4 outputs"),
    ],
)
def test_what_is_not_known_is_refused(config: Any, files: Any, said: str, tmp_path: Path) -> None:
    output = "logits" if config is not ENCODER else "last_hidden_state"
    with pytest.raises(ConversionError, match=said) as caught:
        convert(write(tmp_path, output, config, **files))
    assert caught.value.code == "CL-E802"


def test_a_head_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, "last_hidden_state", ENCODER)
    with pytest.raises(ConversionError, match="BertModel has no trained head"):
        convert(folder, task="text-classification")
    with pytest.raises(ConfigError, match="no task is called 'poetry'"):
        convert(folder, task="poetry")


def test_a_graph_that_wants_more_than_a_tokenizer_gives_is_refused(tmp_path: Path) -> None:
    names = ("input_ids", "attention_mask", "position_ids")
    with pytest.raises(ConversionError, match="position_ids, which no tokenizer gives"):
        convert(write(tmp_path, "logits", SINGLE, inputs=names))


def test_a_folder_without_a_tokenizer_file_is_told_how_to_write_one(tmp_path: Path) -> None:
    folder = write(tmp_path, "logits", SINGLE, tokenizer_config={"model_max_length": 8})
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConversionError, match=r"has no tokenizer\.json") as caught:
        convert(folder)
    assert "save_pretrained" in (caught.value.hint or "")


def test_it_is_packed_loaded_and_takes_a_list_of_texts(tmp_path: Path) -> None:
    folder = write(tmp_path / "bert", "logits", SINGLE)
    bundle = cloche.pack(folder, TEXTS, name="mood", directory=tmp_path)
    with cloche.load(bundle, directory=tmp_path) as loaded:
        assert loaded.predict(["a good film"]).tolist() == loaded.predict({"text": ["a good film"]}).tolist()
        assert loaded.predict_proba(TEXTS).shape == (len(TEXTS), WIDTH)
