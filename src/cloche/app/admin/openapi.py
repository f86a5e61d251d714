"""What the admin API takes, as an OpenAPI document made from its routes."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from cloche import __version__
from cloche.app.admin.routes import FILE_PATH, PREFIX, ROUTES, Route

_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def openapi_document() -> bytes:
    """OpenAPI 3.1 as JSON."""
    forms = list({route.form: None for route in ROUTES if route.form is not None})
    _, components = msgspec.json.schema_components(forms, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(_plain(route.path), {})[route.method.lower()] = _operation(route, components)
    paths[f"{PREFIX}{FILE_PATH}"] = {"patch": _file_operation()}
    problem = {"type": "object", "required": ["type", "title", "status", "detail", "code", "request_id"]}
    answer = {"type": "object", "required": ["kind", "version"], "description": "As `--json` of the command."}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Cloche admin", "version": __version__},
            "paths": paths,
            "components": {
                "schemas": {**components, "Problem": problem, "Answer": answer},
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"key": []}],
        }
    )


def _operation(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    told = _described(route.summary, f"{route.method.lower()}{_words(route.path)}", route.scope)
    told["parameters"] = _path_parameters(route.path)
    if route.form is None:
        return told
    if route.method == "GET":
        properties = components[route.form.__name__]["properties"]
        told["parameters"] += [{"name": name, "in": "query", "schema": one} for name, one in properties.items()]
    else:
        schema = {"$ref": f"#/components/schemas/{route.form.__name__}"}
        told["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return told


def _file_operation() -> dict[str, Any]:
    told = _described("Add to a file from an offset on", "patch_upload_file", "deploy")
    header = {
        "name": "Upload-Offset",
        "in": "header",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    }
    return {**told, "parameters": [*_path_parameters(FILE_PATH), header], "requestBody": {"content": _BINARY}}


def _described(summary: str, name: str, scope: str) -> dict[str, Any]:
    answer = {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "summary": summary,
        "operationId": name,
        "description": f"Needs a key with the scope `{scope}`.",
        "responses": {
            "200": {"description": "Done.", "content": answer},
            "default": {"description": "Not done.", "content": problem},
        },
    }


def _plain(path: str) -> str:
    return f"{PREFIX}{path.replace(':int', '')}"


def _words(path: str) -> str:
    return re.sub(r"\W+", "_", path.replace(":int", "")).rstrip("_")


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
