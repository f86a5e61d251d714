"""The models of the cases: how each is made, loaded by a peer, and what it answers.

python benchmarks/peers/models.py CASE FOLDER      # writes the model into the folder
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np

SHAPE = (3, 224, 224)


def load(case: str, folder: Path) -> Callable[[list[Any]], list[Any]]:
    """A function from a batch of inputs to their answers, as the framework's tutorials have it."""
    if case == "image":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])
        return lambda batch: (
            session.run(None, {"pixels": np.asarray(batch, np.float32)})[0].argmax(axis=1).tolist()
        )
    if case == "minilm":
        return _load_encoder(folder / "minilm")
    model = joblib.load(folder / "model.joblib")
    if case == "text":
        return lambda batch: model.predict(batch).tolist()
    return lambda batch: model.predict(np.asarray(batch)).tolist()


def _load_encoder(folder: Path) -> Callable[[list[str]], list[list[float]]]:
    """Tokens, the encoder, the mean over the tokens, and length 1."""
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])

    def encode(texts: list[str]) -> list[list[float]]:
        tokens = tokenizer.encode_batch(list(texts))
        mask = np.array([each.attention_mask for each in tokens])
        feed = {
            "input_ids": np.array([each.ids for each in tokens]),
            "attention_mask": mask,
            "token_type_ids": np.array([each.type_ids for each in tokens]),
        }
        hidden = session.run(None, feed)[0]
        means = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).tolist()

    return encode


def row_examples() -> tuple[list[Any], list[Any]]:
    """Eight rows the model has not seen, four of each class, and the labels that the model gives them."""
    from train import train

    model, X, _ = train()
    answers = model.predict(X)
    picked = [i for label in (0, 1) for i in [j for j in range(len(X)) if answers[j] == label][:4]]
    return [X[i].tolist() for i in picked], [int(answers[i]) for i in picked]


def write_rows(folder: Path) -> None:
    from train import train

    joblib.dump(train()[0], folder / "model.joblib")


def write_image(folder: Path) -> None:
    """Two convolutions, a mean over the image and ten scores; the weights are drawn."""
    from onnx import TensorProto, helper

    random = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> Any:
        values = random.normal(0.0, 0.1, shape).astype(np.float32)
        return helper.make_tensor(name, TensorProto.FLOAT, shape, values.ravel())

    nodes = [
        helper.make_node("Conv", ["pixels", "w1"], ["c1"], strides=[4, 4], kernel_shape=[7, 7], pads=[3] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], strides=[2, 2], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w3"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        [weights("w1", 8, 3, 7, 7), weights("w2", 16, 8, 3, 3), weights("w3", 16, 10)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def images(count: int) -> np.ndarray:
    """Images [count,3,224,224] float32 that differ in brightness and colour, so that their answers do."""
    random = np.random.default_rng(1)
    base = random.normal(size=(count, 3, 1, 1)) * 2
    return (base + random.normal(size=(count, *SHAPE))).astype(np.float32)


def image_examples() -> tuple[list[Any], list[Any]]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_image(Path(folder))
        rows = images(4)
        return list(rows), load("image", Path(folder))(list(rows))


def texts() -> tuple[list[str], list[int]]:
    """Paragraphs of the descriptions of data sets, and which data set each is of."""
    from sklearn import datasets

    loaders = (datasets.load_breast_cancer, datasets.load_diabetes, datasets.load_digits, datasets.load_wine)
    rows, labels = [], []
    for label, loader in enumerate(loaders):
        words = loader().DESCR.split()
        pieces = [" ".join(words[start : start + 30]) for start in range(0, len(words) - 30, 10)]
        rows += pieces
        labels += [label] * len(pieces)
    return rows, labels


def train_text() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows, labels = texts()
    return make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000)).fit(rows[1::2], labels[1::2])


def text_examples() -> tuple[list[Any], list[Any]]:
    rows = texts()[0][::2][::12]
    return rows, train_text().predict(rows).tolist()


def short_texts(length: int) -> list[str]:
    """Texts of so many words each."""
    words = [[word for word in text.split() if word.strip(".,:").isalpha()] for text in texts()[0][::2]]
    return [" ".join(each[:length]) for each in words if len(each) >= length]


def encoder_examples(folder: Path, length: int) -> tuple[list[Any], list[Any]]:
    rows = short_texts(length)[:4]
    return rows, load("minilm", folder)(rows)


def write_text(folder: Path) -> None:
    joblib.dump(train_text(), folder / "model.joblib")


if __name__ == "__main__":
    {"rows": write_rows, "image": write_image, "text": write_text}[sys.argv[1]](Path(sys.argv[2]))
