"""A plain Python class is packed with its file; names and types come from `predict`, else from the rows."""

from __future__ import annotations

import importlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cloche.bundle.converters.base import PROOF_ROWS, Converted, ConvertOptions
from cloche.bundle.converters.python import PythonConverter, _answer_within
from cloche.core.errors import (
    ClocheError,
    ConfigError,
    ConversionError,
    MissingExtraError,
    NotFoundError,
)
from cloche.core.signature import Field, count_rows
from cloche.runtimes.base import RuntimePlace, load_runtime
from cloche.runtimes.files import Held
from cloche.runtimes.model_class import ModelClass

Write = Callable[..., Any]

HEAD = """
from __future__ import annotations
import dataclasses
from pathlib import Path
from typing import *
import numpy as np
import numpy.typing as npt
"""
LOAD = "    def load(self) -> None: ...\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module with a class `Model`, imports it, and gives the class."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def make(predict: str, *, load: str = LOAD, before_class: str = "", module: str = "packed_model") -> type:
        body = "".join(f"    {line}\n" for line in predict.strip().splitlines())
        (tmp_path / f"{module}.py").write_text(f"{HEAD}{before_class}\nclass Model:\n{load}{body}")
        importlib.invalidate_caches()
        imported: ModuleType = importlib.import_module(module)
        found: type = imported.Model
        return found

    yield make
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def convert(model: object, rows: object | None = None, **options: Any) -> Converted:
    return PythonConverter().convert(model, rows, ConvertOptions(**options))


def shapes(fields: tuple[Field, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {field.name: (field.datatype, field.shape) for field in fields}


def test_annotations_are_the_signature_without_any_rows(write: Write) -> None:
    model = write(
        "def predict(self, text: list[str], age: list[int], score: list[float | None], is_new: list[bool])"
        " -> list[float]:\n    raise RuntimeError('never called without rows')"
    )

    converted = convert(model)

    assert shapes(converted.signature.inputs) == {
        "text": ("BYTES", (-1,)),
        "age": ("INT64", (-1,)),
        "score": ("FP64", (-1,)),
        "is_new": ("BOOL", (-1,)),
    }
    assert [field.missing for field in converted.signature.inputs] == [False, False, True, False]
    assert shapes(converted.signature.outputs) == {"value": ("FP64", (-1,))}
    assert converted.columns is None
    assert converted.reference is None


def test_only_the_file_of_the_class_travels(write: Write, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("no")
    model = write("def predict(self, text: list[str]) -> list[int]:\n    return [len(t) for t in text]")

    converted = convert(model, ["a", "bb"])

    assert list(converted.files) == ["code/packed_model.py"]
    assert converted.files["code/packed_model.py"] == (tmp_path / "packed_model.py").read_bytes()
    assert converted.runtime.kind == "python"
    assert converted.runtime.entry == "code/packed_model.py:Model"
    assert converted.runtime.files == ("code/packed_model.py",)
    assert converted.description == "Model"
    assert converted.original_bytes == (tmp_path / "packed_model.py").stat().st_size
    assert converted.original_row_s is not None


def test_the_reference_is_what_the_class_answers_here_and_a_host_answers_the_same(
    write: Write, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.txt").write_text("2.5")
    (tmp_path / "words_beside.py").write_text("FACTOR = 2")
    model = write(
        "def predict(self, text: list[str], n: npt.NDArray[np.int64]) -> list[Score]:\n"
        "    return [Score(label=t.upper(), score=self.w * len(t) + FACTOR * int(k)) for t, k in zip(text, n)]",
        load="    def load(self):\n"
        "        self.w = float((Path(__file__).parent / 'weights' / 'w.txt').read_text())\n",
        before_class="from words_beside import FACTOR\n"
        "@dataclasses.dataclass\nclass Score:\n    label: str\n    score: float\n",
    )
    rows = pd.DataFrame({"n": [1, 2, 3], "text": ["a", "bb", "ccc"]})

    converted = convert(model, rows, code=("words_beside.py", "weights/w.txt"))

    assert shapes(converted.signature.inputs) == {"text": ("BYTES", (-1,)), "n": ("INT64", (-1,))}
    assert shapes(converted.signature.outputs) == {"label": ("BYTES", (-1,)), "score": ("FP64", (-1,))}
    assert converted.reference is not None
    assert converted.columns is not None
    assert converted.reference["score"].tolist() == [4.5, 9.0, 13.5]
    assert sorted(converted.files) == ["code/packed_model.py", "code/weights/w.txt", "code/words_beside.py"]
    place = RuntimePlace(digest="d" * 64)
    runtime = load_runtime(converted.runtime, converted.signature, Held(converted.files), place)
    try:
        answers = runtime.run(converted.columns)
    finally:
        runtime.close()
    assert {name: column.tolist() for name, column in answers.items()} == {
        "label": ["A", "BB", "CCC"],
        "score": [4.5, 9.0, 13.5],
    }


def test_a_file_that_was_not_listed_is_named_when_the_host_can_not_load(write: Write, tmp_path: Path) -> None:
    (tmp_path / "not_listed.py").write_text("WORD = 'x'")
    model = write(
        "def predict(self, text: list[str]) -> list[str]:\n    return [WORD for _ in text]",
        before_class="from not_listed import WORD\n",
    )
    converted = convert(model)

    with pytest.raises(MissingExtraError, match="'not_listed'") as caught:
        load_runtime(
            converted.runtime,
            converted.signature,
            Held(converted.files),
            RuntimePlace(digest="d" * 64),
        )
    assert 'code=[..., "not_listed.py"]' in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("returns", "answer", "outputs"),
    [
        ("list[str]", "['x' for _ in text]", {"value": ("BYTES", (-1,))}),
        ("list[bool]", "[True for _ in text]", {"value": ("BOOL", (-1,))}),
        ("list[float]", "[1 for _ in text]", {"value": ("FP64", (-1,))}),
        ("list[list[float]]", "[[1.0, 2.0] for _ in text]", {"value": ("FP64", (-1, 2))}),
        ("np.ndarray", "np.zeros((len(text), 3), dtype=np.float32)", {"value": ("FP32", (-1, 3))}),
        ("Any", "np.zeros(len(text), dtype=np.int32)", {"value": ("INT32", (-1,))}),
        (
            "dict[str, list[float]]",
            "{'a': [1.0] * len(text), 'b': [2.0] * len(text)}",
            {"a": ("FP64", (-1,)), "b": ("FP64", (-1,))},
        ),
        ("list[Row]", "[{'a': 'x', 'b': 1} for _ in text]", {"a": ("BYTES", (-1,)), "b": ("INT64", (-1,))}),
        ("list[dict]", "[{'a': 'x', 'b': 1} for _ in text]", {"a": ("BYTES", (-1,)), "b": ("INT64", (-1,))}),
        (
            "Columns",
            "{'a': ['x'] * len(text), 'b': [[1.0]] * len(text)}",
            {"a": ("BYTES", (-1,)), "b": ("FP64", (-1, 1))},
        ),
        ("list[Pair]", "[Pair('x', [1.0, 2.0]) for _ in text]", {"a": ("BYTES", (-1,)), "b": ("FP64", (-1, 2))}),
    ],
)
@pytest.mark.parametrize("with_rows", [True, False])
def test_outputs_are_named_and_typed_by_the_annotation_else_by_what_comes_back(
    write: Write, returns: str, answer: str, outputs: dict[str, Any], with_rows: bool
) -> None:
    model = write(
        f"def predict(self, text: list[str]) -> {returns}:\n    return {answer}",
        before_class="class Row(TypedDict):\n    a: str\n    b: int\n"
        "class Columns(TypedDict):\n    a: list[str]\n    b: list[list[float]]\n"
        "class Pair(NamedTuple):\n    a: str\n    b: list[float]\n",
    )

    found = shapes(convert(model, ["u", "v"] if with_rows else None).signature.outputs)

    assert found.keys() == outputs.keys()
    for name, (kind, shape) in outputs.items():
        assert found[name][0] == kind
        # without rows, an axis that only they could tell is any
        assert found[name][1] in ((shape,) if with_rows else (shape, (-1,) * len(shape)))


def test_an_alias_stands_for_what_it_names(write: Write) -> None:
    pytest.importorskip("typing_extensions")
    model = write(
        "def predict(self, text: Texts, n: Numbers[np.int64], p: list[Word]) -> Answer:\n"
        "    assert isinstance(text, list) and isinstance(n, np.ndarray)\n"
        "    return [{'a': t} for t in text]",
        before_class="from typing_extensions import TypeAliasType\n"
        "T = TypeVar('T', bound=np.generic)\n"
        "Word = TypeAliasType('Word', str)\n"
        "Texts = TypeAliasType('Texts', list[Word])\n"
        "Numbers = TypeAliasType('Numbers', np.ndarray[Any, np.dtype[T]], type_params=(T,))\n"
        "class Row(TypedDict):\n    a: Word\n"
        "Answer = TypeAliasType('Answer', list[Row])\n",
    )

    signature = convert(model, {"text": ["u"], "n": [1], "p": ["v"]}).signature

    assert shapes(signature.inputs) == {"text": ("BYTES", (-1,)), "n": ("INT64", (-1,)), "p": ("BYTES", (-1,))}
    assert shapes(signature.outputs) == {"a": ("BYTES", (-1,))}


@pytest.mark.parametrize(
    ("parameters", "rows", "inputs"),
    [
        ("x", np.zeros((3, 4)), {"x": ("FP64", (-1, 4))}),
        ("features", np.zeros((3, 4), dtype=np.float32), {"features": ("FP32", (-1, 4))}),
        ("features: list[list[float]]", np.zeros((3, 4), dtype=np.float32), {"features": ("FP64", (-1, 4))}),
        ("a, b", {"b": [1, 2, 3], "a": ["x", "y", "z"]}, {"a": ("BYTES", (-1,)), "b": ("INT64", (-1,))}),
        ("a: list[float], b", [{"a": 1, "b": True}] * 3, {"a": ("FP64", (-1,)), "b": ("BOOL", (-1,))}),
        ("text", pd.Series(["x", "y", "z"]), {"text": ("BYTES", (-1,))}),
        ("text: list[str]", ("x", None, "z"), {"text": ("BYTES", (-1,))}),
        ("n: Sequence[int]", range(3), {"n": ("INT64", (-1,))}),
        ("a, scale=2", {"a": [1, 2, 3]}, {"a": ("INT64", (-1,))}),
        ("a, b=None", {"a": [1, 2, 3], "b": [1.0, 2.0, 3.0]}, {"a": ("INT64", (-1,)), "b": ("FP64", (-1,))}),
    ],
)
def test_parameters_are_the_columns(write: Write, parameters: str, rows: Any, inputs: Any) -> None:
    first = re.split(r"[:,=]", parameters)[0]
    model = write(f"def predict(self, {parameters}) -> list[float]:\n    return [1.0 for _ in {first}]")

    converted = convert(model, rows)

    assert shapes(converted.signature.inputs) == inputs
    assert converted.columns is not None
    assert count_rows(converted.columns) == 3


def test_classes_are_read_from_labels_and_probabilities(write: Write) -> None:
    model = write(
        "def predict(self, n: list[int]) -> dict[str, Any]:\n"
        "    return {'label': ['no' if k % 2 else 'yes' for k in n],\n"
        "            'probabilities': [[0.9, 0.1] if k % 2 == 0 else [0.2, 0.8] for k in n]}"
    )

    converted = convert(model, list(range(10)))

    assert converted.task == "classification"
    assert [field.classes for field in converted.signature.outputs] == [("yes", "no"), ("yes", "no")]


def test_classes_that_the_probabilities_contradict_are_left_out(write: Write) -> None:
    model = write(
        "def predict(self, n: list[int]) -> dict[str, Any]:\n"
        "    return {'label': ['no' if k % 2 else 'yes' for k in n],\n"
        "            'probabilities': [[0.9, 0.1] for k in n]}"
    )

    assert [field.classes for field in convert(model, list(range(10))).signature.outputs] == [None, None]


@pytest.mark.parametrize(
    ("returns", "task"),
    [("list[float]", "regression"), ("list[str]", "other"), ("list[list[float]]", "other")],
)
def test_one_number_a_row_is_a_regression(write: Write, returns: str, task: str) -> None:
    model = write(f"def predict(self, text: list[str]) -> {returns}:\n    return text")

    assert convert(model).task == task


def test_no_more_rows_than_the_proof_needs_are_run(write: Write) -> None:
    model = write("def predict(self, n: list[int]) -> list[int]:\n    assert len(n) <= 2000\n    return n")

    converted = convert(model, list(range(PROOF_ROWS + 500)))

    assert converted.columns is not None
    assert converted.reference is not None
    assert count_rows(converted.columns) == PROOF_ROWS + 500
    assert count_rows(converted.reference) == PROOF_ROWS


@pytest.mark.parametrize(
    ("predict", "rows", "error", "words"),
    [
        ("def predict(self, text: str) -> list[str]: ...", None, ConfigError, "annotated str"),
        ("def predict(self, text: list[bytes]) -> list[str]: ...", None, ConfigError, "annotated bytes"),
        (
            "def predict(self, text: list[str]) -> str: ...",
            None,
            ConfigError,
            "the answer of Model.predict is annotated str",
        ),
        ("def predict(self, text: list[str]) -> None: ...", None, ConfigError, "annotated NoneType"),
        (
            "def predict(self, n: list[int | None]) -> list[int]: ...",
            None,
            ConfigError,
            "INT64 has no place for None",
        ),
        ("def predict(self, n: list[int]) -> list[Optional[bool]]: ...", None, ConfigError, "BOOL has no place"),
        ("def predict(self, text): ...", None, ConfigError, "the type of text of Model.predict is not known"),
        (
            "def predict(self, x: np.ndarray): ...",
            None,
            ConfigError,
            "the type of x of Model.predict is not known",
        ),
        (
            "def predict(self, text: list[int]) -> list[int]: ...",
            ["a"],
            ConfigError,
            "annotated as INT64, and the rows hold BYTES",
        ),
        (
            "def predict(self, n: list[int]) -> list[int]: ...",
            [1.5],
            ConfigError,
            "annotated as INT64, and the rows hold FP64",
        ),
        (
            "def predict(self, n: list[float]) -> list[int]: ...",
            np.zeros((2, 2)),
            ConfigError,
            "annotated with 1 axes, the rows have 2",
        ),
        ("def predict(self, a, b): ...", {"a": [1], "c": [2]}, ConfigError, "takes a, b; the rows have a, c"),
        ("def predict(self, a, b): ...", np.zeros((2, 2)), ConfigError, "takes a, b; the rows have x"),
        (
            "def predict(self, a: list[int]) -> list[int]:\n    return a[:1]",
            [1, 2],
            ConversionError,
            "got 2 rows and gave 1",
        ),
        (
            "def predict(self, a: list[int]) -> list[int]:\n    return ['x' for _ in a]",
            [1, 2],
            ConversionError,
            "not as INT64",
        ),
        (
            "def predict(self, a: list[int]) -> list[int]:\n    raise KeyError('oh')",
            [1, 2],
            ConversionError,
            "failed on the rows: KeyError: 'oh'",
        ),
        (
            "def predict(self, a: list[int]) -> list[int]:\n    1 / (len(a) - 1)\n    return a",
            [1, 2],
            ConversionError,
            "row 0 alone",
        ),
        (
            "def predict(self, a: list[int]):\n    raise KeyError('oh')",
            None,
            ConversionError,
            "rows drawn at random: KeyError",
        ),
    ],
)
def test_what_can_not_be_served_is_refused_with_its_reason(
    write: Write, predict: str, rows: Any, error: type[ClocheError], words: str
) -> None:
    model = write(predict)

    with pytest.raises(error) as caught:
        convert(model, rows)
    assert words in caught.value.message


def test_a_class_that_does_not_load_is_refused(write: Write) -> None:
    model = write(
        "def predict(self, a: list[int]) -> list[int]: ...",
        load="    def load(self):\n        open('no-such-file')\n",
    )

    with pytest.raises(ConversionError, match="did not load here: FileNotFoundError") as caught:
        convert(model)
    assert "Path(__file__)" in (caught.value.hint or "")


def test_an_object_in_place_of_its_class_is_refused_with_the_class(write: Write) -> None:
    model = write("def predict(self, a: list[int]) -> list[int]: ...")

    assert PythonConverter().accepts(model())
    with pytest.raises(ConfigError, match="a class is packed") as caught:
        convert(model())
    assert "cloche.pack(Model, ...)" in (caught.value.hint or "")


def test_a_class_of_a_notebook_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("class Model:\n  def load(self): ...\n  def predict(self, a: list[int]) -> list[int]: ...", namespace)
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))

    with pytest.raises(ConfigError, match="defined in no file") as caught:
        convert(namespace["Model"])
    assert "%%writefile" in (caught.value.hint or "")


def test_a_class_inside_a_function_is_refused() -> None:
    class Model:
        def load(self) -> None: ...

        def predict(self, a: list[int]) -> list[int]:
            return a

    with pytest.raises(ConfigError, match="defined inside something else"):
        convert(Model)


def test_a_path_names_a_file_and_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "by_path_model.py"
    file.write_text(
        "class Model:\n  def load(self): ...\n  def predict(self, a: list[int]) -> list[int]:\n    return a\n"
    )
    converter = PythonConverter()

    for model in (Path(f"{file}:Model"), f"{file}:Model"):
        assert converter.accepts(model)
        assert convert(model, [1, 2]).runtime.entry == "code/by_path_model.py:Model"
    assert not converter.accepts(file)
    with pytest.raises(ConfigError, match="holds no class 'Other'"):
        convert(f"{file}:Other")
    with pytest.raises(NotFoundError):
        convert(f"{tmp_path}/none.py:Model")
    file.write_text("class Model(:\n")
    del sys.modules["by_path_model"]
    with pytest.raises(ConfigError, match="can't be imported: SyntaxError"):
        convert(f"{file}:Model")


def test_a_class_in_a_package_brings_the_packages_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    package = tmp_path / "shop_models" / "text"
    package.mkdir(parents=True)
    (tmp_path / "shop_models" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "words.py").write_text("WORD = 'x'")
    (package / "model.py").write_text(
        "from .words import WORD\nclass Model:\n  def load(self): ...\n"
        "  def predict(self, a: list[int]) -> list[str]:\n    return [WORD for _ in a]\n"
    )

    converted = convert(f"{package / 'model.py'}:Model", [1], code=("words.py",))

    assert converted.runtime.entry == "code/shop_models/text/model.py:Model"
    assert sorted(converted.files) == [
        "code/shop_models/__init__.py",
        "code/shop_models/text/__init__.py",
        "code/shop_models/text/model.py",
        "code/shop_models/text/words.py",
    ]
    for name in [name for name in sys.modules if name.startswith("shop_models")]:
        del sys.modules[name]


def test_listed_files_must_be_there_and_beside_the_class(write: Write, tmp_path: Path) -> None:
    model = write("def predict(self, a: list[int]) -> list[int]: ...")
    (tmp_path / "folder").mkdir()

    with pytest.raises(NotFoundError, match=r"code lists none\.bin"):
        convert(model, code=("none.bin",))
    with pytest.raises(ConfigError, match="code lists folder, which is no file"):
        convert(model, code=("folder",))
    with pytest.raises(ConfigError, match="which is not below"):
        convert(model, code=(sys.executable,))


def test_a_requirement_that_is_not_installed_is_an_error_before_anything_runs(write: Write) -> None:
    model = write("def predict(self, a: list[int]) -> list[int]:\n    raise RuntimeError")

    with pytest.raises(MissingExtraError, match="no-such-package-at-all is not installed"):
        convert(model, [1], requirements=("no-such-package-at-all>=2",))
    with pytest.raises(ConfigError, match="is no requirement"):
        convert(model, requirements=("a b c",))
    assert convert(model, requirements=("numpy>=1",)).requirements == ("numpy>=1",)


@pytest.mark.parametrize("model", [3, "fraud", Path("model.onnx"), object(), [], None])
def test_other_models_are_left_to_other_converters(model: object) -> None:
    assert not PythonConverter().accepts(model)


def test_a_slow_class_is_proven_on_fewer_rows_and_a_fast_one_on_all() -> None:
    loaded = ModelClass(Slow)
    rows = {"a": np.arange(400)}
    assert len(_answer_within(loaded, rows, "the rows")["value"]) == 400
    found = len(_answer_within(loaded, rows, "the rows", budget_s=0.1)["value"])
    assert 64 <= found < 150


class Slow:
    def load(self) -> None: ...

    def predict(self, a: list[int]) -> list[int]:
        time.sleep(0.001 * len(a))
        return a
