"""The OpenAPI 3.1 document of what a worker serves, made from the signature with real examples."""

from __future__ import annotations

from typing import Any

from cloche.serving.protocols.schema import PROBLEM_SCHEMA, signature_schemas
from cloche.serving.table import Table


def openapi_document(table: Table) -> dict[str, Any]:
    """Every route but the pages themselves; keys stand as an HTTP bearer scheme."""
    lives = [one.deployment.live for one in table.predictions]
    live = lives[0]
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for one in table.predictions:
        schemas |= signature_schemas(one.deployment.live)
        for dialect in one.dialects:
            paths |= {path: item for path, item in dialect.openapi().items() if not table.is_contested(path)}
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
    info = {"title": live.deployment, "version": str(live.version), "description": live.description}
    if len(lives) > 1:
        refs = ", ".join(each.ref for each in lives)
        info = {"title": ", ".join(live.listed), "version": "1", "description": f"Live are {refs}."}
    return {
        "openapi": "3.1.0",
        "info": info,
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": PROBLEM_SCHEMA},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "clk_live_…"}},
        },
        "security": [{}, {"key": []}],
    }
