"""Has another host do what one does to deployments here, through its admin API; and sends bundles there."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec

from cloche.client.answers import error_of
from cloche.core.errors import BusyError, ConfigError

Answer = dict[str, Any]
TIMEOUT_S = 30.0
#: For what the other host reads whole bundles for.
_LONG_S = 600.0


class Admin:
    """An Admin is the admin API of one host: the methods of `app.acts.Acts`, and an upload; use it in a `with`.

    `cafile` holds the certificates to trust instead of the system's. Raises as the other host did, BusyError
    CL-E605 where nothing answers, CL-E602 where it takes too long.
    """

    def __init__(self, url: str, *, key: str | None, cafile: Path | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{url!r} does not begin with http:// or https://", hint="write https://host:8082")
        self.url = url.rstrip("/")
        self._http = httpx2.Client(
            base_url=f"{self.url}/api/v1",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            verify=_trusting(cafile),
            trust_env=False,  # no proxies and no .netrc: the url and the key are all there is to it
            timeout=TIMEOUT_S,
        )

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def status(self, name: str | None = None) -> Answer:
        return self._get("/deployments" if name is None else f"/deployments/{_quoted(name)}")

    def history(self, name: str | None = None, limit: int = 50) -> Answer:
        return self._get("/history", {"limit": str(limit)} | ({} if name is None else {"deployment": name}))

    def stats(self, name: str | None = None, last: str = "1h") -> Answer:
        return self._get("/stats", {"last": last} | ({} if name is None else {"deployment": name}))

    def deploy(
        self,
        reference: str,
        *,
        deployment: str | None = None,
        strategy: str | None = None,
        steps: str | None = None,
        metric: str = "",
        breaking: bool = False,
    ) -> Answer:
        form = {
            "deployment": deployment,
            "strategy": strategy,
            "steps": steps,
            "breaking": breaking,
            "metric": metric,
        }
        return self._send("POST", "/rollouts", {"reference": reference, **form}, _LONG_S)

    def rollout(self, number: int) -> Answer:
        return self._get(f"/rollouts/{number}")

    def order(self, name: str | None, command: str) -> Answer:
        return self._send("POST", f"/{command}", {"deployment": name})

    def rollback(self, name: str | None, version: int | None = None, why: str = "by hand") -> Answer:
        return self._send("POST", "/rollback", {"deployment": name, "to": version, "why": why}, _LONG_S)

    def unblock(self, reference: str) -> Answer:
        return self._send("POST", "/unblock", {"reference": reference})

    def begin(self, manifest: bytes, seal: bytes, name: str) -> Answer:
        """Say which bundle is to come; what is missing of it there."""
        form = {"manifest": manifest.decode(), "seal": seal.decode(), "name": name}
        return self._send("POST", "/uploads", form, _LONG_S)

    def add(self, digest: str, sha256: str, offset: int, piece: bytes) -> Answer:
        """Send a part of a file that is so far there."""
        return self._ask(
            "PATCH",
            f"/uploads/{digest}/files/{sha256}",
            content=piece,
            headers={"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"},
            timeout=_LONG_S,
        )

    def finish(self, digest: str, name: str) -> Answer:
        """Have it verified and registered; the version."""
        return self._send("POST", f"/uploads/{digest}/finish", {"name": name}, _LONG_S)

    def _get(self, path: str, query: dict[str, str] | None = None) -> Answer:
        return self._ask("GET", path, params=query)

    def _send(self, method: str, path: str, form: Answer, timeout_s: float = TIMEOUT_S) -> Answer:
        headers = {"Content-Type": "application/json"}
        return self._ask(method, path, content=msgspec.json.encode(form), headers=headers, timeout=timeout_s)

    def _ask(self, method: str, path: str, **options: Any) -> Answer:
        try:
            response = self._http.request(method, path, **options)
        except httpx2.TimeoutException as error:
            raise BusyError("no answer in time", code="CL-E602", where=self.url, hint="try again") from error
        except httpx2.TransportError as error:
            raise BusyError(
                f"nothing answers at {self.url}: {error}",
                code="CL-E605",
                where=self.url,
                hint="is it what `cloche up` there calls admin? --cafile names whom to trust for TLS",
            ) from error
        if response.status_code != 200:
            raise error_of(response)
        return msgspec.json.decode(response.content, type=Answer)


def _trusting(cafile: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{cafile} holds no certificates: {error}", code="CL-E207", hint="PEM is wanted"
        ) from None


def _quoted(text: str) -> str:
    return quote(text, safe="")
