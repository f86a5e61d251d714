"""Loads a Hugging Face folder with transformers, exports it by torch, and asks it for its own answers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
import transformers

from cloche.bundle.converters import _torch
from cloche.bundle.converters._hf_folder import Folder, refuse
from cloche.core.signature import Array, Columns
from cloche.runtimes.steps_tokenizer import TENSORS


class Transformer:
    """A Transformer is the folder's model in PyTorch, float32 and in eval mode, with its own tokenizer."""

    def __init__(self, folder: Folder) -> None:
        """Raises ConversionError for a folder that transformers can't load without code or pickles."""
        self._folder = folder
        classes = folder.task == "text-classification"
        kind = transformers.AutoModelForSequenceClassification if classes else transformers.AutoModel
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._model = kind.from_pretrained(
                    folder.inner, use_safetensors=True, dtype=torch.float32, attn_implementation="sdpa", **options
                ).eval()
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder.inner, **options)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise refuse(f"transformers can't load the folder: {error}".splitlines()[0]) from error

    @property
    def version(self) -> str:
        return f"transformers {transformers.__version__}"

    @property
    def name(self) -> str:
        return type(self._model).__name__

    def export(self) -> tuple[bytes, list[str]]:
        """The bytes of an ONNX file, and the names of its inputs."""
        few = self._tokens(["two rows of text", "and the second of them is longer"])
        names = [name for name in TENSORS if name in few]
        output = "logits" if self._folder.task == "text-classification" else "last_hidden_state"
        axes = {name: {0: "rows", 1: "tokens"} for name in names}
        module = _Only(self._model, names, output)
        return _torch.export(module, tuple(few[name] for name in names), names, [output], axes), names

    def answer(self, texts: list[str]) -> Columns:
        """Its own answers, one text at a time, so that nothing is padded."""
        with torch.no_grad():
            rows = [self._one(text) for text in texts]
        return {name: np.array([row[name] for row in rows], _kind(name)) for name in rows[0]}

    def _one(self, text: str) -> dict[str, Any]:
        tokens = self._tokens([text])
        answer = self._model(**tokens)
        if self._folder.task == "embeddings":
            return {"embedding": self._embed(answer.last_hidden_state[0], tokens["attention_mask"][0])}
        logits = answer.logits[0]
        if self._folder.problem == "regression":
            return {"value": float(logits[0])}
        chances = torch.sigmoid(logits) if self._folder.problem == "multi" else torch.softmax(logits, -1)
        return {"label": self._folder.labels[int(logits.argmax())], "probabilities": chances.numpy()}

    def _embed(self, hidden: Any, mask: Any) -> Array:
        taken = hidden[mask.bool()]
        pooled = {"mean": lambda: taken.mean(0), "cls": lambda: hidden[0], "max": lambda: taken.max(0).values}
        vector = pooled[self._folder.pooling]()
        if self._folder.normalize:
            vector = torch.nn.functional.normalize(vector, dim=0)
        return np.asarray(vector.numpy())

    def _tokens(self, texts: list[str]) -> dict[str, Any]:
        limit = self._folder.max_length
        found = self._tokenizer(
            texts, padding=len(texts) > 1, truncation=limit is not None, max_length=limit, return_tensors="pt"
        )
        return dict(found)


class _Only(torch.nn.Module):  # type: ignore[misc]
    """One output of a model, whose inputs come in order: an exporter follows no keyword and no object."""

    def __init__(self, model: Any, names: list[str], output: str) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.output = output

    def forward(self, first: Any, second: Any = None, third: Any = None) -> Any:
        tensors = (first, second, third)
        return self.model(**dict(zip(self.names, tensors, strict=False)))[self.output]


def _kind(name: str) -> Any:
    return object if name == "label" else np.float32
