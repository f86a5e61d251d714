"""The tokenizer's step gives what `tokenizers` gives, padded to the longest text of a chunk."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cloche.core.errors import InputError, ModelError
from cloche.runtimes.base import StepSpec
from cloche.runtimes.steps_tokenizer import TokenizerStep, chunks

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "bad", "film", "very"]
ALL = ("input_ids", "attention_mask", "token_type_ids")


def tokenizer(**padding: Any) -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_truncation(8)
    made.enable_padding(pad_id=0, pad_token="[PAD]", **padding)
    return made


def step(made: Tokenizer, outputs: tuple[str, ...] = ALL) -> TokenizerStep:
    spec = StepSpec(kind="tokenizer", entry="model/tokenizer.json", inputs=("text",), outputs=outputs)
    return TokenizerStep.load(spec, lambda _: made.to_str().encode())


def texts(*values: str) -> dict[str, Any]:
    return {"text": np.array(values, object)}


@pytest.mark.parametrize("direction", ["right", "left"])
def test_it_gives_what_the_library_gives(direction: str) -> None:
    made = tokenizer(direction=direction)
    given = ("a good film", "very " * 20, "", "who knows")
    [(places, tensors)] = step(made).run(texts(*given))
    wanted = made.encode_batch(list(given))
    assert places.tolist() == [0, 1, 2, 3]
    assert tensors["input_ids"].dtype == np.int64
    assert tensors["input_ids"].tolist() == [each.ids for each in wanted]
    assert tensors["attention_mask"].tolist() == [each.attention_mask for each in wanted]
    assert tensors["token_type_ids"].tolist() == [each.type_ids for each in wanted]


def test_a_text_without_a_token_is_refused_by_row() -> None:
    made = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(InputError, match="row 1, text: the text has no token") as refused:
        list(step(made).run(texts("a", " ", "a")))
    assert refused.value.details[0]["row"] == 1


def test_only_what_the_graph_asks_for_is_made() -> None:
    [(_, tensors)] = step(tokenizer(), ("input_ids",)).run(texts("a"))
    assert list(tensors) == ["input_ids"]


def test_a_text_is_padded_to_the_longest_of_its_chunk_only() -> None:
    given = ["a"] * 40 + ["a good film"] * 40
    shapes = []
    seen = np.zeros(len(given), int)
    for places, tensors in step(tokenizer()).run(texts(*given)):
        shapes.append(tensors["input_ids"].shape)
        seen[places] += 1
    assert shapes == [(32, 3), (32, 5), (16, 5)]
    assert seen.tolist() == [1] * len(given)


def test_long_texts_come_in_smaller_chunks() -> None:
    lengths = np.array([512] * 20 + [3] * 10)
    found = list(chunks(lengths))
    assert all(len(places) * lengths[places].max() <= 4_096 for places in found)
    assert sorted(np.concatenate(found).tolist()) == list(range(30))
    assert [places.tolist() for places in chunks(np.array([9_000, 9_000]))] == [[0], [1]]


def test_no_texts_are_one_empty_chunk() -> None:
    [(places, tensors)] = step(tokenizer()).run(texts())
    assert len(places) == 0 and tensors["input_ids"].shape == (0, 0)


def test_what_no_tokenizer_gives_is_refused() -> None:
    with pytest.raises(ModelError, match="position_ids"):
        step(tokenizer(), ("input_ids", "position_ids"))


def test_a_file_that_is_no_tokenizer_is_refused() -> None:
    spec = StepSpec(kind="tokenizer", entry="model/tokenizer.json", inputs=("text",), outputs=ALL)
    with pytest.raises(ModelError, match=r"tokenizers can't read model/tokenizer\.json"):
        TokenizerStep.load(spec, lambda _: b"{}")


def test_nobody_imports_tokenizers_who_needs_none_and_a_missing_one_is_told() -> None:
    code = (
        "import sys; import cloche.runtimes.onnx; assert 'tokenizers' not in sys.modules\n"
        "sys.modules['tokenizers'] = None\n"
        "from cloche.runtimes.base import StepSpec\n"
        "from cloche.runtimes.steps import load_step\n"
        "try: load_step(StepSpec(kind='tokenizer', entry='t', inputs=('text',), outputs=('input_ids',)), None)\n"
        "except Exception as error: print(type(error).__name__, error.code, error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == 'MissingExtraError CL-E701 pip install "cloche[text]"'
