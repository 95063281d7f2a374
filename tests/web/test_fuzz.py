"""Every operation of the OpenAPI document with good and bad values: no 500, no unlisted status."""

from __future__ import annotations

import json
from functools import cache
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_server import Server

from memfit.web.asking.openapi import OPENAPI

OPERATIONS = [(method, path) for path, methods in OPENAPI["paths"].items() for method in methods]
TEXT = st.text(st.characters(codec=None), max_size=12)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["mlp", "resnet50", "torchvision:resnet50", "my.py:build", "os:system", "adamw", "sgd",
     "sgd,momentum=0.9", "sgd,lr=1,nesterov=true", "rtx-3060", "11GiB", "0GiB", "first", "demo",
     "mnist", "..", "a b", "expandable_segments:True"]
)  # fmt: skip


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the schema allows, and now and then others."""
    if "$ref" in schema:
        return values_of(OPENAPI["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) | JUNK
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of(*(of_kind(kind, schema) for kind in kinds), JUNK)


def of_kind(kind: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    low, high = schema.get("minimum", 0), schema.get("maximum", 9)
    if kind == "object":
        properties = {name: values_of(each) for name, each in schema["properties"].items()}
        required = {name: properties.pop(name) for name in schema["required"]}
        return st.fixed_dictionaries(required, optional=properties)
    if kind == "array":
        return st.lists(values_of(schema["items"]), max_size=schema["maxItems"] + 1)
    simple: dict[str, st.SearchStrategy[Any]] = {
        "null": st.none(),
        "boolean": st.booleans(),
        "integer": st.integers(low, high) | st.sampled_from([low - 1, low, high, high + 1]),
        "number": st.floats(0, schema.get("maximum", 9)),
        "string": NAMES,
    }
    return simple[kind]


@cache
def operation(method: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = OPENAPI["paths"][path][method]
    return found


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@settings(max_examples=60)
@given(data=st.data())
def test_any_request_has_an_answer(
    server: Server, method: str, path: str, data: st.DataObject
) -> None:
    query = []
    for parameter in operation(method, path)["parameters"]:
        name = parameter["name"]
        value = data.draw(
            NAMES | TEXT if name in ("plan", "name") else values_of(parameter["schema"])
        )
        escaped = quote(str(value).encode(errors="surrogatepass"), safe="")
        if parameter["in"] == "path":
            path_now = path.replace(f"{{{name}}}", escaped)
        elif data.draw(st.booleans()) or parameter["required"]:
            query.append(f"{name}={escaped}")
    path_now = path if "{" not in path else path_now
    body = b""
    if "requestBody" in operation(method, path):
        schema = operation(method, path)["requestBody"]["content"]["application/json"]["schema"]
        body = json.dumps(data.draw(values_of(schema) | JUNK)).encode()
    check(server, method, path, f"{path_now}?{'&'.join(query)}", body)


def check(server: Server, method: str, path: str, address: str, body: bytes) -> None:
    answer = server.client.request(
        method, address, content=body, headers={"Content-Type": "application/json"}
    )
    listed = set(operation(method, path)["responses"]) | {"404"}  # an empty or a longer path
    assert str(answer.status_code) in listed, answer.text
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert set(error) == {"message", "hint"}
        assert error["message"]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_other_methods_are_not_allowed(server: Server, method: str, path: str) -> None:
    for other in {"get", "post", "put", "delete", "patch"} - {method}:
        assert server.client.request(other, path).status_code == 405
    assert operation(method, path)["operationId"]


@settings(max_examples=150)
@given(body=st.binary(max_size=200))
def test_any_bytes_have_an_answer(server: Server, body: bytes) -> None:
    check(server, "post", "/api/plan", "/api/plan", body)


def test_the_document_names_every_route(server: Server) -> None:
    assert server.get("/api/openapi.json").json() == json.loads(json.dumps(OPENAPI))
