"""What people write in one word, understood: a shape, a name with options."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memfit.errors import UnknownName, UsageError

__all__ = [
    "DTYPES", "LOSS_NAMES", "TensorWord", "parse_shape", "parse_spec", "parse_tensor",
    "parse_terms", "plain", "plain_options", "write_spec",
]  # fmt: skip

#: Types that a tensor of a batch may be said to have.
DTYPES = (
    "float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"
)  # fmt: skip


#: Half a character: how Python holds bytes that are no UTF-8.
_NO_UNICODE = re.compile("[\ud800-\udfff]")


def parse_shape(text: str) -> tuple[int, ...]:
    """``"3x224x224"`` (or with commas) as ``(3, 224, 224)``.

    Raises:
        UsageError: it is no shape.
    """
    parts = text.lower().replace(",", "x").replace("×", "x").split("x")
    if not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"{text!r} is not a shape.", hint="Write it like 3x224x224.")
    return tuple(int(part) for part in parts)


@dataclass(frozen=True, slots=True)
class TensorWord:
    """One tensor of a batch, as it is said.

    Args:
        name: of a parameter of the forward; None where the order says which.
        shape: of one sample.
        dtype: of :data:`DTYPES`; None is what the precision makes of images.
        batch_dim: where the batch stands among the sizes.
    """

    name: str | None
    shape: tuple[int, ...]
    dtype: str | None = None
    batch_dim: int = 0

    def __str__(self) -> str:
        sizes = [str(size) for size in self.shape]
        if self.batch_dim or not sizes:
            sizes.insert(self.batch_dim, "N")
        name = "" if self.name is None else f"{self.name}="
        return name + "x".join(sizes) + ("" if self.dtype is None else f":{self.dtype}")


def parse_tensor(text: str) -> TensorWord:
    """``"ids=64:int64"``; an ``N`` among the sizes says where the batch stands: ``"128xNx80"``.

    Raises:
        UsageError: it is no tensor.

    >>> parse_tensor("meta=8")
    TensorWord(name='meta', shape=(8,), dtype=None, batch_dim=0)
    >>> parse_tensor("age=N").shape
    ()
    """
    name, equals, rest = text.strip().rpartition("=")
    sizes, colon, dtype = rest.partition(":")
    words = [word.strip() for word in re.split("[x×,]", sizes.lower())]
    places = [number for number, word in enumerate(words) if word == "n"]
    numbers = [word for word in words if word != "n"]
    is_shape = all(word.isdigit() and int(word) for word in numbers) and len(places) < 2
    if not is_shape or (equals and not name.strip().isidentifier()):
        raise UsageError(
            f"{text!r} is no tensor.",
            hint="Write it like image=3x224x224 or ids=64:int64, without the batch; N says where "
            "the batch stands when it is not first, as in 128xNx80, or of one number for each "
            "sample, as in labels=N:int64.",
        )
    if colon and dtype.strip() not in DTYPES:
        raise UnknownName("type", dtype.strip(), DTYPES)
    return TensorWord(
        name.strip() if equals else None,
        tuple(map(int, numbers)),
        dtype.strip() if colon else None,
        places[0] if places else 0,
    )


def parse_spec(
    text: str, what: str = "an optimizer", example: str = "sgd,momentum=0.9"
) -> dict[str, Any]:
    """``"sgd,momentum=0.9,foreach=false"`` as ``{"name": "sgd", "momentum": 0.9, …}``.

    Args:
        text: a name, then options after commas.
        what: the options are of, for the error.
        example: for the error.

    Raises:
        UsageError: an option is not ``key=value``.
    """
    name, *options = (part.strip() for part in text.split(","))
    spec: dict[str, Any] = {"name": name}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or not key.isidentifier():
            raise UsageError(
                f"{option!r} is no option of {what}.", hint=f"Write it like {example}."
            )
        try:
            spec[key] = tomllib.loads(f"value = {value.lower()}")["value"]
        except tomllib.TOMLDecodeError:
            spec[key] = value
    return spec


def write_spec(spec: Mapping[str, Any]) -> str:
    """What :func:`parse_spec` reads as these options."""
    options = ((key, value) for key, value in spec.items() if key != "name")
    words = (f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in options)
    return ",".join([str(spec["name"]), *words])


#: Losses that can be named, see :mod:`memfit.step.named_losses`.
LOSS_NAMES = (
    "cross-entropy", "token-cross-entropy", "bce", "mse", "l1", "smooth-l1", "dice", "ctc",
    "triplet", "contrastive", "none",
)  # fmt: skip

_TERM = re.compile(r"(?:(?P<weight>[0-9.]+)\*)?(?P<name>[a-z0-9-]+)(?:@(?P<output>[\w.]+))?")


def parse_terms(text: str) -> list[tuple[float, str, str | None]]:
    """``"mse+0.4*bce@mask"`` as ``[(1.0, "mse", None), (0.4, "bce", "mask")]``.

    Raises:
        UsageError: it is no sum of terms.
        UnknownName: there is no loss of that name.
    """
    terms = []
    for part in text.replace(" ", "").split("+"):
        match = _TERM.fullmatch(part)
        if match is None:
            raise UsageError(
                f"loss {text!r}: {part!r} is no term.",
                hint="Write it like mse, dice+cross-entropy, 0.4*cross-entropy@aux, or "
                "path/to/file.py:name.",
            )
        if match["name"] not in LOSS_NAMES:
            raise UnknownName("loss", match["name"], LOSS_NAMES)
        try:
            weight = float(match["weight"] or 1)
        except ValueError:
            raise UsageError(f"loss {text!r}: {match['weight']!r} is no weight.") from None
        terms.append((weight, match["name"], match["output"]))
    return terms


def plain(name: str, value: Any) -> Any:
    """A value that JSON and TOML can hold; tuples become lists.

    Args:
        name: of the value, for the error.
        value: a text, number, true or false, or lists of these.

    Raises:
        UsageError: it, or something in it, is none of these.
    """
    if isinstance(value, (list, tuple)):
        return [plain(name, entry) for entry in value]
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, str) and not _NO_UNICODE.search(value):
        return str(value)
    raise UsageError(f"{name} is {value!r}; it must be a number, a text, true or false.")


def plain_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that JSON and TOML can hold; what is None is left out, and so is as usual.

    Raises:
        UsageError: one of them is no plain value.
    """
    given = {plain(f"a key of {name}", k): v for k, v in options.items() if v is not None}
    return {key: plain(f"{name}.{key}", value) for key, value in given.items()}
