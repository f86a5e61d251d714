"""The command line: the flags that all commands share, the commands by name, and the way out for errors."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Group, Parameter

from cloche import __version__
from cloche.cli.plain_help import PlainHelp
from cloche.cli.terminal import Terminal
from cloche.core.errors import ClocheError, ConfigError, NotFoundError

_EVERYWHERE = Group("For every command", sort_key=100)


def _shared(*names: str, count: bool = False) -> Parameter:
    return Parameter(name=names, group=_EVERYWHERE, negative="", show_default=False, count=count)


#: command -> where it lives, what it does in a sentence, an example.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "up": (
        "cloche.cli.up:up",
        "Serve a model, or what cloche.toml describes.",
        "cloche up fraud@champion --workers 4",
    ),
    "pack": (
        "cloche.cli.pack:pack",
        "Turn a model into a bundle and register it.",
        "cloche pack model.onnx --name fraud --data holdout.parquet --label is_fraud",
    ),
    "models ls": ("cloche.cli.models:ls", "List models and their versions.", "cloche models ls"),
    "models show": (
        "cloche.cli.models:show",
        "Show one version: signature, quality, size, speed.",
        "cloche models show fraud:3",
    ),
    "alias": ("cloche.cli.models:alias", "Point an alias at a version.", "cloche alias fraud:3 champion"),
    "diff": ("cloche.cli.models:diff", "Compare two versions.", "cloche diff fraud:2 fraud:3"),
    "export": (
        "cloche.cli.archive:export",
        "Write a bundle into one archive file.",
        "cloche export fraud:3 fraud-3.cloche",
    ),
    "import": (
        "cloche.cli.archive:import_",
        "Check an archive file and register its bundle.",
        "cloche import fraud-3.cloche",
    ),
    "verify": (
        "cloche.cli.archive:verify",
        "Check every byte and the signature of a bundle.",
        "cloche verify fraud-3.cloche",
    ),
    "keys create": (
        "cloche.cli.keys:create",
        "Make an API key; it is shown once.",
        "cloche keys create mobile --expires 90d",
    ),
    "keys ls": ("cloche.cli.keys:ls", "List the API keys.", "cloche keys ls"),
    "keys revoke": (
        "cloche.cli.keys:revoke",
        "Revoke an API key; workers refuse it within a second.",
        "cloche keys revoke mobile --yes",
    ),
    "explain": ("cloche.cli.explain:explain", "Say what an error code means.", "cloche explain CL-E104"),
}
_GROUPS = {
    "models": ("See what the registry holds.", "cloche models ls"),
    "keys": ("Make, list and revoke API keys.", "cloche keys ls"),
}


def make_app(environ: Mapping[str, str]) -> App:
    """The commands by name; a command's module is imported when that command is asked for.

    Call its `meta`, which takes the flags that all commands share from wherever they stand.
    """
    app = App(
        name="cloche",
        version=__version__,
        help=_help(
            "Take a trained model to production: pack it, serve it, keep it healthy.",
            "cloche pack model.onnx --name fraud && cloche up fraud",
        ),
        help_format="plaintext",
        help_formatter=PlainHelp(),
        default_parameter=Parameter(negative=""),
    )
    groups = {name: App(name=name, help=_help(*words)) for name, words in _GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for command, (target, sentence, example) in COMMANDS.items():
        noun, _, name = command.rpartition(" ")
        (groups[noun] if noun else app).command(target, name=name, help=_help(sentence, example))
    app.meta.default(_launcher(app, environ))
    return app


def _help(sentence: str, example: str) -> str:
    return f"{sentence}\n\nExample: {example}"


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one command line and return its exit code (see docs/reference/cli.md)."""
    app = make_app(environ)
    try:
        return int(app.meta(argv, print_error=False, exit_on_error=False, result_action="return_value") or 0)
    except CycloptsError as error:
        words = [word for word in argv if not word.startswith("-")]
        known = " ".join(["cloche", *words[:1]]) if words and words[0] in app else "cloche"
        raise ConfigError(str(error), hint=f"{known} --help") from error


def _launcher(app: App, environ: Mapping[str, str]) -> Callable[..., int]:
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        directory: Annotated[Path, _shared("-C", "--directory")] = Path(),
        config: Annotated[Path | None, _shared("--config")] = None,
        json: Annotated[bool, _shared("--json")] = False,
        quiet: Annotated[bool, _shared("-q", "--quiet")] = False,
        verbose: Annotated[int, _shared("-v", "--verbose", count=True)] = 0,
        no_color: Annotated[bool, _shared("--no-color")] = False,
    ) -> int:
        """Run a command.

        Parameters
        ----------
        directory
            Work as if started in this folder.
        config
            Read this file instead of the nearest cloche.toml.
        json
            Answer with one JSON object; errors are JSON too.
        quiet
            Say nothing but the answer and errors.
        verbose
            Say more; twice for more still.
        no_color
            Never use colour.
        """
        _enter(directory)
        terminal = Terminal(
            directory=Path.cwd(),
            environ=environ,
            config=config,
            json=json,
            verbosity=-1 if quiet else verbose,
            no_color=no_color,
        )
        command, bound, unparsed = app.parse_args(tokens, print_error=False, exit_on_error=False)
        extra = {"terminal": terminal} if "terminal" in unparsed else {}
        return int(command(*bound.args, **bound.kwargs, **extra) or 0)

    return launch


def _enter(directory: Path) -> None:
    """Every path on the command line is meant from there, as with `git -C`."""
    try:
        os.chdir(directory)
    except OSError as error:
        raise NotFoundError(f"can't work in {directory}: {error.strerror}", code="CL-E303") from None


def main() -> None:
    """The `cloche` command."""
    argv = sys.argv[1:]
    terminal = Terminal(directory=Path(), environ=os.environ, json="--json" in argv, no_color="--no-color" in argv)
    try:
        code = run(argv, os.environ)
    except ClocheError as error:
        if os.environ.get("CLOCHE_DEBUG") == "1":
            traceback.print_exc()
        terminal.report(error)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # Whoever read our answer has heard enough; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception:  # noqa: BLE001 - the edge of the process: a bug is saved and named, never a bare traceback
        code = _crashed(terminal)
    sys.exit(code)


def _crashed(terminal: Terminal) -> int:
    text = traceback.format_exc()
    if os.environ.get("CLOCHE_DEBUG") == "1":
        sys.stderr.write(text)
    folder = Path(os.environ.get("CLOCHE_DATA") or ".cloche") / "crash"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        report = folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
        report.write_text(f"cloche {__version__}, Python {sys.version}\n{text}")
        saved = f"the report is in {report}"
    except OSError as error:
        saved = f"the report could not be saved ({error})"
    terminal.report(
        ClocheError(
            f"this is a bug in Cloche: {text.strip().splitlines()[-1]}",
            code="CL-E999",
            hint=f"{saved}; CLOCHE_DEBUG=1 shows it here",
        )
    )
    return ClocheError.exit_code
