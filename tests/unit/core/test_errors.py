"""Errors: each explains itself in the one shape, and each code is in the table."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from pathlib import Path

import pytest

import cloche
from cloche.core import errors
from cloche.core.codes import CODES
from cloche.core.errors import BusyError, ClocheError, InputError, NotFoundError

_CODE = re.compile(r"CL-E\d{3}")
_SOURCES = sorted(Path(cloche.__file__).parent.rglob("*.py"))

FAMILIES = {
    kind: kind.default_code[:5]
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ClocheError) and kind is not ClocheError
}


def test_an_error_is_rendered_with_code_what_where_hint_and_where_to_read() -> None:
    error = InputError(
        "feature `income` is missing from row 3",
        code="CL-E104",
        where="request body  $.rows[3]",
        hint="see the inputs with  cloche models show churn:1",
    )
    assert error.render() == (
        "error[CL-E104]: feature `income` is missing from row 3\n"
        "  --> request body  $.rows[3]\n"
        "  hint: see the inputs with  cloche models show churn:1\n"
        "  read: cloche explain CL-E104"
    )


def test_an_error_without_place_and_hint_is_rendered_without_them() -> None:
    assert NotFoundError("no").render() == "error[CL-E300]: no\n  read: cloche explain CL-E300"


def test_an_error_is_its_message() -> None:
    assert str(InputError("no such field", code="CL-E103", hint="see")) == "no such field"


def test_a_code_that_is_not_in_the_table_is_a_bug() -> None:
    with pytest.raises(ValueError, match="CL-E199"):
        InputError("x", code="CL-E199")


def test_details_can_not_be_changed_afterwards() -> None:
    details = [{"row": 1}]
    error = InputError("x", details=details)
    details.append({"row": 2})
    assert error.details == ({"row": 1},)


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_error_passes_between_processes_whole(kind: type[ClocheError]) -> None:
    error = kind("what", where="where", hint="hint", details=[{"row": 1}])
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(copied) is kind
        assert vars(copied) == vars(error)
        assert copied.render() == error.render()


def test_a_busy_error_says_when_to_come_back() -> None:
    assert BusyError("x", retry_after_s=2.5).retry_after_s == 2.5
    assert pickle.loads(pickle.dumps(BusyError("x", retry_after_s=2.5))).retry_after_s == 2.5


@pytest.mark.parametrize(("kind", "family"), FAMILIES.items())
def test_each_family_has_its_own_hundred_and_its_default_is_in_the_table(
    kind: type[ClocheError], family: str
) -> None:
    assert kind.default_code == f"{family}00"
    assert kind.default_code in CODES
    assert [other for other, its in FAMILIES.items() if its == family] == [kind]


def test_the_exit_codes_are_those_of_the_documentation() -> None:
    assert {kind.__name__: kind.exit_code for kind in (*FAMILIES, ClocheError)} == {
        "InputError": 2,
        "ConfigError": 2,
        "NotFoundError": 3,
        "RefusedError": 4,
        "ConflictError": 5,
        "BusyError": 6,
        "MissingExtraError": 7,
        "ConversionError": 1,
        "ModelError": 1,
        "ClocheError": 70,
    }


def test_every_family_is_public() -> None:
    assert {kind.__name__ for kind in (*FAMILIES, ClocheError)} <= set(cloche.__all__)


def _spoken() -> dict[str, list[str]]:
    """Code -> the modules that speak of it."""
    found: dict[str, list[str]] = {}
    for source in _SOURCES:
        if source.name != "codes.py":
            for code in _CODE.findall(source.read_text("utf-8")):
                found.setdefault(code, []).append(source.name)
    return found


def test_every_code_that_the_sources_speak_of_is_in_the_table() -> None:
    assert {code: where for code, where in _spoken().items() if code not in CODES} == {}


def _raised(source: Path) -> list[tuple[str, str, str]]:
    """(module, class of error, code) of each call in a module that makes an error with a code."""
    return [
        (source.name, call.func.id, word.value.value)
        for call in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        for word in call.keywords
        if word.arg == "code" and isinstance(word.value, ast.Constant)
    ]


def test_a_code_is_raised_by_its_own_family() -> None:
    """`ConfigError(..., code="CL-E301")` would be explained one way and exit another."""
    families = {kind.__name__: family for kind, family in FAMILIES.items()}
    found = [entry for source in _SOURCES for entry in _raised(source) if entry[1] in families]
    assert len(found) > 30
    assert [entry for entry in found if families[entry[1]] != entry[2][:5]] == []


@pytest.mark.parametrize("code", CODES)
def test_each_code_has_a_title_and_says_what_to_do(code: str) -> None:
    assert _CODE.fullmatch(code)
    title, remedy = CODES[code]
    assert title
    assert not title.endswith(".")
    assert len(title) <= 60
    assert remedy.endswith((".", "`"))


def test_the_table_is_in_order_and_its_titles_differ() -> None:
    assert list(CODES) == sorted(CODES)
    titles = [title for title, _ in CODES.values()]
    assert len(set(titles)) == len(titles)
