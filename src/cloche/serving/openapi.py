"""The OpenAPI 3.1 document of what a worker serves, made from the signature with real examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloche.serving.protocols.base import Dialect, Live
from cloche.serving.protocols.schema import PROBLEM_SCHEMA, signature_schemas


def openapi_document(live: Live, dialects: Sequence[Dialect]) -> dict[str, Any]:
    """Every route but the page itself; keys stand as an HTTP bearer scheme."""
    paths: dict[str, Any] = {}
    for dialect in dialects:
        paths.update(dialect.openapi())
    for path, summary in (
        ("/livez", "The process lives"),
        ("/readyz", "The process answers predictions"),
        ("/v2/health/live", "The process lives"),
        ("/v2/health/ready", "The process answers predictions"),
    ):
        responses: dict[str, Any] = {"200": {"description": "Yes."}}
        if "ready" in path:
            responses["503"] = {"description": "Not yet, or not any more."}
        paths[path] = {"get": {"operationId": path.strip("/").replace("/", "_"), "summary": summary,
                               "security": [], "responses": responses}}  # fmt: skip
    paths["/metrics"] = {
        "get": {
            "operationId": "metrics",
            "summary": "Prometheus metrics of the machine",
            "responses": {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": live.deployment, "version": str(live.version), "description": live.description},
        "paths": paths,
        "components": {
            "schemas": {**signature_schemas(live.signature), "Problem": PROBLEM_SCHEMA},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "clk_live_…"}},
        },
        "security": [{}, {"key": []}],
    }
