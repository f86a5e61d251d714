"""The public surface is one page: these names and no others."""

from __future__ import annotations

import inspect

import pytest

import cloche
from cloche.core.errors import ClocheError

PUBLIC = [
    "AsyncClient",
    "Bundle",
    "BusyError",
    "Client",
    "ClocheError",
    "ConfigError",
    "ConflictError",
    "ConversionError",
    "InputError",
    "Loaded",
    "MissingExtraError",
    "ModelError",
    "NotFoundError",
    "RefusedError",
    "alias",
    "asgi",
    "load",
    "pack",
]


def test_these_are_the_public_names() -> None:
    assert sorted(cloche.__all__) == sorted(PUBLIC)
    assert set(dir(cloche)) == {*PUBLIC, "__version__"}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    assert inspect.getdoc(getattr(cloche, name))


@pytest.mark.parametrize("name", ["pack", "load", "alias"])
def test_calls_take_at_most_three_arguments_by_position(name: str) -> None:
    kinds = [parameter.kind for parameter in inspect.signature(getattr(cloche, name)).parameters.values()]
    assert kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) <= 3
    assert inspect.Parameter.VAR_KEYWORD not in kinds


def test_every_error_can_be_caught_by_its_public_class() -> None:
    assert {kind.__name__ for kind in ClocheError.__subclasses__()} <= set(PUBLIC)


def test_what_is_not_public_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cloche.nothing  # noqa: B018
