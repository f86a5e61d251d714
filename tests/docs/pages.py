"""The reference pages that are made from the code: `python -m tests.docs.pages` writes them, a test compares."""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

import cloche
from cloche.cli.commands import COMMANDS
from cloche.cli.main import make_app
from cloche.core.codes import CODES
from cloche.core.errors import ClocheError
from cloche.monitoring.exposition import COUNTERS, GAUGES, HISTOGRAMS
from cloche.serving.problems import status_of

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
_NOTE = "<!-- Made from the code by `make docs`; a test compares. -->\n"
_SHARED = "For every command:"
_FAMILIES = {
    "1": "A caller's values or body are wrong",
    "2": "Settings, flags or an API call are wrong",
    "3": "It is not there",
    "4": "Refused: a policy or a permission says no",
    "5": "Held by something else, or there already",
    "6": "Busy, late, not ready or out of reach",
    "7": "Something optional is missing",
    "8": "The model can't be packed exactly",
    "9": "The model failed, or Cloche did",
}


def cli_page() -> str:
    """docs/reference/cli.md: each command with its own help."""
    shared = _help().partition(_SHARED)[2]
    parts = [
        _NOTE,
        "# Command line\n",
        "`stdout` is the answer, `stderr` is everything else. Piped output has no colour; columns are aligned by "
        "blanks, one row a line. With `--json` the answer is one object "
        '(`{"kind": …, "version": 1, …}`) and an error is a problem object with the members of '
        "[HTTP problems](http.md#errors). References are `fraud` (the highest version), `fraud:3` and "
        "`fraud@champion`; sizes, times and rates are written with units: `64MB`, `90d`, `100/s`.\n",
        "## Flags of every command\n",
        f"```text\n{_trimmed(shared)}\n```\n",
        "`--help` (`-h`) and `--version` stand everywhere as well. `NO_COLOR` and `CLICOLOR_FORCE` are obeyed. "
        "`CLOCHE_DEBUG=1` shows tracebacks, which otherwise go to the `crash` folder of the data folder.\n",
        "## Exit codes\n",
        "| code | meaning |",
        "|---|---|",
        "| 0 | done, and the answer is fine |",
        "| 1 | done, and the answer is not: the model can't be packed exactly, or it failed |",
        "| 2 | you asked wrongly: flags, settings, rows |",
        "| 3 | it is not there |",
        "| 4 | refused by a policy or a permission |",
        "| 5 | held by something else, or there already |",
        "| 6 | out of reach, or not in time |",
        "| 7 | an extra or a tool is missing |",
        "| 70 | a bug in Cloche; its report is saved and its path printed |",
        "| 130, 143 | Ctrl-C, SIGTERM, after a clean stop |\n",
    ]
    for command in COMMANDS:
        text = _help(*command.split()).partition(_SHARED)[0]
        text = re.sub(r"^\s*--(help|version).*\n", "", text, flags=re.MULTILINE)
        parts.append(f"## cloche {command}\n\n```text\n{_trimmed(text)}\n```\n")
    return "\n".join(parts)


def errors_page() -> str:
    """docs/reference/errors.md: each code with its class, exit code, HTTP status, meaning and remedy."""
    parts = [
        _NOTE,
        "# Errors\n",
        "Every error has a code, says what happened and where, and what to do next, in one shape on the command "
        "line, in Python (`error.code`, `.message`, `.where`, `.hint`, `.details`) and over HTTP "
        "([problems](http.md#errors)). `cloche explain CODE` prints what stands here.\n",
        "```text\n"
        "error[CL-E301]: there is no model 'fruad'\n"
        "  hint: did you mean 'fraud'? see what there is: cloche models ls\n"
        "  read: cloche explain CL-E301\n"
        "```\n",
        "All classes are subclasses of `cloche.ClocheError`; the first digit of the code is the class.\n",
    ]
    kinds = {kind.default_code[4]: kind for kind in ClocheError.__subclasses__()}
    for digit, family in _FAMILIES.items():
        kind = kinds[digit]
        parts.append(f"## {family}: `cloche.{kind.__name__}`\n")
        parts.append(f"Exit code {kind.exit_code}.\n")
        parts.append("| code | HTTP | what it means | what to do |")
        parts.append("|---|---|---|---|")
        for code, (title, remedy) in CODES.items():
            if code[4] == digit:
                status = status_of(kind("", code=code))
                shown = status if digit in "1234569" else "-"
                parts.append(f"| <a id='{code.lower()}'></a>`{code}` | {shown} | {title} | {remedy} |")
        parts.append("")
    return "\n".join(parts)


def metrics_page() -> str:
    """docs/reference/metrics.md: each metric with its labels and meaning."""
    parts = [
        _NOTE,
        "# Metrics\n",
        "`GET /metrics` answers in Prometheus text (or OpenMetrics, when asked for). Any worker gives the "
        "figures of all processes of the machine: they are sums over the board, the same for one worker or four, "
        "and they never go backwards when a process dies. Labels come from closed sets: no path and nothing that "
        "a caller sent.\n",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    rows = [(name, "counter", labels, text) for name, (text, labels) in COUNTERS.items()]
    rows += [(name, "histogram", ("deployment", "version", "le"), text) for name, text in HISTOGRAMS.items()]
    rows += [(name, "gauge", labels, text) for name, (text, labels) in GAUGES.items()]
    for name, kind, labels, text in rows:
        parts.append(f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels) or '-'} | {text} |")
    parts.append("\nTimes are seconds, in buckets from 100 µs to 10 s.\n")
    return "\n".join(parts)


def python_page() -> str:
    """docs/reference/python.md: each public name with its signature and docstring."""
    parts = [
        _NOTE,
        "# Python\n",
        "`import cloche` costs the standard library only; what a name needs is imported when it is first used. "
        "Errors are listed in [Errors](errors.md).\n",
    ]
    for name in sorted(cloche.__all__, key=str.lower):
        value = getattr(cloche, name)
        if isinstance(value, type) and issubclass(value, ClocheError):
            continue
        parts.append(f"## cloche.{name}\n")
        if isinstance(value, type):
            parts += [_docstring(value), ""]
            parts += [_member(name, key, member) for key, member in vars(value).items() if _is_shown(key, member)]
        else:
            parts += [f"```text\n{name}{_signature(value)}\n```\n", _docstring(value), ""]
    return "\n".join(parts)


#: Page -> what makes it.
PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "errors.md": errors_page,
    "metrics.md": metrics_page,
    "python.md": python_page,
}


def _help(*words: str) -> str:
    out = io.StringIO()
    make_app({}).help_print(list(words), console=Console(file=out, width=110))
    return out.getvalue()


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines()).strip("\n")


def _is_shown(key: str, member: object) -> bool:
    public = not key.startswith("_") and (callable(member) or isinstance(member, (property, classmethod)))
    return public and bool(_docstring(member))


def _member(owner: str, key: str, member: object) -> str:
    if isinstance(member, property):
        return f"### {owner}.{key}\n\n{_docstring(member)}\n"
    function = member.__func__ if isinstance(member, classmethod) else member
    return f"### {owner}.{key}\n\n```text\n{key}{_signature(function)}\n```\n\n{_docstring(function)}\n"


def _signature(function: object) -> str:
    assert callable(function)
    found = inspect.signature(function)
    text = str(found).replace("'", "")
    if len(text) < 100:
        return text
    lines = ",\n    ".join(str(parameter).replace("'", "") for parameter in found.parameters.values())
    returns = "" if found.return_annotation is found.empty else f" -> {found.return_annotation}"
    return f"(\n    {lines},\n){returns}".replace("'", "")


def _docstring(value: object) -> str:
    return inspect.cleandoc(getattr(value, "__doc__", None) or "")


def main() -> None:
    """Write every page anew."""
    for name, make in PAGES.items():
        (REFERENCE / name).write_text(make())


if __name__ == "__main__":
    main()
