"""What a Hugging Face folder says of its model: the task, labels, pooling, and how texts are cut into tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
from tokenizers import Tokenizer

from cloche.core.errors import ConfigError, ConversionError

Task = Literal["text-classification", "embeddings"]
TASKS: dict[str, Task] = {
    "text-classification": "text-classification",
    "classification": "text-classification",
    "embeddings": "embeddings",
    "feature-extraction": "embeddings",
}
#: Their positions begin behind the padding's.
_SHIFTED = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"})
#: transformers writes a number of this size for "no limit".
_NO_LIMIT = 10**6


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """A Folder is what stands in a model's folder, read."""

    path: Path
    #: Where weights and config.json are: the folder, or for sentence-transformers a folder in it.
    inner: Path
    config: dict[str, Any]
    tokenizer_config: dict[str, Any]
    task: Task
    #: "single", "multi" or "regression"; for classifiers.
    problem: str = "single"
    labels: tuple[str, ...] = ()
    #: "mean", "cls" or "max", for embeddings.
    pooling: str = "mean"
    #: An embedding has the length 1.
    normalize: bool = False
    max_length: int | None = None


def read_folder(path: Path, task: str | None) -> Folder:
    """Raises ConfigError for a task that is not known or not the folder's, ConversionError CL-E802."""
    modules = _read(path / "modules.json") or []
    inner = path / (modules[0].get("path") or "") if modules else path
    config = _read(inner / "config.json") or {}
    tokenizer_config = _read(inner / "tokenizer_config.json") or _read(path / "tokenizer_config.json") or {}
    found = _choose_task(path, config, bool(modules), task)
    folder = Folder(
        path=path,
        inner=inner,
        config=config,
        tokenizer_config=tokenizer_config,
        task=found,
        max_length=_max_length(path, inner, config, tokenizer_config),
    )
    if found == "embeddings":
        pooling, normalize = _read_modules(path, modules)
        return msgspec.structs.replace(folder, pooling=pooling, normalize=normalize)
    labels = _labels(path, config)
    return msgspec.structs.replace(folder, labels=labels, problem=_problem(config, len(labels)))


def refuse(message: str, hint: str = "pack a Python class with `load` and `predict` instead") -> ConversionError:
    return ConversionError(message, code="CL-E802", hint=hint)


def _read(path: Path) -> Any:
    """What a JSON file holds; None where there is none."""
    try:
        return msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"{path.name} can't be read: {error}", code="CL-E206", hint="save the model again"
        ) from None


def _choose_task(path: Path, config: dict[str, Any], has_modules: bool, task: str | None) -> Task:
    if task is not None and task not in TASKS:
        raise ConfigError(
            f"no task is called {task!r}", code="CL-E201", hint="it is text-classification or embeddings"
        )
    architecture = next(iter(config.get("architectures") or []), "")
    classifies = architecture.endswith("ForSequenceClassification")
    if task is None:
        if not (classifies or has_modules):
            raise ConfigError(
                f"{path.name} does not say what it is for ({architecture or 'no architecture'})",
                code="CL-E201",
                hint='say task="text-classification" or task="embeddings" (--task)',
            )
        return "text-classification" if classifies else "embeddings"
    wanted = TASKS[task]
    if wanted == "text-classification" and architecture and not classifies:
        raise refuse(
            f"{architecture} has no trained head for classification",
            "fine-tune a …ForSequenceClassification and save that",
        )
    return wanted


def _labels(path: Path, config: dict[str, Any]) -> tuple[str, ...]:
    names = config.get("id2label")
    if not isinstance(names, dict) or not names:
        count = config.get("num_labels")
        if isinstance(count, int):
            return tuple(f"LABEL_{number}" for number in range(count))
        # what transformers assumes where nothing is said, and does not write down
        if config.get("architectures"):
            return ("LABEL_0", "LABEL_1")
        raise refuse(f"{path.name} names no labels", "give its config.json with id2label")
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _problem(config: dict[str, Any], labels: int) -> str:
    said = config.get("problem_type")
    if said == "regression":
        if labels != 1:
            raise refuse(f"a regression with {labels} outputs is not converted")
        return "regression"
    return "multi" if said == "multi_label_classification" or labels == 1 else "single"


def _read_modules(path: Path, modules: list[dict[str, Any]]) -> tuple[str, bool]:
    """How sentence-transformers pools, and whether it normalises; without its files the plain mean."""
    pooling, normalize = "mean", False
    for module in modules[1:]:
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            pooling = _pooling(_read(path / str(module.get("path", "")) / "config.json") or {})
        elif kind == "Normalize":
            normalize = True
        else:
            raise refuse(f"the module {kind} of sentence-transformers is not converted")
    prompts = _read(path / "config_sentence_transformers.json") or {}
    if prompts.get("default_prompt_name"):
        raise refuse("a default prompt before each text is not converted")
    return pooling, normalize


def _pooling(config: dict[str, Any]) -> str:
    said = config.get("pooling_mode")
    kinds = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
    if isinstance(said, str):
        modes = [said]
    else:
        inverse = {f"pooling_mode_{tail}": name for name, tail in kinds.items()}
        modes = [
            inverse.get(key, key)
            for key, value in config.items()
            if key.startswith("pooling_mode_") and value is True
        ]
    if len(modes) != 1 or modes[0] not in kinds:
        raise refuse(f"pooling by {' and '.join(modes) or 'nothing'} is not converted")
    return modes[0]


def _max_length(path: Path, inner: Path, config: dict[str, Any], tokenizer_config: dict[str, Any]) -> int | None:
    limits = [tokenizer_config.get("model_max_length")]
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int):
        limits.append(positions - 2 * (config.get("model_type") in _SHIFTED))
    for place in (path, inner):
        limits.append((_read(place / "sentence_bert_config.json") or {}).get("max_seq_length"))
    known = [int(limit) for limit in limits if isinstance(limit, (int, float)) and 0 < limit < _NO_LIMIT]
    return min(known, default=None)


def read_tokenizer(folder: Folder) -> Tokenizer:
    """The folder's tokenizer, which truncates to the model's limit and knows its padding.

    Raises ConversionError.
    """
    file = next((each for each in (folder.inner, folder.path) if (each / "tokenizer.json").is_file()), None)
    if file is None:
        raise refuse(
            f"{folder.path.name} has no tokenizer.json",
            "write one: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        )
    try:
        tokenizer = Tokenizer.from_file(str(file / "tokenizer.json"))
    except Exception as error:  # the library raises nothing narrower
        raise refuse(f"tokenizers can't read tokenizer.json: {error}", "save the tokenizer again") from error
    said = folder.tokenizer_config
    if folder.max_length is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(folder.max_length, direction=said.get("truncation_side", "right"))
    token = said.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    pad_id = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if pad_id is None:
        pad_id = folder.config.get("pad_token_id")
    if pad_id is None and (given := tokenizer.padding) is not None:
        pad_id = given["pad_id"]
    tokenizer.enable_padding(
        direction=said.get("padding_side", "right"),
        pad_id=pad_id or 0,
        pad_type_id=said.get("pad_token_type_id", 0),
        pad_token=tokenizer.id_to_token(pad_id or 0) or "[PAD]",
    )
    return tokenizer
