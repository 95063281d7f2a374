"""The page's texts: English and Chinese say the same things, and every text exists."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import js_page
import pytest

from memfit.page.html import assets, modules

in_page = js_page.in_page

SCRIPTS = [path for name, path in assets().items() if name.startswith("js/")]
TABLES = [name for name in modules() if name.startswith("memfit/strings/")]
#: What is written alike in both languages: names of code and of things, units, abbreviations.
NAMES = re.compile(
    r"memfit|PyTorch|CUDA|cuBLAS|cuDNN|GPU|CPU|SGD|Adam|AdamW|EMA|AMP|fp32|fp16|bf16|float32|ReLU"
    r"|Linear|CSV|SVG|PNG|Chrome|JSON|HTML|Perfetto|CIFAR-10|MNIST|ResNet-50|GiB|MiB|KiB|nvidia-smi|VRAM"
    r"|NCHW|NHWC|A/B|channels last|SSH|foreach|dtype"
)


@pytest.fixture(scope="module")
def tables(in_page: Callable[..., Any]) -> dict[str, dict[str, dict[str, str]]]:
    """The exported ``strings`` of every module of ``strings/``."""
    code = """async (names, use) => {
      const found = {};
      for (const name of names) found[name] = (await use(name)).strings;
      return found;
    }"""
    read: dict[str, dict[str, dict[str, str]]] = in_page(code, TABLES)
    return read


@pytest.mark.parametrize("name", TABLES)
def test_both_languages_have_the_same_texts(tables: dict[str, Any], name: str) -> None:
    english, chinese = tables[name]["en"], tables[name]["zh"]
    assert english
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert placeholders(text) == placeholders(chinese[key]), key
        assert marks(text) == marks(chinese[key]), key


@pytest.mark.parametrize("name", TABLES)
def test_chinese_is_chinese(tables: dict[str, Any], name: str) -> None:
    english, chinese = tables[name]["en"], tables[name]["zh"]
    for key, text in chinese.items():
        if text == english[key]:
            rest = NAMES.sub("", re.sub(r"\{\w+\}|`[^`]*`|\w+[._]\w+", "", text))
            assert not re.search(r"[A-Za-z]{2}", rest), f"{key}: {text}"


def test_no_text_is_defined_twice(tables: dict[str, Any]) -> None:
    keys = [key for table in tables.values() for key in table["en"]]
    assert len(keys) == len(set(keys))


def test_every_text_that_is_asked_for_exists(tables: dict[str, Any]) -> None:
    known = {key for table in tables.values() for key in table["en"]}
    asked = {
        (script.name, key)
        for script in SCRIPTS
        for key in re.findall(r'\bt\(\s*"([^"]+)"', script.read_text(encoding="utf-8"))
    }
    assert asked
    assert {(script, key) for script, key in asked if key not in known} == set()


def placeholders(text: str) -> list[str]:
    return sorted(set(re.findall(r"\{\w+\}", text)))


def marks(text: str) -> int:
    """Code in a text; both languages show the same pieces."""
    return text.count("`")
