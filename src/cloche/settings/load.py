"""From `cloche.toml`, variables and flags to the decided tree, or one error that names all that is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cloche.core.errors import ConfigError, NotFoundError
from cloche.rollout.strategy import make_strategy
from cloche.settings.batch import read_batch
from cloche.settings.reader import Reader
from cloche.settings.tree import (
    Access,
    Batch,
    Cache,
    Features,
    Objectives,
    Online,
    RolloutPlan,
    Serve,
    Settings,
    Tls,
)

FILE_NAME = "cloche.toml"

_TOML_LINE = re.compile(r" ?\(at line (\d+), column \d+\)")
_MOST_SHOWN = 20


def load_settings(
    *,
    directory: Path | None = None,
    config: Path | None = None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Read the nearest `cloche.toml` upwards of `directory` (or `config`) and decide every setting.

    What `overrides` says (`{"serve.port": 9000}`; None is nothing said) goes before variables such as
    CLOCHE_SERVE__PORT, those before the file, the file before the defaults. Nothing is written anywhere.
    Raises one ConfigError with all that is wrong, by line; NotFoundError when `config` is not there.
    """
    return read_settings(directory, config, environ, overrides or {})[0]


def read_settings(
    directory: Path | None, config: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object]
) -> tuple[Settings, Reader]:
    """The settings, and the reader that knows where each came from."""
    start = _absolute(directory or Path.cwd())
    file = _absolute(config) if config is not None else _nearest(start)
    root = file.parent if file is not None else start
    reader = Reader(environ)
    if file is not None:
        shown = _shown(file)
        text = _read(file, shown)
        try:
            reader.read_file(text, shown, root)
        except (ValueError, RecursionError) as error:
            raise _not_toml(error, text, shown) from None
    reader.read_environment(start)
    reader.read_flags(overrides, start)
    settings = _decide(reader, file, root, environ)
    if settings is None or reader.problems:
        raise _all_wrong(reader)
    return settings, reader


def default_online(name: str, model: str) -> Online:
    """The deployment of a model that has no table of its own; `model` is a reference or an absolute path."""
    reader = Reader({})
    reader.read_flags({"online": {name: {"model": model}}}, Path("/"))
    online = _online(reader, name)
    if online is None or reader.problems:
        raise _all_wrong(reader)
    return online


def described_batch(name: str, told: Mapping[str, object], base: Path) -> Batch:
    """The batch run that is described by these keys, as if they stood in [batch.NAME]; paths start from `base`."""
    reader = Reader({})
    given = {key: value for key, value in told.items() if value is not None}
    reader.read_flags({"batch": {name: given}}, base)
    batch = None if reader.problems else read_batch(reader, name)
    if batch is None or reader.problems:
        raise _all_wrong(reader)
    return batch


def _decide(reader: Reader, file: Path | None, root: Path, environ: Mapping[str, str]) -> Settings | None:
    online = [_online(reader, name) for name in reader.names("online")]
    batch = [read_batch(reader, name) for name in reader.names("batch")]
    tls = _tls(reader)
    least, most = _workers(reader)
    ports = {name: reader.value("serve", name) for name in ("port", "grpc", "admin")}
    for name, port in list(ports.items())[1:]:
        earlier = next((other for other, taken in ports.items() if taken == port and other != name), None)
        if port and earlier is not None:
            reader.blame(
                ("serve", name), f"{port} is the {earlier} already", "write another, 8081 and 8082 are usual"
            )
            break
    if reader.problems:
        return None
    data: Path = reader.given("project").get("data") or root / ".cloche"
    return Settings(
        file=file,
        root=root,
        project=reader.value("project", "name"),
        data=data,
        database=reader.value("project", "database") or f"sqlite:///{data / 'state.db'}",
        storage=reader.value("project", "storage"),
        runtime_root=_runtime_root(environ),
        serve=Serve(
            host=reader.value("serve", "host"),
            **ports,
            workers=most,
            least_workers=least,
            allow_code=reader.value("serve", "allow_code"),
            isolate_above=reader.value("serve", "isolate_above"),
            load_timeout_s=reader.value("serve", "load_timeout"),
            lame_duck_s=reader.value("serve", "lame_duck"),
            max_body=reader.value("serve", "max_body"),
            tls=tls,
        ),
        online=tuple(one for one in online if one is not None),
        batch=tuple(one for one in batch if one is not None),
    )


def _workers(reader: Reader) -> tuple[int, int]:
    """The least and the most that there may be."""
    table = ("serve", "workers")
    if not reader.is_table(*table):
        fixed: int = reader.value(*table)
        return fixed, fixed
    least, most = reader.value(*table, "min"), reader.value(*table, "max")
    if least > most:
        written = reader.written(*table, "max")
        cores = ' ("cores" is that many here)' if written is None or written[0] == "cores" else ""
        reader.blame((*table, "min"), f"{least} is more than max, {most}{cores}", f"write 1 to {most}")
    return least, most


def _tls(reader: Reader) -> Tls | None:
    table = ("serve", "tls")
    cert, key = (reader.value(*table, name) for name in ("cert", "key"))
    if cert is None and key is None:
        return None
    for name, value in (("cert", cert), ("key", key)):
        if value is None:
            reader.blame((*table, name), "the certificate and its key belong together", f'write {name} = "….pem"')
            return None
    return Tls(cert=cert, key=key)


def _online(reader: Reader, name: str) -> Online | None:
    table = ("online", name)
    cached = reader.mentions(*table, "cache")
    limits = reader.given(*table, "access", "limits")
    keys = reader.value(*table, "access", "keys")
    if not reader.mentions(*table, "model"):
        reader.blame((*table, "model"), "the model is missing", f'write model = "{name}@champion"')
    if cached and not reader.mentions(*table, "cache", "size"):
        reader.blame((*table, "cache", "size"), "the size is missing", 'write size = "64MB"')
    for key_name in limits:
        if not keys and key_name != "default":
            hint = "write keys = true beside it, or name it default"
            reader.blame((*table, "access", "limits", key_name), "without keys this has no effect", hint)
    features = _features(reader, table)
    if reader.problems:
        return None
    cache = Cache(size=reader.value(*table, "cache", "size"), ttl_s=reader.value(*table, "cache", "ttl"))
    return Online(
        name=name,
        model=reader.value(*table, "model"),
        deadline_s=reader.value(*table, "deadline"),
        on_invalid=reader.value(*table, "on_invalid"),
        device=reader.value(*table, "device"),
        cache=cache if cached else None,
        access=Access(keys=keys, limits=limits),
        features=features,
        objectives=Objectives(
            p99_s=reader.value(*table, "objectives", "p99"),
            error_rate=reader.value(*table, "objectives", "error_rate"),
        ),
        rollout=_rollout(reader, (*table, "rollout")),
    )


def _rollout(reader: Reader, table: tuple[str, ...]) -> RolloutPlan:
    strategy = reader.value(*table, "strategy")
    unused = {"canary": (), "blue-green": ("steps", "ramp"), "shadow": ("ramp", "bake"), "ab": ("ramp", "bake")}
    for name in unused.get(strategy, ()):
        if reader.mentions(*table, name):
            reader.blame((*table, name), f"{strategy} has no {name}", "leave it out, or write canary")
    steps = tuple(reader.value(*table, "steps") or ())
    if strategy not in unused or strategy == "blue-green":
        pass  # blamed already, or without steps
    elif strategy == "canary" or reader.mentions(*table, "steps"):
        try:
            make_strategy(strategy, steps)
        except ConfigError as error:
            reader.blame((*table, "steps"), error.message, error.hint)
    else:
        steps = ()
    return RolloutPlan(
        strategy=strategy,
        steps=steps,
        ramp_s=reader.value(*table, "ramp"),
        bake_s=reader.value(*table, "bake"),
        margin=reader.value(*table, "margin"),
        sticky=reader.value(*table, "sticky"),
        keep_previous_warm_s=reader.value(*table, "keep_previous_warm"),
    )


def _features(reader: Reader, online: tuple[str, str]) -> Features | None:
    table = (*online, "features")
    if not reader.mentions(*table):
        return None
    given = {name: reader.value(*table, name) for name in ("source", "table", "key", "columns")}
    for name, value in given.items():
        if value is None and not reader.mentions(*table, name):
            reader.blame((*table, name), f"the {name} is missing", "a look-up has source, table, key and columns")
    if reader.problems:
        return None
    return Features(**given, ttl_s=reader.value(*table, "ttl"), missing=reader.value(*table, "missing"))


def _runtime_root(environ: Mapping[str, str]) -> Path:
    own = environ.get("XDG_RUNTIME_DIR", "")
    if Path(own).is_absolute() and Path(own).is_dir():
        return Path(own, "cloche")
    temporary = Path(environ.get("TMPDIR") or "/tmp")
    return _absolute(temporary) / f"cloche-{os.getuid()}"


def _nearest(start: Path) -> Path | None:
    return next((file for folder in (start, *start.parents) if (file := folder / FILE_NAME).is_file()), None)


def _read(file: Path, shown: str) -> str:
    try:
        return file.read_bytes().decode()
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {shown}", code="CL-E303", hint="check --config") from None
    except OSError as error:
        raise ConfigError(f"{shown} can't be read: {error.strerror}", code="CL-E206") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            "the file is not UTF-8 text", code="CL-E206", where=f"{shown}:{line}", hint="save it as UTF-8"
        ) from None


def _not_toml(error: Exception, text: str, shown: str) -> ConfigError:
    said = str(error)
    match = _TOML_LINE.search(said)
    line = int(match[1]) if match else text.count("\n") + 1
    if isinstance(error, RecursionError):
        said = "it is nested too deeply"
    return ConfigError(
        f"the file is not TOML: {_TOML_LINE.sub('', said)}",
        code="CL-E201",
        where=f"{shown}:{line}",
        hint="text is quoted, a table is [in brackets], and each key stands once",
        details=[{"code": "CL-E201", "key": None, "where": f"{shown}:{line}", "message": said}],
    )


def _all_wrong(reader: Reader) -> ConfigError:
    """One error for all problems: the file's by line, then those of variables and flags."""
    problems = sorted(reader.problems, key=lambda problem: (problem.line is None, problem.line or 0))
    details: list[dict[str, Any]] = [msgspec.to_builtins(problem) for problem in problems]
    code = "CL-E202" if all(problem.code == "CL-E202" for problem in problems) else "CL-E201"
    first = problems[0]
    if len(problems) == 1:
        said = f"{first.key}: {first.message}"
        return ConfigError(said, code=code, where=first.where, hint=first.hint, details=details)
    lines = [f"{len(problems)} settings are wrong"]
    for problem in problems[:_MOST_SHOWN]:
        hint = f" ({problem.hint})" if problem.hint else ""
        lines.append(f"  {problem.where.partition('  ')[0]}: {problem.key}: {problem.message}{hint}")
    if len(problems) > _MOST_SHOWN:
        lines.append(f"  … and {len(problems) - _MOST_SHOWN} more")
    return ConfigError("\n".join(lines), code=code, details=details)


def _absolute(path: Path) -> Path:
    # Not resolve(): a link that the user made should stay the name of the place.
    return Path(os.path.normpath(Path.cwd() / path))


def _shown(file: Path) -> str:
    """The file as short as it can be named from here."""
    relative = os.path.relpath(file)
    return relative if len(relative) < len(str(file)) else str(file)
