"""What `cloche up` decides before it becomes the supervisor."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloche.app.archives import export_bundle
from cloche.app.choose import choose, choose_all
from cloche.app.desired import DeploymentConfig, Desired
from cloche.app.local import pack_into
from cloche.app.project import Project, open_project
from cloche.app.refusals import check_memory
from cloche.app.up import note_limits, runtime_folder
from cloche.app.wish import make_wish, settle
from cloche.app.worker import WorkerConfig
from cloche.control.wish import Wish
from cloche.core.errors import ConfigError, MissingExtraError, NotFoundError, RefusedError
from cloche.settings.carry import from_json
from cloche.store.keys import Keys
from cloche.testing import toy_classifier, toy_onnx

CLASS = """
class Longest:
    def load(self) -> None:
        pass

    def predict(self, text: list[str]) -> list[float]:
        return [float(len(one)) for one in text]
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data folder that holds churn:1."""
    folder = tmp_path_factory.mktemp("packed")
    with open_project(folder) as project:
        model, frame, labels = toy_classifier()
        pack_into(project, model, frame, labels, name="churn")
    return folder


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory with a short path."""
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture
def project(packed: Path, short: Path) -> Iterator[Project]:
    with open_project(packed) as project:
        yield project


def planned(project: Project, model: str | None = "churn", **options: Any) -> tuple[dict[str, Any], Desired]:
    chosen = choose_all(project) if model is None else [choose(project, model)]
    runtime = runtime_folder(project.settings)
    wish, desired, _ = make_wish(project, settle(project, chosen), runtime, **options)
    return wish, desired


def wish_of(project: Project, model: str | None = "churn", **options: Any) -> dict[str, Any]:
    return planned(project, model, **options)[0]


def served_of(project: Project, model: str | None = "churn", **options: Any) -> DeploymentConfig:
    (one,) = planned(project, model, **options)[1].deployments
    return one.stable


def worker_of(wish: dict[str, Any]) -> WorkerConfig:
    return msgspec.convert(wish["groups"][1]["config"], WorkerConfig)


def test_the_wish_is_one_that_the_supervisor_and_the_worker_read(project: Project) -> None:
    wish = wish_of(project)
    parsed = Wish.parse(json.loads(json.dumps(wish)))
    assert parsed.listen == (("127.0.0.1", 8080, "worker"),)
    assert [(group.kind, group.first, group.size) for group in parsed.groups] == [
        ("host", 0, 14),
        ("worker", project.settings.serve.workers, 48),
        ("controller", 1, 1),
    ]
    worker = worker_of(wish)
    one = served_of(project)
    assert (one.deployment, one.ref, worker.loopback) == ("churn", "churn:1", True)
    assert worker.trusted == tuple(project.trusted())
    assert not one.keys_required


def test_the_admin_api_is_the_controller_s_and_only_where_it_is_set(packed: Path, short: Path) -> None:
    with open_project(packed, overrides={"serve.admin": 8082}) as project:
        wish = wish_of(project)
        assert Wish.parse(wish).listen[1:] == (("127.0.0.1", 8082, "controller"),)
        assert "admin      http://127.0.0.1:{controller}, with a key" in wish["banner"]
        assert from_json(json.loads(json.dumps(wish["groups"][2]["config"]["admin"]))) == project.settings
    with open_project(packed) as project:
        assert "admin" not in wish_of(project)["groups"][2]["config"]


def test_grpc_has_the_second_socket(packed: Path, short: Path) -> None:
    with open_project(packed, overrides={"serve.grpc": 8081, "serve.port": 9000}) as project:
        wish = wish_of(project)
        assert wish["listen"] == [["127.0.0.1", 9000], ["127.0.0.1", 8081]]
        assert worker_of(wish).doors == ("http", "grpc")
        assert "\n  grpc       127.0.0.1:{port2}\n" in wish["banner"]
        told = json.loads(wish_of(project, as_json=True)["banner"])
        assert told["grpc"] == "127.0.0.1:{port2}"
    with open_project(packed) as project:
        assert worker_of(wish_of(project)).doors == ("http",)
        assert "grpc" not in wish_of(project)["banner"]


def test_the_banner_is_plain_and_ends_with_a_line_to_paste(project: Project) -> None:
    words = wish_of(project)["banner"]
    assert "\x1b" not in words
    assert "churn:1  scikit-learn" in words
    assert "3 inputs, 2 classes" in words
    curl = next(line for line in words.splitlines() if line.startswith("curl "))
    command = shlex.split(curl)
    assert command[2] == "http://127.0.0.1:{port}/predict/churn"
    row = json.loads(command[command.index("-d") + 1])
    assert set(row) == {"age", "visits", "plan"}
    assert None not in row.values()


def test_the_banner_says_when_the_champion_is_another_version(short: Path, tmp_path: Path) -> None:
    with open_project(tmp_path) as project:
        for inputs in (3, 4):
            model = toy_onnx(tmp_path / f"{inputs}.onnx", inputs=inputs)
            pack_into(project, model, None, None, name="toy")
        newest, champion = (wish_of(project, model)["banner"] for model in ("toy", "toy@champion"))
    assert "model      toy:2 " in newest
    assert "; champion is toy:1\n" in newest
    assert "champion is" not in champion


def test_a_limit_for_a_key_that_there_is_not_is_noted(packed: Path, short: Path, tmp_path: Path) -> None:
    config = tmp_path / "cloche.toml"
    config.write_text(
        f'[project]\ndata = "{packed / ".cloche"}"\n[online.churn]\nmodel = "churn"\n'
        'access = { keys = true, limits = { default = "9/s", phone = "9/s", moblie = "9/s" } }\n'
    )
    said: list[str] = []
    with open_project(config=config) as project:
        Keys(project.store).create("phone")
        note_limits(project, choose_all(project), said.append)
        Keys(project.store).revoke("phone")
    assert said == ["warning: no API key has the name of these limits: moblie (there are: phone)"]


def test_what_the_processes_would_take_is_compared_with_what_is_free(project: Project) -> None:
    bundle = choose(project, "churn").bundle
    measured = bundle.manifest.measured
    assert measured is not None
    limit = measured.load_bytes
    check_memory([bundle], 4, None, limit)
    check_memory([bundle], 4, 4 * measured.load_bytes, limit)
    with pytest.raises(RefusedError, match=r"loading .* in each of 4 workers\), and .* is free") as caught:
        check_memory([bundle], 4, 4 * measured.load_bytes - 1, limit)
    assert caught.value.code == "CL-E412"
    assert "lower isolate_above" in str(caught.value.hint)
    # above the limit all workers share one, however many deployments do
    check_memory([bundle, bundle], 4, measured.load_bytes, limit - 1)
    with pytest.raises(RefusedError, match=r"churn:1: loading takes about .* of memory, and .* is free") as caught:
        check_memory([bundle], 4, measured.load_bytes - 1, limit - 1)
    assert "--workers" not in str(caught.value.hint)
    # one after the other: what the first keeps, and the most that the second takes
    two = measured.memory_bytes + measured.load_bytes
    check_memory([bundle, bundle], 1, two, limit)
    with pytest.raises(RefusedError, match=r"churn:1, churn:1: loading .* and .* is free"):
        check_memory([bundle, bundle], 1, two - 1, limit)


def test_the_banner_can_be_one_json_object(project: Project) -> None:
    found = json.loads(wish_of(project, as_json=True)["banner"])
    assert found["kind"] == "Up"
    (one,) = found["deployments"]
    assert one["model"] == "churn:1"
    assert one["docs"] == "http://127.0.0.1:{port}/docs"


def test_an_example_that_is_too_long_for_a_line_lies_in_a_file(short: Path, tmp_path: Path) -> None:
    with open_project(tmp_path) as project:
        words = wish_of(project, str(toy_onnx(tmp_path / "wide.onnx", inputs=400)))["banner"]
    curl = next(line for line in words.splitlines() if line.startswith("curl "))
    file = Path(shlex.split(curl)[-1].removeprefix("@"))
    assert len(json.loads(file.read_text())["x"]) == 400


def test_new_keys_do_not_make_another_wish_but_other_workers_do(packed: Path, short: Path) -> None:
    with open_project(packed) as project:
        first = wish_of(project)
        key = Keys(project.store).create("mobile")
        second = wish_of(project)
        Keys(project.store).revoke("mobile")
    assert second["digest"] == first["digest"]
    assert [record.id for record in worker_of(second).keys] == [key.record.id]
    with open_project(packed, overrides={"serve.workers": 7}) as project:
        assert wish_of(project)["digest"] != first["digest"]


def test_a_described_deployment_brings_its_options(packed: Path, short: Path, tmp_path: Path) -> None:
    config = tmp_path / "cloche.toml"
    config.write_text(
        f"""
        [project]
        data = "{packed / ".cloche"}"
        [online.churn]
        model = "churn@champion"
        deadline = "80ms"
        on_invalid = "reject"
        cache = {{ size = "1MB", ttl = "5s" }}
        access = {{ keys = true, limits = {{ default = "100/s" }} }}
        """
    )
    with open_project(config=config) as project:
        for model in (None, "churn:1"):
            worker = served_of(project, model)
            assert worker.deadline_s == 0.08
            assert worker.on_invalid == "reject"
            assert worker.cache is not None
            assert (worker.cache.bytes, worker.cache.ttl_s) == (1_000_000, 5.0)
            assert worker.keys_required
            assert worker.limits["default"].count == 100
            assert "Bearer $CLOCHE_KEY" in wish_of(project, model)["banner"]


def test_nothing_to_serve_is_said(project: Project) -> None:
    with pytest.raises(ConfigError, match="there is nothing to serve"):
        choose_all(project)


def test_an_unknown_model_and_a_missing_file_are_said(project: Project) -> None:
    with pytest.raises(NotFoundError, match="chrun"):
        choose(project, "chrun")
    with pytest.raises(NotFoundError, match=r"there is no file chrun\.onnx"):
        choose(project, "chrun.onnx")


def test_a_plain_onnx_file_is_packed_first(short: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    with open_project(tmp_path) as project:
        chosen = choose(
            project, str(toy_onnx(tmp_path / "Toy sum.onnx")), progress=lambda what, *_: heard.append(what)
        )
        assert str(chosen.version) == "toy-sum:1"
        assert chosen.online.name == "toy-sum"
        assert project.registry.resolve("toy-sum@champion").digest == chosen.bundle.digest
    assert heard


def test_a_file_that_was_packed_before_is_not_packed_again(short: Path, tmp_path: Path) -> None:
    file = toy_onnx(tmp_path / "toy.onnx")
    with open_project(tmp_path) as project:
        first = wish_of(project, str(file))
        assert wish_of(project, str(file))["digest"] == first["digest"]
        toy_onnx(file, inputs=4)
        assert str(choose(project, str(file)).version) == "toy:2"
        toy_onnx(file, inputs=3)
        assert str(choose(project, str(file)).version) == "toy:1"


def test_a_bundle_folder_and_an_archive_are_registered(project: Project, tmp_path: Path) -> None:
    path = project.open("churn:1").path
    assert str(choose(project, str(path)).version) == "churn:1"
    file = export_bundle(project, "churn:1", tmp_path / "churn.cloche")
    assert str(choose(project, str(file)).version) == "churn:1"


@pytest.mark.parametrize("name", ["card.md", "profile.json", "sbom.json", "model/model.onnx"])
def test_a_bundle_with_one_byte_changed_is_not_served(project: Project, name: str) -> None:
    chosen = choose(project, "churn")
    file = chosen.bundle.path / name
    packed = file.read_bytes()
    file.chmod(0o600)
    try:
        file.write_bytes(packed[:-1] + bytes([packed[-1] ^ 1]))
        with pytest.raises(RefusedError, match=name) as caught:
            make_wish(project, settle(project, [chosen]), runtime_folder(project.settings))
        assert caught.value.code == "CL-E404"
    finally:
        file.write_bytes(packed)
        file.chmod(0o400)


def test_code_runs_only_where_it_is_allowed(short: Path, tmp_path: Path) -> None:
    source = tmp_path / "longest.py"
    source.write_text(CLASS)
    with open_project(tmp_path) as project:
        with pytest.raises(RefusedError) as caught:
            choose(project, f"{source}:Longest")
        assert caught.value.code == "CL-E406"
        assert project.registry.models() == ()
    with open_project(tmp_path, overrides={"serve.allow_code": True}) as project:
        wish = wish_of(project, f"{source}:Longest")
        again, desired = planned(project, f"{source}:Longest")
        assert again["digest"] == wish["digest"]
    hosts, *_ = Wish.parse(wish).groups
    assert hosts.first == 2
    assert [config["socket"] for config in hosts.config] == list(desired.deployments[0].stable.hosts)
    assert "sandbox    none: the model's code may do whatever you may\n" in wish["banner"]
    with open_project(tmp_path) as project, pytest.raises(RefusedError) as caught:
        wish_of(project, "longest")
    assert caught.value.code == "CL-E406"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_beyond_loopback_keys_and_tls_elsewhere_are_needed(packed: Path, short: Path, host: str) -> None:
    with open_project(packed, overrides={"serve.host": host}) as project:
        with pytest.raises(RefusedError, match="not encrypted") as caught:
            wish_of(project)
        assert caught.value.code == "CL-E409"
        with pytest.raises(RefusedError, match="no API key yet") as caught:
            wish_of(project, tls_elsewhere=True)
        assert caught.value.code == "CL-E409"
        Keys(project.store).create("mobile")
        wish, desired = planned(project, tls_elsewhere=True)
        Keys(project.store).revoke("mobile")
    assert desired.deployments[0].stable.keys_required
    assert not worker_of(wish).loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_neither(packed: Path, short: Path, host: str) -> None:
    with open_project(packed, overrides={"serve.host": host}) as project:
        assert not served_of(project).keys_required


def test_a_runtime_path_that_no_socket_fits_in_is_said(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 20)
    long.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with open_project(packed) as project, pytest.raises(ConfigError, match="too long a path"):
        runtime_folder(project.settings)


def test_it_becomes_the_supervisor_and_a_second_one_is_a_conflict(
    packed: Path, short: Path, free_port: int
) -> None:
    program = (
        "import sys\n"
        "from cloche.app.project import open_project\n"
        "from cloche.app.up import up\n"
        "from cloche.core.errors import ClocheError\n"
        "overrides = {'serve.port': int(sys.argv[2]), 'serve.workers': 1}\n"
        "try:\n"
        "    up(open_project(sys.argv[1], overrides=overrides), 'churn', as_json=True)\n"
        "except ClocheError as error:\n"
        "    print(error.render(), file=sys.stderr)\n"
        "    sys.exit(error.exit_code)\n"
    )
    command = [sys.executable, "-c", program, str(packed), str(free_port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as first:
        try:
            assert first.stdout is not None
            (said,) = json.loads(first.stdout.readline())["deployments"]
            assert said["predict"] == f"http://127.0.0.1:{free_port}/predict/churn"
            answer = subprocess.run(shlex.split(said["try"]), capture_output=True, check=True, text=True)
            assert json.loads(answer.stdout)["model"] == "churn:1"
            second = subprocess.run(command, capture_output=True, text=True, check=False)
            assert second.returncode == 5
            assert (
                f"churn:1 at http://127.0.0.1:{free_port} is running already (process {first.pid})"
                in second.stderr
            )
        finally:
            os.kill(first.pid, signal.SIGTERM)
        assert first.wait(30) == 143


def test_a_device_that_is_not_there_is_told_before_the_start(project: Project) -> None:
    chosen = choose(project, "churn")
    on_gpu = msgspec.structs.replace(chosen, online=msgspec.structs.replace(chosen.online, device="cuda"))
    with pytest.raises(MissingExtraError, match="needs an ONNX Runtime with CUDA"):
        make_wish(project, [on_gpu], runtime_folder(project.settings))
    assert served_of(project).device == "cpu"


def test_a_worker_loads_nothing_that_only_some_need() -> None:
    # each is tens of MiB in every worker, and a good part of a second at its start
    dear = {"sqlalchemy", "pandas", "pyarrow", "sklearn", "onnx"}
    code = f"import sys, cloche.app.worker; print({dear} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
