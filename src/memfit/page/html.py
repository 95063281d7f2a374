"""The page as HTML: one file with everything inside, or the shell that a server completes.

Both are the same modules, found by the same names through an import map: as paths of the server,
or as ``data:`` URLs inside the file. Nothing is loaded from anywhere else.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from memfit.memory.tape.parts import PARTS
from memfit.recipe.fields import Offer, offered

__all__ = ["assets", "modules", "packed", "served_page", "single_file", "texts"]

_FOLDER = Path(__file__).parent / "assets"
_VENDOR = {
    "preact": "vendor/preact.js", "preact/hooks": "vendor/preact-hooks.js",
    "htm": "vendor/htm.js", "uplot": "vendor/uplot.js",
}  # fmt: skip
_STYLES = ("vendor/uplot.css", "style.css", "style-plan.css", "style-tabs.css")


@cache
def assets() -> Mapping[str, Path]:
    """Every file that the page may ask for, by its name such as ``"js/app.js"``."""
    scripts = sorted(_FOLDER.glob("js/**/*.js"))
    own = [script.relative_to(_FOLDER).as_posix() for script in scripts]
    return {name: _FOLDER / name for name in (*_STYLES, *_VENDOR.values(), *own)}


def modules() -> Mapping[str, str]:
    """Names that scripts import: ``"memfit/engine/tape"`` is the asset ``"js/engine/tape.js"``."""
    own = (name for name in assets() if name.startswith("js/"))
    return _VENDOR | {f"memfit{name.removeprefix('js').removesuffix('.js')}": name for name in own}


@cache
def texts() -> Mapping[str, Mapping[str, str]]:
    """Every text of the page by its key, such as ``"tab.plan"``: ``{"en": ..., "zh": ...}``."""
    found = {f"part.{part}": {"en": x.name, "zh": x.name_zh} for part, x in PARTS.items()}
    for row in offered(Offer.FORM | Offer.MORE):
        found[f"field.{row.name}"] = dict(zip(("en", "zh"), row.label, strict=True))
    for path in sorted(_FOLDER.glob("texts/*.json")):
        found |= json.loads(path.read_text(encoding="utf-8"))
    return found


def served_page() -> str:
    """The page that asks a server for its plans; styles and modules are under ``/assets/``."""
    links = "\n".join(f'<link rel="stylesheet" href="/assets/{name}">' for name in _STYLES)
    imports = {name: f"/assets/{path}" for name, path in modules().items()}
    return _page(links, imports, {"mode": "served"})


def single_file(documents: Mapping[str, Any]) -> str:
    """The page with all that it shows inside; opens from the disk and works without a network.

    Args:
        documents: by name (``plan``, ``learn``, ``data``, ``explain``, ``snapshot``, ``study``,
            ``runs``): plain values for JSON, or bytes.
    """
    css = "\n".join(_text(name) for name in _STYLES)
    imports = {
        name: "data:text/javascript;base64," + base64.b64encode(_bytes(path)).decode()
        for name, path in modules().items()
    }
    bundle = {"mode": "file"} | {name: packed(value) for name, value in documents.items()}
    return _page(f"<style>\n{css}\n</style>", imports, bundle)


def packed(value: Any) -> dict[str, str] | None:
    """A document as the page unpacks it: gzip, then base64; None stays None."""
    if value is None:
        return None
    content = value if isinstance(value, bytes) else _json(value).encode()
    return {"gzip": base64.b64encode(gzip.compress(content, mtime=0)).decode()}


def _page(styles: str, imports: Mapping[str, str], bundle: Mapping[str, Any]) -> str:
    given = {"texts": texts(), "parts": _parts(), "form": _form(), **bundle}
    return (
        _text("index.html")
        .replace("<!--styles-->", f"{styles}\n<style>\n{_part_colours()}\n</style>")
        .replace("<!--importmap-->", _script("importmap", {"imports": imports}))
        .replace("<!--bundle-->", _script("application/json", given, "memfit-bundle"))
    )


def _part_colours() -> str:
    """The parts' colours as variables such as ``--part-batch``, for both themes."""
    light = "".join(f" --part-{part}: {look.colour};" for part, look in PARTS.items())
    dark = "".join(f" --part-{part}: {look.dark_colour};" for part, look in PARTS.items())
    return f':root[data-theme="light"] {{{light} }}\n:root[data-theme="dark"] {{{dark} }}'


def _parts() -> list[dict[str, str]]:
    """Every part in order, with its number of the four that everyone is taught."""
    return [{"part": str(part), "number": look.number} for part, look in PARTS.items()]


def _form() -> list[dict[str, Any]]:
    """Every field that the form offers; how it is asked for comes of its schema."""
    rows = offered(Offer.FORM | Offer.MORE)
    return [{"name": r.name, "more": Offer.MORE in r.by, "schema": r.schema} for r in rows]


def _script(kind: str, value: Any, name: str = "") -> str:
    identity = f' id="{name}"' if name else ""
    content = _json(value).replace("<", "\\u003c")  # no text ends the element
    return f'<script type="{kind}"{identity}>{content}</script>'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _bytes(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
