"""A version goes to another host over TLS, is deployed there from here, and is refused where it was changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from tests.cutter import Cutter
from tests.journeys.releases import release
from tests.journeys.serving import Serving, again, cloche, until, up
from tests.journeys.test_tls import AUTHORITY, trusting, write_pair

CONFIG = """
version = 1
[serve]
workers = 1
admin = 0
{tls}
[online.toy]
model = "toy@champion"
"""
ROW = {"x": [0.1, 0.2]}
#: How much of a push goes through before it breaks.
CUT_AFTER = 600_000


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A project with toy:1, and two larger ones that are to go out."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "cloche.toml").write_text(CONFIG.format(tls=""))
    assert [release(folder, "good"), release(folder, "large", 3.0), release(folder, "large", 4.0)] == [1, 2, 3]
    AUTHORITY.cert_pem.write_to_path(str(folder / "ca.pem"))
    return folder


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Serving]:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "cloche.toml").write_text(CONFIG.format(tls='tls = { cert = "cert.pem", key = "key.pem" }'))
    write_pair(folder)
    release(folder, "good")
    with up(folder, context=trusting()) as serving:
        yield serving


Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def remote(here: Path, there: Serving) -> Run:
    """Run a command here with --host, in the name of a key of that host."""
    key = cloche(there.folder, "keys", "create", "pipeline", "--scope", "deploy").stdout.strip()
    url = admin_url(there)

    def run(*words: str, check: bool = True, host: str = url) -> CompletedProcess[str]:
        options = ("--host", host, "--cafile", "ca.pem")
        return cloche(here, *words, *options, check=check, env={"CLOCHE_KEY": key})

    return run


def admin_url(serving: Serving) -> str:
    found = re.search(r"admin +(https?://[^,\s]+)", serving.log.read_text())
    assert found is not None
    return found[1]


def versions(folder: Path) -> list[str]:
    return [one["reference"] for one in json.loads(cloche(folder, "models", "ls", "--json").stdout)["items"]]


def trust(here: Path, there: Serving) -> None:
    signer = json.loads(cloche(here, "models", "show", "toy:1", "--json").stdout)["signer"]
    cloche(there.folder, "trust", "add", signer, "--name", "here")


def test_pushed_through_a_broken_line_and_deployed_from_here(here: Path, there: Serving, remote: Run) -> None:
    with up(here) as ours:
        unknown = remote("push", "toy:2", check=False)
        assert unknown.returncode == 4
        assert "cloche trust add" in unknown.stderr
        trust(here, there)
        cutter = Cutter(admin_url(there), CUT_AFTER)
        broken = remote("push", "toy:2", check=False, host=cutter.url)
        cutter.close()
        assert broken.returncode == 6, broken.stderr
        assert "it goes on where it broke off" in broken.stderr
        assert versions(there.folder) == ["toy:1"]
        parts = until(lambda: list(there.folder.glob(".cloche/bundles/.push-*/*.part")), "what came stays")
        assert 0 < sum(part.stat().st_size for part in parts) < CUT_AFTER
        sent = remote("push", "toy:2")
        assert "toy:2 is at https://" in sent.stdout
        assert versions(there.folder) == ["toy:2", "toy:1"]
        went = remote("deploy", "toy:2", "--now", "--wait", "--timeout", "60s")
        assert "promoted" in went.stdout
        until(lambda: there.ask("/predict/toy", ROW).headers["cloche-model"] == "toy:2", "toy:2 answers there")
        assert ours.ask("/predict/toy", ROW).headers["cloche-model"] == "toy:1"
    told = json.loads(remote("history", "--json").stdout)["items"]
    assert ("pipeline", "began") in [(one["who"], one["action"]) for one in told]
    assert json.loads(remote("status", "toy", "--json").stdout)["items"][0]["versions"][0]["version"] == "toy:2"
    assert "toy:1 has all of the traffic" in remote("rollback", "toy", "--why", "odd").stdout
    until(lambda: there.ask("/predict/toy", ROW).headers["cloche-model"] == "toy:1", "the rollback")
    assert remote("deploy", "toy:2", check=False).returncode == 4
    remote("unblock", "toy:2")
    remote("deploy", "toy:2", "--steps", "50% for 1h, 100%")
    for command in ("pause", "resume", "abort"):
        remote(command, "toy")
    audited = json.loads(cloche(there.folder, "audit", "ls", "--json").stdout)["items"]
    assert {one["action"] for one in audited if one["who"] == "pipeline"} == {
        "pushed", "deployed", "rolled back", "unblocked", "ordered",
    }  # fmt: skip
    assert "rows hold" in cloche(there.folder, "audit", "verify").stdout


def test_a_changed_file_is_refused_there(here: Path, there: Serving, remote: Run) -> None:
    trust(here, there)
    digest = json.loads(cloche(here, "models", "show", "toy:3", "--json").stdout)["digest"]
    model = here / ".cloche" / "bundles" / digest / "model" / "model.onnx"
    model.chmod(0o644)
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for words in (("push", "toy:3"), ("deploy", "toy:3", "--wait")):
        refused = remote(*words, check=False)
        assert refused.returncode == 4, refused.stderr
        assert "CL-E404" in refused.stderr
        assert "model/model.onnx is not what was packed" in refused.stderr
    assert versions(there.folder) == ["toy:1"]
    # what is not here is meant as it is there
    shutil.rmtree(here / ".cloche")
    assert "toy:1 has all traffic of toy already" in remote("deploy", "toy:1", check=False).stderr


def test_the_admin_address_survives_a_supervisor_and_a_controller(there: Serving, remote: Run) -> None:
    (controller,) = there.children()["controller"]
    os.kill(there.process.pid, signal.SIGKILL)
    there.process.wait(10)
    url = admin_url(there)
    again(there)
    assert admin_url(there) == url
    assert "toy:1" in remote("status").stdout
    os.kill(controller, signal.SIGKILL)
    until(lambda: remote("status", check=False).returncode == 0, "the next controller answers there")
    (now,) = there.children()["controller"]
    assert now != controller


def test_a_host_that_is_not_certified_is_not_talked_to(here: Path, there: Serving) -> None:
    refused = cloche(here, "status", "--host", admin_url(there), check=False, env={"CLOCHE_KEY": "clk_live_x"})
    assert refused.returncode == 6
    assert "certificate" in refused.stderr.lower()
