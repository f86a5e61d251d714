"""What a class prints while it is packed is shown when packing fails, and only its end."""

from __future__ import annotations

import os
import sys

import pytest

from cloche.bundle.hush import hush, kept_aside


def test_prints_are_shown_only_on_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with hush():
        print("hello")
        print("oh", file=sys.stderr)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ValueError, match="bad"), hush():
        for number in range(10_000):
            print("call", number)
        raise ValueError("bad")
    out, err = capsys.readouterr()
    assert out == "" and "call 9999" in err and "call 9000\n" not in err


def test_a_child_s_output_is_shown_only_on_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with kept_aside() as output:
        os.write(output, b"hello\n")
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="bad"), kept_aside() as output:
        os.write(output, b"last words\n")
        raise ValueError("bad")
    assert "last words" in capsys.readouterr().err
