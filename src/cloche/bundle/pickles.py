"""Pickles are read only on request, at packing time, in a process without network; none is ever shipped."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from cloche.bundle import no_network
from cloche.bundle.converters.base import Converted, ConvertOptions
from cloche.bundle.pickle_wire import Failure, Question, Table, decode_answer, encode
from cloche.bundle.rows import to_columns
from cloche.core.errors import ClocheError, ConversionError, MissingExtraError, NotFoundError, RefusedError
from cloche.runtimes.base import RuntimeSpec

SUFFIXES = frozenset({".pkl", ".pickle", ".joblib"})

#: A pickle can name code: nothing but a model in a safe format may come back.
_SAFE_KIND = "onnx"

_MODULE = "cloche.bundle.pickle_child"
_SAVED_BY = re.compile(rb"_sklearn_version.{1,12}?(\d+\.\d+(?:\.\w+)*)", re.DOTALL)


def is_pickle(model: object) -> bool:
    return isinstance(model, Path) and model.suffix in SUFFIXES


def convert_pickle(
    path: Path, rows: object | None, options: ConvertOptions, *, trusted: bool, timeout_s: float = 600.0
) -> Converted:
    """The pickled model, converted by a process that has no network, no environment and can't write files.

    Raises RefusedError: CL-E407 unless `trusted`, CL-E411 where such a process can't be made; NotFoundError;
    ConversionError when it dies, takes longer than `timeout_s` or can't be converted.
    """
    if not trusted:
        raise RefusedError(
            f"{path.name} is a pickle, which can run any code when it is read",
            code="CL-E407",
            hint="if you trust who made it: --trust-pickle, or trust_pickle=True",
        )
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}", code="CL-E303", hint="check the path")
    table = Table.of(None if rows is None else to_columns(rows))
    question = encode(Question(path=str(path.resolve()), rows=table, options=options))
    code, out, err = _run(_command(no_network_itself=True), question, path, timeout_s)
    if code == no_network.CANNOT and shutil.which("bwrap"):
        code, out, err = _run(_command(no_network_itself=False), question, path, timeout_s)
    if code == no_network.CANNOT or (code != 0 and err.startswith(b"bwrap:")):
        raise RefusedError(
            "a process without network can't be made here, so the pickle was not read",
            code="CL-E411",
            hint="load it yourself where you trust it, and call cloche.pack(model)",
        )
    if code != 0:
        raise ConversionError(
            f"the process that read {path.name} died ({_how(code)}): {_last_line(err)}",
            hint="load it yourself and call cloche.pack(model)",
        )
    return _received(path, out)


def _command(*, no_network_itself: bool) -> list[str]:
    python = [sys.executable, "-I", "-B", "-m"]
    if no_network_itself:
        return [*python, no_network.__name__, _MODULE]
    bare = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/", "--dev", "/dev"]
    return [*bare, "--proc", "/proc", *python, _MODULE]


def _run(command: list[str], question: bytes, path: Path, timeout_s: float) -> tuple[int, bytes, bytes]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(question, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise ConversionError(
            f"reading and converting {path.name} took longer than {timeout_s:g} s",
            hint="load it yourself and call cloche.pack(model)",
        ) from None
    finally:
        if process.poll() is None:  # too late, or Ctrl-C: with all that it started
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return process.returncode, out, err


def _received(path: Path, data: bytes) -> Converted:
    """The Converted that came back, of which nothing is believed. Raises what failed over there."""
    try:
        answer = decode_answer(data)
    except msgspec.DecodeError as error:
        raise ConversionError(f"the process that read {path.name} answered nonsense: {error}") from None
    if answer.failure is not None:
        raise _error(path, answer.failure)
    converted = answer.converted
    if (
        converted is None
        or converted.runtime.kind != _SAFE_KIND
        or set(converted.files) != _files_of(converted.runtime)
    ):
        raise ConversionError(
            f"{path.name} holds no model that can be packed without code",
            hint="load it yourself and pack a Python class with `load` and `predict`",
        )
    return msgspec.structs.replace(
        converted,
        columns=None if answer.columns is None else answer.columns.columns(),
        reference=None if answer.reference is None else answer.reference.columns(),
        original_bytes=path.stat().st_size,
    )


def _files_of(runtime: RuntimeSpec) -> set[str]:
    step = runtime.step
    return {runtime.entry} if step is None else {runtime.entry, step.entry, *step.files}


def _error(path: Path, failure: Failure) -> ClocheError:
    failure = msgspec.structs.replace(failure, message=f"{path.name}: {failure.message}")
    saved = _SAVED_BY.search(path.read_bytes())
    if failure.kind == MissingExtraError.__name__ and saved and "sklearn" in failure.message:
        version = saved[1].decode()
        failure = msgspec.structs.replace(
            failure,
            message=f"{path.name} was saved by scikit-learn {version}, which is not installed here",
            hint=f'pip install "scikit-learn=={version}" "cloche[sklearn]"',
        )
    return failure.error()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return "".join(c for c in lines[-1][:300] if c.isprintable()) if lines else "it said nothing"
