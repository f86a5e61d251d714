"""`cloche up` with a certificate: HTTPS, a renewed pair without a restart, and a stop that loses nothing."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import ssl
import threading
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from tests.journeys.serving import Serving, cloche, until, up

AUTHORITY = trustme.CA()


def write_pair(folder: Path) -> None:
    """A new certificate for 127.0.0.1 and its key, each put in place at once."""
    made = AUTHORITY.issue_cert("127.0.0.1")
    chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
    for name, text in (("key.pem", made.private_key_pem.bytes()), ("cert.pem", chain)):
        (folder / "new.pem").write_bytes(text)
        (folder / "new.pem").replace(folder / name)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


@pytest.fixture
def project(shop: Path, tmp_path: Path) -> Path:
    shutil.copytree(shop / ".cloche", tmp_path / ".cloche")
    write_pair(tmp_path)
    (tmp_path / "cloche.toml").write_text(
        'version = 1\n[serve]\nworkers = 2\ntls = { cert = "cert.pem", key = "key.pem" }\n'
    )
    return tmp_path


def connect(serving: Serving) -> http.client.HTTPSConnection:
    parts = urlsplit(serving.url)
    return http.client.HTTPSConnection(str(parts.hostname), parts.port, timeout=20, context=serving.context)


def serial(serving: Serving) -> int:
    connection = connect(serving)
    connection.connect()
    found = connection.sock.getpeercert()
    connection.close()
    return int(found["serialNumber"], 16)


def test_callers_speak_https_and_nothing_else(project: Path, customer: dict[str, Any]) -> None:
    with up(project, "churn", context=trusting()) as serving:
        assert serving.url.startswith("https://")
        assert serving.ask("/predict/churn", customer).status == 200
        parts = urlsplit(serving.url)
        plain = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            plain.request("GET", "/livez")
            plain.getresponse()
        plain.close()
        old = ssl.create_default_context()
        AUTHORITY.configure_trust(old)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        serving.context = old
        assert serving.ask("/livez").status == 200


def test_a_renewed_certificate_is_used_without_a_restart(project: Path, customer: dict[str, Any]) -> None:
    with up(project, "churn", context=trusting()) as serving:
        held = connect(serving)
        held.request("GET", "/livez")
        held.getresponse().read()
        first = serial(serving)
        (project / "cert.pem").write_bytes(b"no certificate")
        logged = "the old certificate stays"
        until(lambda: serving.log.read_text().count(logged) >= 2, "both workers see a pair that does not fit")
        assert serial(serving) == first
        write_pair(project)
        until(lambda: all(serial(serving) != first for _ in range(8)), "every worker shows the new one")
        held.request("POST", "/predict/churn", json.dumps(customer), {"content-type": "application/json"})
        assert held.getresponse().status == 200
        held.close()


def test_a_stop_under_load_loses_no_request(project: Path, customer: dict[str, Any]) -> None:
    with up(project, "churn", context=trusting()) as serving:
        seen: Counter[str] = Counter()
        body = json.dumps(customer)

        def ask() -> None:
            """A connection for each request, until there is nobody to connect to."""
            while True:
                connection = connect(serving)
                try:
                    connection.request("POST", "/predict/churn", body, {"content-type": "application/json"})
                    seen[str(connection.getresponse().status)] += 1
                except ConnectionRefusedError:
                    return
                except OSError as error:
                    seen[type(error).__name__] += 1
                    return
                finally:
                    connection.close()

        callers = [threading.Thread(target=ask) for _ in range(8)]
        for caller in callers:
            caller.start()
        until(lambda: seen["200"] > 100, "the load is on")
        assert serving.stop(signal.SIGTERM) == 143
        for caller in callers:
            caller.join(30)
        assert set(seen) == {"200"}, seen


def test_what_is_no_pair_is_told_before_the_start(project: Path) -> None:
    made = AUTHORITY.issue_cert("127.0.0.1")
    (project / "key.pem").write_bytes(made.private_key_pem.bytes())
    done = cloche(project, "up", "churn", "--port", "0", check=False)
    assert done.returncode == 2
    assert "CL-E207" in done.stderr
    assert "don't belong together" in done.stderr
    (project / "key.pem").unlink()
    done = cloche(project, "up", "churn", "--port", "0", check=False)
    assert "key.pem can't be read: No such file" in done.stderr
