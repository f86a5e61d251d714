"""The command line as a whole: help, flags, exit codes, errors, and what a start may cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Cloche

import cloche as package
from cloche.cli import explain, main
from cloche.cli.commands import COMMANDS

COMMAND = str(Path(sys.executable).with_name("cloche"))


@pytest.mark.parametrize("command", [*COMMANDS, "models", "keys", ""])
def test_every_help_holds_an_example(cloche: Cloche, command: str) -> None:
    result = cloche(*command.split(), "--help")
    assert result.code == 0
    assert f"Example: cloche {command}".strip() in result.out
    assert "--json" in result.out  # the shared flags are shown as well


def test_the_example_of_every_command_is_one_that_parses() -> None:
    app = main.make_app({})
    for command, (_, _, example) in COMMANDS.items():
        words = example.split()[1:]
        _, bound, unparsed = app.parse_args(words, print_error=False, exit_on_error=False)
        assert words[: len(command.split())] == command.split()
        assert bool(bound.arguments) == (len(words) > len(command.split()))
        assert set(unparsed) == {"terminal"}


def test_version_is_the_package_s(cloche: Cloche) -> None:
    assert cloche("--version").out.strip() == package.__version__


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["modles", "ls"], "models"),
        (["keys", "sl"], "ls"),
        (["keys", "create", "a", "--expire", "1d"], "--expires"),
        (["explain"], "CODE"),
        (["alias", "a", "b", "c"], "c"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2_and_says_what_was_meant(
    cloche: Cloche, words: list[str], meant: str
) -> None:
    result = cloche(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error[CL-E200]: ")
    assert meant in result.err
    assert "--help" in result.err


def test_help_fits_a_narrow_terminal_with_further_lines_indented(
    cloche: Cloche, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = cloche("up", "--help").out.splitlines()
    assert max(map(len, lines)) <= 80
    listed = lines[lines.index("Arguments:") + 1 :]
    assert all(line.startswith((" ", "Parameters:", "For every command:")) for line in listed if line)
    start = next(number for number, line in enumerate(listed) if line.startswith("  MODEL"))
    assert [line[:6].isspace() for line in listed[start : start + 3]] == [False, True, True]
    assert len(listed[start + 1]) > 60  # filled, whatever breaks the source has


def test_a_command_of_a_group_is_helped_by_its_own_help(cloche: Cloche) -> None:
    assert "hint: cloche models show --help" in cloche("models", "show").err
    assert "hint: cloche keys --help" in cloche("keys", "sl").err


def test_flags_of_all_commands_may_stand_anywhere(cloche: Cloche) -> None:
    before = cloche("--json", "explain", "CL-E104")
    after = cloche("explain", "CL-E104", "--json")
    assert before.json == after.json
    assert before.json["kind"] == "ErrorCode"


def test_an_error_with_json_is_a_problem_object_on_stderr(cloche: Cloche) -> None:
    result = cloche("models", "show", "fraud", "--json")
    problem = json.loads(result.err)
    assert (result.code, result.out) == (3, "")
    assert problem["code"] == "CL-E301"
    assert "fraud" in problem["detail"]


def test_a_wrong_flag_with_json_is_a_problem_object_too(cloche: Cloche) -> None:
    assert json.loads(cloche("--json", "keys", "ls", "--nope").err)["code"] == "CL-E200"


def test_another_folder_is_worked_in_as_if_started_there(cloche: Cloche, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert cloche("-C", "shop", "keys", "create", "mobile").code == 0
    assert (tmp_path / "shop" / ".cloche").is_dir()
    assert not (tmp_path / ".cloche").exists()


def test_a_folder_that_is_not_there_is_exit_code_3(cloche: Cloche) -> None:
    result = cloche("-C", "nowhere", "keys", "ls")
    assert result.code == 3
    assert "nowhere" in result.err


def test_a_settings_file_can_be_named(cloche: Cloche, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('[project]\ndata = "./elsewhere"\n')
    assert cloche("--config", "other.toml", "keys", "create", "mobile").code == 0
    assert (tmp_path / "elsewhere").is_dir()


def test_reading_commands_write_nothing(cloche: Cloche, tmp_path: Path) -> None:
    for words in (["models", "ls"], ["keys", "ls"], ["models", "show", "a"], ["verify", "a"]):
        cloche(*words)
    assert list(tmp_path.iterdir()) == []


def test_a_bug_is_saved_named_and_exit_code_70(
    cloche: Cloche, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "CODES", None)
    result = cloche("explain", "CL-E104")
    reports = list((tmp_path / ".cloche" / "crash").iterdir())
    assert (result.code, result.out, len(reports)) == (70, "", 1)
    assert "error[CL-E999]" in result.err
    assert reports[0].name in result.err
    assert "Traceback" not in result.err
    assert "Traceback" in reports[0].read_text()


def test_a_bug_shows_its_traceback_on_request(cloche: Cloche, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "CODES", None)
    monkeypatch.setenv("CLOCHE_DEBUG", "1")
    assert "Traceback" in cloche("explain", "CL-E104").err


def test_an_error_shows_its_traceback_on_request_only(cloche: Cloche, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in cloche("models", "show", "a").err
    monkeypatch.setenv("CLOCHE_DEBUG", "1")
    assert "Traceback" in cloche("models", "show", "a").err


def test_more_words_show_more_of_an_error(cloche: Cloche, tmp_path: Path) -> None:
    (tmp_path / "cloche.toml").write_text("[serve]\nprot = 1\n")
    plain, more, most = (cloche("models", "ls", *flags) for flags in ([], ["-v"], ["-vv"]))
    assert plain.code == more.code == most.code == 2
    assert more.err.startswith(plain.err)
    assert "\n  - " in more.err.removeprefix(plain.err.rstrip("\n"))
    assert "Traceback" not in more.err
    assert "Traceback" in most.err


def test_a_reader_that_heard_enough_is_no_error(tmp_path: Path) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    command = [COMMAND, "explain", "CL-E104"]
    done = subprocess.run(command, cwd=tmp_path, stdout=writable, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writable)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "never"),
    [
        ("explain CL-E104", ("numpy", "sqlalchemy", "httpx2", "rich", "onnxruntime")),
        ("keys ls", ("onnxruntime", "sklearn", "skl2onnx", "uvicorn", "pandas", "httpx2")),
        ("models ls", ("onnxruntime", "sklearn", "skl2onnx", "uvicorn", "pandas", "httpx2")),
        ("verify nothing", ("onnxruntime", "sklearn", "skl2onnx", "uvicorn", "pandas", "httpx2")),
        ("alias a b", ("onnxruntime", "sklearn", "skl2onnx", "uvicorn", "pandas", "httpx2")),
    ],
)
def test_a_command_imports_its_room_and_no_more(tmp_path: Path, command: str, never: tuple[str, ...]) -> None:
    script = (
        "import sys\n"
        f"sys.argv = {['cloche', *command.split()]!r}\n"
        "from cloche.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {never!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_start_costs_at_most_twice_the_import_of_the_cli_library(tmp_path: Path) -> None:
    library = [sys.executable, "-c", "import cyclopts"]
    ours = [COMMAND, "explain", "CL-E104"]
    # The quickest of several, in turns: the machine is shared, and only ever slows a run down.
    times: dict[str, float] = {}
    for _ in range(7):
        for name, command in (("library", library), ("ours", ours)):
            times[name] = min(times.get(name, 99.0), _cpu_seconds(command, tmp_path))
    assert times["ours"] <= 2 * times["library"], times


def _cpu_seconds(command: list[str], folder: Path) -> float:
    before = os.times()
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    after = os.times()
    return (after.children_user - before.children_user) + (after.children_system - before.children_system)


def test_import_cloche_loads_the_standard_library_only() -> None:
    script = (
        "import sys; before = set(sys.modules); import cloche; new = set(sys.modules) - before; "
        "print([n for n in new if n.split('.')[0] not in sys.stdlib_module_names | {'cloche'}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
