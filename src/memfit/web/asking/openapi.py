"""The interface of the server as an OpenAPI document; the tests hold the server against it."""

from __future__ import annotations

from typing import Any

from memfit.recipe.fields import MAX_BATCH, Offer, offered
from memfit.version import __version__
from memfit.web.asking.requests import FREE_BYTES, GPU_WORD

__all__ = ["OPENAPI"]

_RECIPE = {
    "type": "object",
    "required": ["model"],
    "additionalProperties": False,
    "properties": {row.name: row.schema for row in offered(Offer.REQUEST)},
}

_PLAN_REQUEST = {
    "type": "object",
    "required": ["recipe"],
    "additionalProperties": False,
    "properties": {
        "recipe": {"$ref": "#/components/schemas/Recipe"},
        "gpu": GPU_WORD.schema_or_null | {"description": "A card's key, or a size such as 11GiB."},
        "free_bytes": FREE_BYTES.schema_or_null,
    },
}

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "hint"],
            "properties": {"message": {"type": "string"}, "hint": {"type": "string"}},
        }
    },
}

_MEANINGS = {
    400: "No JSON, or an address or headers that are too long",
    401: "The token is missing or wrong",
    403: "Asked from another page, or by another host name",
    404: "No such thing",
    408: "It took too long",
    413: "The body is too large",
    415: "The body is not application/json",
    422: "Something in the request is unknown or impossible",
    503: "All workers are busy, or one ended",
}


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query(name: str, smallest: int, largest: int, *, required: bool) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": smallest, "maximum": largest}
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _operation(
    name: str,
    summary: str,
    media_type: str,
    statuses: tuple[int, ...],
    parameters: tuple[dict[str, Any], ...] = (),
) -> dict[str, Any]:
    refused = {
        str(status): {
            "description": _MEANINGS[status],
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status in sorted({400, 401, 403, 408, 413, *statuses})
    }
    return {
        "operationId": name,
        "summary": summary,
        "parameters": list(parameters),
        "responses": {"200": {"description": summary, "content": {media_type: {}}}, **refused},
    }


_JSON, _LINES, _BYTES = "application/json", "application/x-ndjson", "application/octet-stream"
_PLAN, _NAME = _path("plan"), _path("name")
_BATCH = _query("batch", 1, MAX_BATCH, required=True)
_AFTER = _query("after", 0, 10**12, required=False)
_BODY = {
    "required": True,
    "content": {_JSON: {"schema": {"$ref": "#/components/schemas/PlanRequest"}}},
}

OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "memfit serve", "version": __version__},
    "security": [{"token": []}],
    "components": {
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        "schemas": {"Recipe": _RECIPE, "PlanRequest": _PLAN_REQUEST, "Error": _ERROR},
    },
    "paths": {
        "/api/about": {"get": _operation("about", "What there is", _JSON, (503,))},
        "/api/openapi.json": {"get": _operation("openapi", "This document", _JSON, ())},
        "/api/learn": {"get": _operation("learn", "Plans of the lessons", _JSON, (422, 503))},
        "/api/plan": {
            "post": {
                **_operation("plan", "Progress, then a plan", _LINES, (415, 422, 503)),
                "requestBody": _BODY,
            }
        },
        "/api/plan/{plan}/sizes": {
            "get": _operation(
                "sizes", "Exact sizes at a batch", _JSON, (404, 422, 503), (_PLAN, _BATCH)
            )
        },
        "/api/plan/{plan}/options": {
            "post": _operation(
                "options", "Progress, then ways to fit more", _LINES, (404, 503), (_PLAN,)
            )
        },
        "/api/plan/{plan}/snapshot": {
            "get": _operation(
                "snapshot", "A snapshot for PyTorch's viewer", _BYTES, (404, 422, 503),
                (_PLAN, _BATCH),
            )
        },
        "/api/data/{name}": {
            "get": _operation("data", "A data document", _JSON, (404, 422, 503), (_NAME,))
        },
        "/api/studies/{name}": {
            "get": _operation("study", "A study document", _JSON, (404, 422, 503), (_NAME,))
        },
        "/api/runs/{name}": {
            "get": _operation("run", "A run document", _JSON, (404, 422, 503), (_NAME, _AFTER))
        },
    },
}  # fmt: skip
