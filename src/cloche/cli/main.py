"""The command line: the flags that all commands share, the commands by name, and the way out for errors."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Group, Parameter

from cloche import __version__
from cloche.cli.commands import COMMANDS, GROUPS
from cloche.cli.plain_help import PlainHelp
from cloche.cli.terminal import Terminal
from cloche.core.errors import ClocheError, ConfigError, NotFoundError

_EVERYWHERE = Group("For every command", sort_key=100)


def _shared(*names: str, count: bool = False) -> Parameter:
    return Parameter(name=names, group=_EVERYWHERE, negative="", show_default=False, count=count)


def make_app(environ: Mapping[str, str], started: list[Terminal] | None = None) -> App:
    """The commands by name; a command's module is imported when that command is asked for.

    Call its `meta`, which takes the flags that all commands share from wherever they stand, and adds the
    Terminal that they ask for to `started`.
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
    groups = {name: App(name=name, help=_help(*words)) for name, words in GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for command, (target, sentence, example) in COMMANDS.items():
        noun, _, name = command.rpartition(" ")
        (groups[noun] if noun else app).command(target, name=name, help=_help(sentence, example))
    app.meta.default(_launcher(app, environ, [] if started is None else started))
    return app


def _help(sentence: str, example: str) -> str:
    return f"{sentence}\n\nExample: {example}"


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one command line and return its exit code (see docs/reference/cli.md); errors are reported here."""
    started: list[Terminal] = []
    app = make_app(environ, started)
    try:
        return int(app.meta(argv, print_error=False, exit_on_error=False, result_action="return_value") or 0)
    except ClocheError as error:
        return _report(error, _speaking(started, argv, environ))
    except CycloptsError as error:
        words = [word for word in argv if not word.startswith("-")]
        known = " ".join(["cloche", *_known(words)])
        wrong = ConfigError(str(error), hint=f"{known} --help")
        return _report(wrong, _speaking(started, argv, environ))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our answer has heard enough; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:  # noqa: BLE001 - the edge of the process: a bug is saved and named, never a bare traceback
        return _report(_save_crash(environ), _speaking(started, argv, environ))


def _known(words: Sequence[str]) -> Sequence[str]:
    """Those of the first words that name a command or a group of them: the place whose `--help` helps."""
    if " ".join(words[:2]) in COMMANDS:
        return words[:2]
    return words[:1] if words and (words[0] in COMMANDS or words[0] in GROUPS) else ()


def _speaking(started: Sequence[Terminal], argv: Sequence[str], environ: Mapping[str, str]) -> Terminal:
    """The terminal of the command; one guessed from the words when those were not understood."""
    if started:
        return started[-1]
    return Terminal(directory=Path(), environ=environ, json="--json" in argv, no_color="--no-color" in argv)


def _report(error: ClocheError, terminal: Terminal) -> int:
    if terminal.verbosity > 1 or terminal.environ.get("CLOCHE_DEBUG") == "1":
        traceback.print_exc()
    terminal.report(error)
    return error.exit_code


def _save_crash(environ: Mapping[str, str]) -> ClocheError:
    text = traceback.format_exc()
    # Not by the settings: it may be those that broke.
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / "cloche.toml").exists()), here)
    folder = Path(environ.get("CLOCHE_DATA") or root / ".cloche") / "crash"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        report = folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
        report.write_text(f"cloche {__version__}, Python {sys.version}\n{text}")
        saved = f"the report is in {report}"
    except OSError as error:
        saved = f"the report could not be saved ({error})"
    return ClocheError(
        f"this is a bug in Cloche: {text.strip().splitlines()[-1]}",
        code="CL-E999",
        hint=f"{saved}; CLOCHE_DEBUG=1 shows it here",
    )


def _launcher(app: App, environ: Mapping[str, str], started: list[Terminal]) -> Callable[..., int]:
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
            Show every detail of an error; twice, its traceback as well.
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
        started.append(terminal)
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
    # so that what a command has begun is cleaned up, as after Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(run(sys.argv[1:], os.environ))
