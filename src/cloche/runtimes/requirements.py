"""What a Python bundle needs to be installed, checked before anything of it is started."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement

from cloche.core.errors import ConfigError, MissingExtraError


def parse_requirement(text: str) -> Requirement:
    """`torch>=2`, as pip writes it, without an address. Raises ConfigError."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise ConfigError(f"{text!r} is no requirement: {error}", hint="write name, or name>=1.2") from error
    if requirement.url:
        raise ConfigError(f"{text!r} names an address", hint="write name, or name>=1.2")
    return requirement


def check_requirements(requirements: Iterable[str]) -> None:
    """Raises MissingExtraError CL-E701 with the pip line when this interpreter lacks one of them."""
    lacking, words = [], []
    for text in requirements:
        requirement = parse_requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = None
        if version is None:
            words.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(version, prereleases=True):
            words.append(f"{requirement.name} is {version}, not {requirement.specifier}")
        else:
            continue
        requirement.marker = None
        lacking.append(str(requirement))
    if lacking:
        quoted = " ".join(f'"{name}"' for name in lacking)
        raise MissingExtraError(
            f"the model needs what this Python lacks: {'; '.join(words)}",
            code="CL-E701",
            hint=f"pip install {quoted}",
        )
