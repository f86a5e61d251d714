"""Settings: what is said where wins over what, and every mistake is named at its line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from cloche.core.errors import ConfigError, NotFoundError
from cloche.core.machine import usable_cores
from cloche.core.units import Rate
from cloche.settings import Cache, Settings, default_online, load_settings
from cloche.settings.kinds import MAX_WORKERS

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a text as the cloche.toml of a folder (None: there is no file)."""

    def load(text: str | None = None, environ: Mapping[str, str] | None = None, **flags: object) -> Settings:
        if text is not None:
            (tmp_path / "cloche.toml").write_text(text)
        overrides = {name.replace("__", "."): value for name, value in flags.items()}
        return load_settings(directory=tmp_path, environ=environ or {}, overrides=overrides)

    return load


def refused(load: Load, *arguments: object, **flags: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(*arguments, **flags)
    assert caught.value.details
    return caught.value


FRAUD = '[online.fraud]\nmodel = "fraud@champion"\n'


# ── Defaults and precedence


def test_without_a_file_everything_has_a_default(load: Load, tmp_path: Path) -> None:
    settings = load()
    assert (settings.file, settings.root, settings.online, settings.project) == (None, tmp_path, (), None)
    assert settings.data == tmp_path / ".cloche"
    assert settings.database == f"sqlite:///{tmp_path}/.cloche/state.db"
    serve = settings.serve
    assert (serve.host, serve.port, serve.workers) == ("127.0.0.1", 8080, min(usable_cores(), MAX_WORKERS))
    assert (serve.allow_code, serve.load_timeout_s, serve.lame_duck_s) == (False, 300.0, 1.0)
    assert serve.max_body == 64_000_000


def test_a_deployment_has_defaults_too(load: Load) -> None:
    (online,) = load(FRAUD).online
    assert online == default_online("fraud", "fraud@champion")
    assert (online.deadline_s, online.on_invalid, online.cache) == (1.0, "flag", None)
    assert (online.access.keys, online.access.limits) == (False, {})


def test_every_key_is_read(load: Load, tmp_path: Path) -> None:
    settings = load("""
        version = 1
        [project]
        name = "shop"
        data = "./state"
        database = "postgresql://shop:secret@db.example.com/shop"
        [serve]
        host = "0.0.0.0"
        port = 9000
        workers = 3
        allow_code = true
        load_timeout = "90s"
        lame_duck = 2.5
        max_body = "1MiB"
        [online.fraud]
        model = "fraud:3"
        deadline = "250ms"
        on_invalid = "reject"
        cache = { size = "64MB", ttl = "10m" }
        access = { keys = true, limits = { default = "100/s", mobile = "20/m" } }
    """)
    assert (settings.project, settings.data) == ("shop", tmp_path / "state")
    assert settings.database == "postgresql://shop:secret@db.example.com/shop"
    serve, (online,) = settings.serve, settings.online
    assert (serve.host, serve.port, serve.workers, serve.allow_code) == ("0.0.0.0", 9000, 3, True)
    assert (serve.load_timeout_s, serve.lame_duck_s, serve.max_body) == (90.0, 2.5, 2**20)
    assert (online.name, online.model, online.deadline_s, online.on_invalid) == (
        "fraud",
        "fraud:3",
        0.25,
        "reject",
    )
    assert online.cache == Cache(size=64_000_000, ttl_s=600.0)
    assert online.access.keys is True
    assert online.access.limits == {"default": Rate(100, 1), "mobile": Rate(20, 60)}


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default(load: Load) -> None:
    text, environ = "[serve]\nport = 1001\n", {"CLOCHE_SERVE__PORT": "1002"}
    assert load().serve.port == 8080
    assert load(text).serve.port == 1001
    assert load(text, environ).serve.port == 1002
    assert load(text, environ, serve__port=1003).serve.port == 1003
    assert load(text, environ, serve__port=None).serve.port == 1002


def test_flags_may_be_values_or_text(load: Load) -> None:
    serve = load(serve__port="9000", serve__workers="2", serve__allow_code=True, serve__load_timeout="10s").serve
    assert (serve.port, serve.workers, serve.allow_code, serve.load_timeout_s) == (9000, 2, True, 10.0)


def test_variables_reach_every_kind_of_key(load: Load, tmp_path: Path) -> None:
    environ = {
        "CLOCHE_SERVE__WORKERS": "cores",
        "CLOCHE_SERVE__ALLOW_CODE": "true",
        "CLOCHE_SERVE__LOAD_TIMEOUT": "90",
        "CLOCHE_PROJECT__NAME": "123",
        "CLOCHE_ONLINE__FRAUD_EU__DEADLINE": "2s",
        "CLOCHE_ONLINE__FRAUD_EU__ACCESS__KEYS": "true",
        "CLOCHE_ONLINE__FRAUD_EU__ACCESS__LIMITS__MOBILE": "5/s",
        "HOME": "/nowhere",
        "CLOCHE_DEBUG": "1",
        "CLOCHE_KEY": "clk_live_…",
    }
    settings = load('[online.fraud-eu]\nmodel = "fraud"\n', environ)
    assert (settings.serve.allow_code, settings.serve.load_timeout_s, settings.project) == (True, 90.0, "123")
    (online,) = settings.online
    assert (online.name, online.deadline_s) == ("fraud-eu", 2.0)
    assert online.access.limits == {"mobile": Rate(5, 1)}


def test_the_number_of_workers_may_be_the_number_of_cores(load: Load) -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    assert load('[serve]\nworkers = "cores"').serve.workers == min(usable_cores(), MAX_WORKERS)


def test_the_load_may_decide_how_many_workers_there_are(load: Load) -> None:
    def workers(text: str, environ: Mapping[str, str] | None = None, **flags: object) -> tuple[int, int]:
        serve = load(f"[serve]\n{text}", environ, **flags).serve
        return serve.least_workers, serve.workers

    cores = min(usable_cores(), MAX_WORKERS)
    assert workers("") == (cores, cores)
    assert workers("workers = 3") == (3, 3)
    assert workers("workers = { min = 2, max = 6 }") == (2, 6)
    assert workers("workers = { max = 6 }") == (1, 6)
    assert workers("workers = {}") == (1, cores)
    assert workers('workers.max = "cores"') == (1, cores)


def test_a_number_of_workers_and_bounds_for_it_win_over_each_other(load: Load) -> None:
    bounds, environ = "[serve]\nworkers = { min = 2, max = 6 }", {"CLOCHE_SERVE__WORKERS__MAX": "9"}
    found = [
        load(bounds, serve__workers=3),
        load(bounds, {"CLOCHE_SERVE__WORKERS": "4"}),
        load(bounds, environ),
        load("[serve]\nworkers = 3", environ),
        load("[serve]\nworkers = 3", environ, serve__workers="5"),
    ]
    assert [(one.serve.least_workers, one.serve.workers) for one in found] == [
        (3, 3),
        (4, 4),
        (2, 9),
        (1, 9),
        (5, 5),
    ]


# ── Files and folders


def test_the_nearest_file_upwards_is_read_and_its_folder_is_where_data_lies(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "cloche.toml").write_text("[serve]\nport = 1001\n")
    settings = load_settings(directory=below, environ={})
    assert (settings.file, settings.serve.port) == (tmp_path / "cloche.toml", 1001)
    assert settings.data == tmp_path / ".cloche"
    (tmp_path / "a" / "cloche.toml").write_text("[serve]\nport = 1002\n")
    assert load_settings(directory=below, environ={}).serve.port == 1002


def test_a_folder_of_that_name_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "cloche.toml").mkdir()
    assert load_settings(directory=tmp_path, environ={}).file is None


def test_another_file_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "cloche.toml").write_text("[serve]\nport = 1001\n")
    (tmp_path / "conf").mkdir()
    other = tmp_path / "conf" / "other.toml"
    other.write_text('[serve]\nport = 1002\n[project]\ndata = "data"\n')
    settings = load_settings(directory=tmp_path, config=other, environ={})
    assert (settings.serve.port, settings.data) == (1002, tmp_path / "conf" / "data")


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"other\.toml") as caught:
        load_settings(directory=tmp_path, config=tmp_path / "other.toml", environ={})
    assert caught.value.code == "CL-E303"


def test_the_variable_for_data_wins_over_the_file(load: Load, tmp_path: Path) -> None:
    text = '[project]\ndata = "in-the-file"\n'
    assert load(text).data == tmp_path / "in-the-file"
    assert load(text, {"CLOCHE_DATA": "/elsewhere"}).data == Path("/elsewhere")
    assert load(text, {"CLOCHE_DATA": "here"}).data == tmp_path / "here"
    assert load(text, {"CLOCHE_DATA": "/a", "CLOCHE_PROJECT__DATA": "/b"}).data == Path("/a")
    assert load(text, {"CLOCHE_DATA": "/a"}, project__data="/b").data == Path("/b")


def test_the_database_follows_the_data_unless_it_is_named(load: Load, tmp_path: Path) -> None:
    assert load(None, {"CLOCHE_DATA": "/a"}).database == "sqlite:////a/state.db"
    named = load('[project]\ndatabase = "sqlite:///other.db"\n', {"CLOCHE_DATA": "/a"})
    assert named.database == f"sqlite:///{tmp_path}/other.db"


def test_a_value_may_stand_in_a_variable_or_in_a_file(load: Load, tmp_path: Path) -> None:
    url = "postgresql://shop:secret@db/shop"
    text = '[project]\ndatabase = "env:SHOP_DATABASE"\n'
    assert load(text, {"SHOP_DATABASE": url}).database == url
    (tmp_path / "secret").write_text(f"{url}\n")
    assert load('[project]\ndatabase = "file:secret"\n').database == url
    assert "'SHOP_DATABASE' is not set" in refused(load, text).message
    assert "'nowhere' can't be read" in refused(load, '[project]\ndatabase = "file:nowhere"\n').message


def test_a_password_is_neither_in_errors_nor_in_what_settings_look_like(load: Load) -> None:
    settings = load('[project]\ndatabase = "postgresql://shop:hidden@db/shop"\n')
    assert "hidden" not in repr(settings)
    error = refused(load, '[project]\ndatabase = "postgres://shop:hidden@db/shop"\n')
    assert "hidden" not in error.render() + str(error.details)


def test_a_model_may_be_a_file_beside_the_settings(load: Load, tmp_path: Path) -> None:
    settings = load('[online.fraud]\nmodel = "./models/fraud.onnx"\n')
    assert settings.online[0].model == str(tmp_path / "models" / "fraud.onnx")


def test_several_deployments_stand_in_the_order_of_the_file(load: Load) -> None:
    found = load(FRAUD + "[online.churn]\nmodel = 'churn:2'\ndeadline = '80ms'\n").online
    assert [(one.name, one.model, one.deadline_s) for one in found] == [
        ("fraud", "fraud@champion", 1.0),
        ("churn", "churn:2", 0.08),
    ]


def test_what_is_wrong_with_each_of_several_is_told_at_once(load: Load) -> None:
    text = "[online.fraud]\ndeadline = '1s'\n[online.churn]\nmodel = 'churn'\ncache = { ttl = '1m' }\n"
    error = refused(load, text)
    assert [problem["key"] for problem in error.details] == ["online.fraud.model", "online.churn.cache.size"]


def test_a_bare_reference_means_the_latest(load: Load) -> None:
    settings = load('[online.fraud]\nmodel = "fraud"\n')
    assert settings.online[0].model == "fraud@latest"


def test_sockets_go_to_the_users_runtime_directory_or_a_private_temporary_one(load: Load, tmp_path: Path) -> None:
    own = tmp_path / "run"
    own.mkdir()
    assert load(None, {"XDG_RUNTIME_DIR": str(own)}).runtime_root == own / "cloche"
    fallback = tmp_path / f"cloche-{os.getuid()}"
    assert load(None, {"TMPDIR": str(tmp_path)}).runtime_root == fallback
    assert (
        load(None, {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "gone")}).runtime_root == fallback
    )
    assert load(None, {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": "relative"}).runtime_root == fallback


def test_reading_settings_writes_nothing(load: Load, tmp_path: Path) -> None:
    load(FRAUD, {"CLOCHE_DATA": str(tmp_path / "data"), "TMPDIR": str(tmp_path)})
    assert [entry.name for entry in tmp_path.iterdir()] == ["cloche.toml"]


def test_settings_can_not_be_changed(load: Load) -> None:
    settings = load(FRAUD)
    for part in (settings, settings.serve, *settings.online):
        with pytest.raises(AttributeError):
            part.port = 1  # type: ignore[union-attr]
    assert msgspec.structs.replace(settings.serve, port=1).port == 1


# ── Mistakes


@pytest.mark.parametrize(
    ("text", "line", "key", "said", "hint"),
    [
        ("zzz = 1", 1, "zzz", "no such setting", "known here: batch, online, project, serve, version"),
        ("\n[srve]\nport = 1", 2, "srve", "no such setting", "did you mean 'serve'?"),
        ("[serve]\nprot = 1", 2, "serve.prot", "no such setting", "did you mean 'port'?"),
        ("serve.prot = 1", 1, "serve.prot", "no such setting", "did you mean 'port'?"),
        ("serve = { host = '::1', prot = 1 }", 1, "serve.prot", "no such setting", "did you mean 'port'?"),
        ("[serve]\ngprc = 8081", 2, "serve.gprc", "no such setting", "did you mean 'grpc'?"),
        (
            "[serve]\ngrpc = 8080",
            2,
            "serve.grpc",
            "8080 is the port already",
            "write another, 8081 and 8082 are usual",
        ),
        ("[serve]\nport = '8080'", 2, "serve.port", "'8080' is not a whole number", "write 0 to 65535"),
        ("[serve]\nport = 65536", 2, "serve.port", "must be from 0 to 65535, not 65536", "write 0 to 65535"),
        ("[serve]\nport = true", 2, "serve.port", "True is not a whole number", "write 0 to 65535"),
        ("[serve.port]\nx = 1", 1, "serve.port", "is not a whole number", "write 0 to 65535"),
        ("serve = 1", 1, "serve", "this is a table", "write [serve]"),
        ("[[serve]]\nport = 1", 1, "serve", "this is a table", "write [serve]"),
        (
            "[serve]\nworkers = 0",
            2,
            "serve.workers",
            f"must be from 1 to {MAX_WORKERS}, not 0",
            f"write 1 to {MAX_WORKERS}",
        ),
        ("[serve]\nworkers = 'all'", 2, "serve.workers", "'all' is not a number of workers", '"cores"'),
        ("[serve]\nworkers = { min = 0 }", 2, "serve.workers.min", "must be from 1 to 48, not 0", "write 1 to 48"),
        ("[serve]\nworkers = { min = 'all' }", 2, "serve.workers.min", "is not a whole number", "write 1 to 48"),
        ("[serve]\nworkers = { max = 'all' }", 2, "serve.workers.max", "'all' is not a number", '"cores"'),
        (
            "[serve]\nworkers = { min = 5, max = 4 }",
            2,
            "serve.workers.min",
            "5 is more than max, 4",
            "write 1 to 4",
        ),
        ("[serve]\nworkers = { mox = 4 }", 2, "serve.workers.mox", "no such setting", "did you mean 'max'?"),
        ("[serve]\nallow_code = 'yes'", 2, "serve.allow_code", "neither true nor false", "without quotes"),
        ("[serve]\nallow_code = 1", 2, "serve.allow_code", "neither true nor false", "without quotes"),
        ("[serve]\nhost = 'a b'", 2, "serve.host", "'a b' is not an address", "127.0.0.1"),
        ("[serve]\nhost = '127.0.0'", 2, "serve.host", "'127.0.0' is not an address", "127.0.0.1"),
        ("[serve]\nhost = ''", 2, "serve.host", "'' is not a text", "in quotes"),
        ("[serve]\nload_timeout = '5 minutes'", 2, "serve.load_timeout", "not a duration", "write 100ms, 5s"),
        ("[serve]\nload_timeout = '2d'", 2, "serve.load_timeout", "'2d' is not within 1s and 1d", "1s to 1d"),
        ("[serve]\nload_timeout = nan", 2, "serve.load_timeout", "nan is not a duration", "write 100ms"),
        ("[serve]\nload_timeout = inf", 2, "serve.load_timeout", "inf is not a duration", "write 100ms"),
        ("[serve]\nmax_body = '64 mb'", 2, "serve.max_body", "'64 mb' is not a size", "write 512kB"),
        ("[serve]\nmax_body = '1TB'", 2, "serve.max_body", "'1TB' is not a size", "write 512kB"),
        ("[serve]\nmax_body = 1", 2, "serve.max_body", "1 is not within 1kB and 2GB", "1kB to 2GB"),
        ("version = 2", 1, "version", "reads version 1 of the file, not 2", "version = 1"),
        ("version = true", 1, "version", "reads version 1 of the file, not True", "version = 1"),
        ("[project]\nname = ''", 2, "project.name", "'' is not a text", "in quotes"),
        ('[project]\nname = "a\\nb"', 2, "project.name", "is not a text", "on one line"),
        ("[project]\ndata = '~/state'", 2, "project.data", "begins with ~", "whole path"),
        ("[project]\ndatabase = 'mysql://x'", 2, "project.database", "not the URL of a database", "sqlite:///"),
        ("[project]\ndatabase = 'sqlite://'", 2, "project.database", "not the URL of a database", "sqlite:///"),
        ("[online.fraud]", 1, "online.fraud.model", "the model is missing", "fraud@champion"),
        ("[online.Fraud]\nmodel = 'x'", 1, "online.Fraud", "can't be a name of a deployment", "lower-case"),
        ("[online]\nfraud = 'x'", 2, "online.fraud", "this is a table", "write [online.fraud]"),
        (
            FRAUD + "shadow = 1",
            3,
            "online.fraud.shadow",
            "no such setting",
            "known here: access, cache, deadline",
        ),
        ("[online.x]\nmodel = 'a:b'", 2, "online.x.model", "'a:b' is not a reference", "name@champion"),
        ("[online.x]\nmodel = 'A'", 2, "online.x.model", "'A' is not a reference", "begins with ./"),
        (FRAUD + "deadline = 0", 3, "online.fraud.deadline", "0 is not within 1ms and 1h", "1ms to 1h"),
        (FRAUD + "on_invalid = 'reject!'", 3, "online.fraud.on_invalid", "not a policy", "reject, flag or allow"),
        (FRAUD + "device = 'gpu'", 3, "online.fraud.device", "not a device", "cpu or cuda"),
        (FRAUD + "on_invalid = ['flag']", 3, "online.fraud.on_invalid", "not a policy", "reject, flag or allow"),
        (FRAUD + "cache = true", 3, "online.fraud.cache", "this is a table", "write [online.fraud.cache]"),
        (FRAUD + "cache = {}", 3, "online.fraud.cache.size", "the size is missing", 'size = "64MB"'),
        (
            FRAUD + "[online.fraud.cache]\nttl = '1m'",
            3,
            "online.fraud.cache.size",
            "the size is missing",
            "size =",
        ),
        (
            FRAUD + "[online.fraud.access]\nkeys = true\n[online.fraud.access.limits]\nmobile = '20'",
            6,
            "online.fraud.access.limits.mobile",
            "'20' is not a rate",
            "write 100/s",
        ),
        (
            FRAUD + "access = { keys = true, limits = { 'a b' = '20/s' } }",
            3,
            "online.fraud.access.limits.a b",
            "can't be a name of a key",
            "lower-case",
        ),
        (
            FRAUD + "access = { limits = { mobile = '20/s' } }",
            3,
            "online.fraud.access.limits.mobile",
            "without keys this has no effect",
            "keys = true",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line_its_key_and_what_to_write(
    load: Load, text: str, line: int, key: str, said: str, hint: str
) -> None:
    error = refused(load, text)
    (detail,) = error.details
    assert (detail["line"], detail["key"]) == (line, key)
    assert error.message.startswith(f"{key}: ")
    assert said in error.message
    assert re.search(rf"cloche\.toml:{line}(  \[|$)", error.where or "")
    assert hint in (error.hint or "")
    assert error.code == ("CL-E202" if "no such setting" in said else "CL-E201")


def test_a_mistake_says_in_which_table_it_stands(load: Load) -> None:
    error = refused(load, FRAUD + "on_invalid = 'x'")
    assert (error.where or "").endswith("cloche.toml:3  [online.fraud]")


def test_all_mistakes_are_named_at_once_in_the_order_of_their_lines(load: Load) -> None:
    error = refused(
        load,
        "[online.fraud]\ncache = {}\n[serve]\nport = -1\nwokers = 2\n",
        {"CLOCHE_SERVE__HOST": "a b", "CLOCHE_SERVE__HSOT": "x"},
        serve__workers=0,
    )
    assert [(detail["line"], detail["key"]) for detail in error.details] == [
        (1, "online.fraud.model"),
        (2, "online.fraud.cache.size"),
        (4, "serve.port"),
        (5, "serve.wokers"),
        (None, "serve.host"),
        (None, "serve.hsot"),
        (None, "serve.workers"),
    ]
    shown = error.render().splitlines()
    assert shown[0] == "error[CL-E201]: 7 settings are wrong"
    assert "cloche.toml:5: serve.wokers: there is no such setting (did you mean 'workers'?)" in shown[4]


def test_a_mistake_that_a_flag_covers_is_a_mistake_all_the_same(load: Load) -> None:
    assert refused(load, "[serve]\nport = -1", serve__port=9000).details[0]["key"] == "serve.port"


def test_many_mistakes_do_not_flood_the_screen(load: Load) -> None:
    error = refused(load, "".join(f"wrong{n} = 1\n" for n in range(100)))
    assert len(error.details) == 100
    assert len(error.render().splitlines()) < 30
    assert "and 80 more" in error.message


def test_a_long_value_is_not_repeated_whole(load: Load) -> None:
    assert len(refused(load, f"[serve]\nhost = '{'x' * 10_000}'").message) < 300
    assert len(refused(load, f"[serve]\nload_timeout = '{'x' * 10_000}'").message) < 300


@pytest.mark.parametrize(
    ("variable", "value", "said", "hint"),
    [
        ("CLOCHE_SERVE__PRT", "1", "serve.prt: there is no such setting", "did you mean 'port'?"),
        ("CLOCHE_SERVER__PORT", "1", "server: there is no such setting", "did you mean 'serve'?"),
        ("CLOCHE_SERVE", "1", "serve: this is a table", "write [serve]"),
        ("CLOCHE_SERVE__PORT__X", "1", "serve.port.x: there is no such setting", "serve.port is a value"),
        ("CLOCHE_PORT", "1", "port: there is no such setting", "known here"),
        ("CLOCHE_", "1", "there is no such setting", "known here"),
        ("CLOCHE_SERVE__PORT", "many", "serve.port: 'many' is not a whole number", "write 0 to 65535"),
        ("CLOCHE_SERVE__PORT", "99999", "serve.port: must be from 0 to 65535, not 99999", "write 0 to 65535"),
        ("CLOCHE_SERVE__ALLOW_CODE", "yes", "serve.allow_code: 'yes' is neither", "true or false"),
    ],
)
def test_a_variable_that_is_wrong_is_named(load: Load, variable: str, value: str, said: str, hint: str) -> None:
    error = refused(load, None, {variable: value})
    assert said in error.message
    assert error.where == f"variable {variable}"
    assert hint in (error.hint or "")


def test_a_flag_that_is_wrong_is_named(load: Load) -> None:
    error = refused(load, serve__port=-1)
    assert (error.message.partition(":")[0], error.where) == ("serve.port", "command line")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"[serve\nport = 1", 1),
        (b"[serve]\nport = \n", 2),
        (b"[serve]\nport = 1\nport = 2\n", 3),
        (b"a = 1\nb = '\xff'\n", 2),
        (b"a = " + b"[" * 100_000, 1),
        (b"a = " + b"9" * 5000, 1),
        (b"a = 1\n\nb = '''", 3),
    ],
)
def test_a_file_that_is_not_toml_is_refused_at_its_line(tmp_path: Path, content: bytes, line: int) -> None:
    (tmp_path / "cloche.toml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_settings(directory=tmp_path, environ={})
    assert (caught.value.where or "").endswith(f"cloche.toml:{line}")


@pytest.mark.parametrize("name", ["Fraud", "", "a b"])
def test_a_default_deployment_needs_a_name_that_can_be(name: str) -> None:
    with pytest.raises(ConfigError):
        default_online(name, "fraud@champion")
