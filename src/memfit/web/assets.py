"""The files of the page, read when the server starts: a request picks one by name, or none."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import PurePosixPath

from memfit.page.html import assets, served_page

__all__ = ["Asset", "PageAssets", "policy_of"]

_MEDIA_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}

#: Types of script elements that hold data: never run, so they need no permission.
_DATA_TYPES = ("application/json",)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file.

    Args:
        content: its bytes.
        media_type: of the answer.
        tag: changes with the content.
    """

    content: bytes
    media_type: str
    tag: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Asset:
        """A file with its tag."""
        return cls(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


@dataclass(frozen=True, slots=True)
class PageAssets:
    """The page itself, everything it loads, and what it may do.

    Args:
        page: the HTML.
        files: by name below ``/assets/``.
        policy: Content-Security-Policy.
    """

    page: Asset
    files: Mapping[str, Asset]
    policy: str

    @classmethod
    def read(cls) -> PageAssets:
        """Read all of it from the package."""
        files = {
            name: Asset.of(path.read_bytes(), _MEDIA_TYPES[PurePosixPath(name).suffix])
            for name, path in assets().items()
            if path.is_file()
        }
        html = served_page()
        return cls(Asset.of(html.encode(), "text/html; charset=utf-8"), files, policy_of(html))


def policy_of(html: str) -> str:
    """Only the server's own files, and exactly the scripts that are in the page.

    Args:
        html: the page.
    """
    reader = _InlineScripts()
    reader.feed(html)
    hashes = (hashlib.sha256(text.encode()).digest() for text in reader.scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    return "; ".join((
        "default-src 'none'",
        f"script-src 'self' {allowed}".strip(),
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ))  # fmt: skip


class _InlineScripts(HTMLParser):
    """Collects the text of every script element that a browser would run."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.scripts: list[str] = []
        self._is_inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "script" and "src" not in values and values.get("type") not in _DATA_TYPES:
            self._is_inside = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._is_inside = False

    def handle_data(self, data: str) -> None:
        if self._is_inside:
            self.scripts[-1] += data
