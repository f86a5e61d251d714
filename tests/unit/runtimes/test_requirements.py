"""What a bundle needs is checked against this interpreter, before anything is started."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from cloche.core.errors import ConfigError, MissingExtraError
from cloche.runtimes.requirements import check_requirements


def test_what_is_installed_passes() -> None:
    check_requirements([])
    check_requirements(["numpy", "NumPy>=1.2", f"numpy=={version('numpy')}", "msgspec>=0.1,<99"])


def test_a_requirement_for_another_platform_is_none() -> None:
    check_requirements(["no-such-package-at-all; python_version < '3'"])


def test_everything_that_lacks_is_named_with_the_line_that_installs_it() -> None:
    with pytest.raises(MissingExtraError) as caught:
        check_requirements(["numpy>=99", "msgspec", "no-such-package-at-all[fast]>=2"])

    assert caught.value.code == "CL-E701"
    assert caught.value.exit_code == 7
    assert f"numpy is {version('numpy')}, not >=99" in caught.value.message
    assert "no-such-package-at-all is not installed" in caught.value.message
    assert caught.value.hint == 'pip install "numpy>=99" "no-such-package-at-all[fast]>=2"'


@pytest.mark.parametrize("text", ["", "num py", "numpy>>1", "x @ https://example.org/x.whl", "../x"])
def test_what_is_no_requirement_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        check_requirements([text])
