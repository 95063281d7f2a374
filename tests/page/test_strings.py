"""The page's texts: English and Chinese say the same things, and every text exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import memfit.page
from memfit.memory.tape.parts import PARTS
from memfit.page.html import assets, texts

SCRIPTS = [path for name, path in assets().items() if name.startswith("js/")]
TABLES = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in (Path(memfit.page.__file__).parent / "assets" / "texts").iterdir()
}
TABLES["fields"] = {key: text for key, text in texts().items() if key.startswith("field.")}
#: What is written alike in both languages: names of code and of things, units, abbreviations.
NAMES = re.compile(
    r"memfit|PyTorch|CUDA|cuBLAS|cuDNN|GPU|CPU|SGD|Adam|AdamW|EMA|AMP|fp32|fp16|bf16|float32|ReLU"
    r"|Linear|CSV|SVG|PNG|Chrome|JSON|HTML|Perfetto|CIFAR-10|MNIST|ResNet-50|GiB|MiB|KiB|nvidia-smi|VRAM"
    r"|NCHW|NHWC|A/B|channels last|SSH|foreach|dtype"
)


@pytest.mark.parametrize("name", TABLES)
def test_both_languages_say_the_same(name: str) -> None:
    for key, text in TABLES[name].items():
        assert text.keys() == {"en", "zh"}, key
        assert all(text.values()), key
        assert placeholders(text["en"]) == placeholders(text["zh"]), key
        assert marks(text["en"]) == marks(text["zh"]), key


@pytest.mark.parametrize("name", TABLES)
def test_chinese_is_chinese(name: str) -> None:
    for key, text in TABLES[name].items():
        if text["zh"] == text["en"]:
            rest = NAMES.sub("", re.sub(r"\{\w+\}|`[^`]*`|\w+[._]\w+", "", text["zh"]))
            assert not re.search(r"[A-Za-z]{2}", rest), f"{key}: {text['zh']}"


def test_no_text_is_defined_twice() -> None:
    assert sum(len(table) for table in TABLES.values()) + len(PARTS) == len(texts())


def test_every_text_that_is_asked_for_exists() -> None:
    asked = {
        (script.name, key)
        for script in SCRIPTS
        for key in re.findall(r'\bt\(\s*"([^"]+)"', script.read_text(encoding="utf-8"))
    }
    assert asked
    assert {(script, key) for script, key in asked if key not in texts()} == set()


def placeholders(text: str) -> list[str]:
    return sorted(set(re.findall(r"\{\w+\}", text)))


def marks(text: str) -> int:
    """Code in a text; both languages show the same pieces."""
    return text.count("`")
