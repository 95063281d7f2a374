"""Hostile requests: refused, nothing executed, the server alive."""

from __future__ import annotations

import base64
import hashlib
import os
import pickle
import re
from pathlib import Path

import pytest
from live_server import TOKEN, Server, read_answer

from memfit.web.assets import PageAssets, policy_of
from memfit.web.launch import site_hosts


@pytest.fixture(autouse=True)
def is_alive_after(server: Server):
    yield
    assert server.get("/api/about").status_code == 200
    assert "document" in server.plan(batch_size=8)


@pytest.mark.parametrize("path", ["/api/about", "/api/openapi.json", "/api/none", "/api"])
@pytest.mark.parametrize(
    "authorization",
    [
        None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}", "Bearer \xff\xfe",
    ],
)  # fmt: skip
def test_nothing_is_told_without_the_token(
    server: Server, path: str, authorization: str | None
) -> None:
    lines = [] if authorization is None else [f"Authorization: {authorization}"]
    status, content = server.raw(server.head("GET", path, *lines, token=None))
    assert status == 401
    assert b"resnet" not in content


def test_a_token_in_the_query_is_none(server: Server) -> None:
    assert server.raw(server.head("GET", f"/api/about?token={TOKEN}", token=None))[0] == 401


def test_two_tokens_are_refused(server: Server) -> None:
    request = server.head("GET", "/api/about", "Authorization: Bearer x")
    assert server.raw(request)[0] == 400


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil:{port}",
        "127.0.0.1.evil.example:{port}", "127.0.0.1:{port}@evil.example", "127.0.0.1:{port}:80",
        "0.0.0.0:{port}", "[::2]:{port}", "", " ",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/assets/js/app.js", "/api/about"])
def test_other_host_names_are_refused(server: Server, host: str, path: str) -> None:
    status, content = server.raw(server.head("GET", path, f"Host: {host.format(port=server.port)}"))
    assert status in (400, 403)
    assert b"<html" not in content


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "[::1]", "127.0.0.1"])
def test_own_host_names_are_answered(server: Server, host: str) -> None:
    headers = {"Host": f"{host}:{server.port}"}
    assert server.get("/api/about", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Origin: http://evil.example", "Origin: null", "Origin: http://127.0.0.1:1",
        "Origin: https://127.0.0.1:{port}", "Origin: http://localhost:{port}",
        "Origin: http://127.0.0.1:{port}.evil.example", "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site", "Sec-Fetch-Site: nonsense",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/assets/js/app.js", "/api/about"])
def test_other_pages_are_refused(server: Server, header: str, path: str) -> None:
    status, content = server.raw(server.head("GET", path, header.format(port=server.port)))
    assert status == 403
    assert b"access-control" not in content.lower()


def test_the_own_page_may_ask(server: Server) -> None:
    own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
    assert server.get("/api/about", headers=own).status_code == 200


def test_a_link_elsewhere_may_lead_to_the_page_and_no_further(server: Server) -> None:
    link = {
        "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document",
    }  # fmt: skip
    assert server.get("/", headers=link).status_code == 200
    assert server.get("/", headers={**link, "Sec-Fetch-Dest": "iframe"}).status_code == 403
    assert server.get("/api/about", headers=link).status_code == 403


def test_other_pages_get_no_permission_beforehand(server: Server) -> None:
    status, content = server.raw(
        server.head(
            "OPTIONS", "/api/plan", "Origin: http://evil.example",
            "Access-Control-Request-Method: POST", token=None,
        )
    )  # fmt: skip
    assert status == 403
    assert b"access-control" not in content.lower()


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../../etc/passwd", "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2fpyproject.toml",
        "/assets//etc/passwd", "/assets/js/../index.html", "/assets/js/..%5c..%5cx",
        "/../etc/passwd",
        "/assets/js/app.js%00.css", "/assets/%ff", "//etc/passwd", "/assets/", "/assets/index.html",
        "/api/data/..%2f..%2fetc%2fpasswd", "/api/data//etc/passwd", "/api/runs/..%2f..",
        "/api/runs/%2e%2e%2f", "/api/studies/..", "/api/studies/demo%2f..%2f..",
        "/api/data/shapes%00",
        "/api/runs/first/", "/api/plan/..%2f/sizes?batch=1",
    ],
)  # fmt: skip
def test_no_path_leads_out(server: Server, path: str) -> None:
    status, content = server.raw(server.head("GET", path))
    assert status in (400, 404)
    assert b"root:" not in content
    assert b"[project]" not in content


def test_names_are_those_that_are_listed(server: Server) -> None:
    """Even a folder that is called so is reached only by its listed name."""
    assert server.get("/api/runs/first?after=3").json() == {
        "folder": str(Path("runs") / "first"), "after": 3, "number": pytest.approx(1, abs=1e9),
        "job": "run",
    }  # fmt: skip
    assert server.get("/api/runs/a%20b").status_code == 200
    assert server.get("/api/runs/firs").status_code == 404
    assert server.get("/api/data/%2Fsome%2Fwhere%2Fimages").status_code == 200
    assert server.get("/api/data/%2Fsome%2Fwhere").status_code == 404


def test_a_gigabyte_is_refused_before_it_comes(server: Server) -> None:
    status, content = server.raw(
        server.head(
            "POST", "/api/plan", "Content-Type: application/json", f"Content-Length: {1 << 30}"
        )
    )
    assert status == 413
    assert b"connection: close" in content.lower()


def test_a_gigabyte_in_chunks_is_cut_off(server: Server) -> None:
    head = ("Content-Type: application/json", "Transfer-Encoding: chunked")
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    sent = 0
    with server.connect() as connection:
        connection.sendall(server.head("POST", "/api/plan", *head))
        try:
            while sent < 1 << 30:
                connection.sendall(chunk)
                sent += len(chunk)
        except (ConnectionError, TimeoutError):
            pass
    assert sent < 64 << 20  # what the sockets' buffers hold


def test_chunks_above_the_limit_get_an_answer(server: Server) -> None:
    head = ("Content-Type: application/json", "Transfer-Encoding: chunked")
    body = (b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 3
    status, _ = server.raw(server.head("POST", "/api/plan", *head) + body)
    assert status == 413


def test_nobody_without_the_token_may_send_a_body(server: Server) -> None:
    head = ("Content-Type: application/json", f"Content-Length: {1 << 15}")
    assert server.raw(server.head("POST", "/api/plan", *head, token=None))[0] == 401


def test_a_body_that_never_comes_is_not_waited_for(server: Server) -> None:
    head = ("Content-Type: application/json", "Content-Length: 100")
    assert server.raw(server.head("POST", "/api/plan", *head) + b"{")[0] == 408


def test_a_body_longer_than_it_says(server: Server) -> None:
    head = ("Content-Type: application/json", "Content-Length: 2")
    status, content = server.raw(server.head("POST", "/api/plan", *head) + b'{}"more": 1}' * 9)
    assert status == 422
    assert b"recipe must be an object" in content


@pytest.mark.parametrize(
    "line",
    [
        "Content-Length: -1", "Content-Length: 1e3", "Content-Length: 9" + "9" * 30,
        "X: " + "y" * 20_000,
    ],
)  # fmt: skip
def test_impossible_headers(server: Server, line: str) -> None:
    assert server.raw(server.head("POST", "/api/plan", line))[0] in (400, 413)


def test_many_headers_and_long_addresses(server: Server) -> None:
    assert server.raw(server.head("GET", "/", *(f"X-{n}: 1" for n in range(100))))[0] == 400
    assert server.raw(server.head("GET", "/api/about?" + "x" * 2000))[0] == 400
    assert server.raw(server.head("GET", "/" + "x" * 2000))[0] == 400


@pytest.mark.parametrize("request_", [b"\x00\x01\x02", b"GET\r\n\r\n", b"\x16\x03\x01" * 9])
def test_what_is_no_http(server: Server, request_: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(request_)
        connection.shutdown(1)
        assert read_answer(connection)[0] in (0, 400)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path(os.environ["BOMB"]),))


def test_pickles_are_bytes(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    bomb = pickle.dumps(Bomb())
    for kind in ("application/json", "application/octet-stream", "application/x-pickle"):
        answer = server.client.post("/api/plan", content=bomb, headers={"Content-Type": kind})
        assert answer.status_code in (400, 415)
    assert not (tmp_path / "exploded").exists()


def test_every_answer_says_what_the_page_may_do(server: Server) -> None:
    for path in ("/", "/assets/js/app.js", "/api/about", "/none"):
        headers = server.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe-eval" not in headers["content-security-policy"]
        assert "server" not in headers
    assert server.get("/api/about").headers["cache-control"] == "no-store"


def test_the_policy_allows_exactly_the_scripts_of_the_page(server: Server) -> None:
    page = server.get("/").text
    policy = server.get("/").headers["content-security-policy"]
    scripts = re.findall(r"<script(?![^>]*application/json)[^>]*>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 3  # the theme, the import map, the first module
    expected = {
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    }
    assert set(re.findall(r"'sha256-[^']+'", policy)) == expected
    assert "script-src 'self' 'sha256-" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]


def test_a_changed_script_changes_the_policy() -> None:
    assert policy_of("<script>a</script>") != policy_of("<script>b</script>")
    assert policy_of('<script type="application/json">a</script>') == policy_of("")


def test_all_that_the_page_names_is_served(server: Server) -> None:
    page = server.get("/").text
    names = re.findall(r'"(/assets/[^"]+)"', page)
    assert len(names) > 10
    for name in names:
        answer = server.get(name)
        assert answer.status_code == 200, name
        again = server.get(name, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
    assert set(PageAssets.read().files) == {name.removeprefix("/assets/") for name in names}


def test_hosts_of_a_server_on_all_addresses() -> None:
    names, any_address = site_hosts("0.0.0.0")
    assert any_address
    assert "127.0.0.1" in names
    assert "0.0.0.0" not in names
    assert site_hosts("127.0.0.1") == (("127.0.0.1", "localhost", "[::1]"), False)
    assert site_hosts("fe80::1")[0][-1] == "[fe80::1]"
