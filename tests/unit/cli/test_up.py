"""`cloche up`, as far as the command line has a part in it; `tests/journeys` serve for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest
from tests.unit.cli.conftest import Cloche

from cloche.app.project import Project
from cloche.cli import up


def test_nothing_to_serve_is_said(cloche: Cloche) -> None:
    result = cloche("up")
    assert result.code == 2
    assert "cloche up fraud@champion" in result.err


def test_a_model_that_is_not_there_is_exit_code_3(cloche: Cloche) -> None:
    assert cloche("up", "fraud").code == 3
    assert cloche("up", "./fraud.onnx").code == 3


@pytest.mark.parametrize("words", [["--port", "70000"], ["--workers", "0"], ["--port", "http"], ["--host", "~"]])
def test_a_flag_that_can_not_be_is_exit_code_2(cloche: Cloche, words: list[str]) -> None:
    result = cloche("up", "fraud", *words)
    assert result.code == 2
    assert words[0].removeprefix("--") in result.err.lower()


def test_flags_go_before_the_file(cloche: Cloche, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cloche.toml").write_text('[serve]\nport = 9001\nworkers = 3\nhost = "::1"\n')
    seen: dict[str, Any] = {}

    def serve(project: Project, model: str | None, **options: Any) -> NoReturn:
        seen.update(settings=project.settings.serve, model=model, **options)
        raise SystemExit(0)

    monkeypatch.setattr(up, "serve", serve)
    cloche("up", "fraud:2", "--port", "9002", "--allow-code", "--i-terminate-tls-elsewhere", "--json")
    assert (seen["settings"].port, seen["settings"].workers, seen["settings"].host) == (9002, 3, "::1")
    assert seen["settings"].allow_code is True
    assert (seen["model"], seen["tls_elsewhere"], seen["as_json"]) == ("fraud:2", True, True)
