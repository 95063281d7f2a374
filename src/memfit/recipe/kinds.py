"""Kinds of values: what a field may hold, the same for Python, JSON and the command line."""

from __future__ import annotations

import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from memfit.errors import UnknownName, UsageError
from memfit.recipe.words import parse_shape, parse_spec, parse_tensor, plain_options, write_spec

__all__ = [
    "Choice", "Kind", "Many", "Number", "Range", "Shape", "Spec", "Tensors", "Text", "Whole"
]  # fmt: skip

_LONGEST_SPEC = 200


class Kind(ABC):
    """What a value may be."""

    @abstractmethod
    def checked(self, name: str, value: Any) -> Any:
        """The value in its one spelling.

        Args:
            name: of the field, for the error.
            value: not None.

        Raises:
            UsageError: it is impossible.
        """

    @property
    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """The same in JSON Schema (draft 2020-12)."""

    @property
    def schema_or_null(self) -> dict[str, Any]:
        """The same, where null stands for "decided by something else"."""
        return self.schema | {"type": [self.schema["type"], "null"]}

    def read(self, text: Any) -> Any:
        """What was written behind a flag."""
        return text

    def written(self, flag: str, value: Any) -> list[str]:
        """The words of a command line that give the value again."""
        return [flag, str(value)]


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A whole number.

    Args:
        least: the smallest.
        most: the largest.
    """

    least: int
    most: int

    def checked(self, name: str, value: Any) -> int:
        """Not 3.0, and not True."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise UsageError(f"{name} is {value!r}; it must be a whole number.")
        if not self.least <= value <= self.most:
            limits = f"between {self.least:,} and {self.most:,}"
            raise UsageError(f"{name} is {value}; it must be {limits}.")
        return int(value)

    @property
    def schema(self) -> dict[str, Any]:
        """An integer."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True, slots=True)
class Number(Kind):
    """A finite number within limits; the first two exclude each other, and so do the last two."""

    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None

    def checked(self, name: str, value: Any) -> float:
        """Whole numbers are numbers; true and false are none."""
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise UsageError(f"{name} is {value!r}; it must be a number.")
        is_inside = (
            (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
        )
        if not is_inside or not math.isfinite(value):
            raise UsageError(f"{name} is {value}; it must be {self._limits()}.")
        return value if isinstance(value, int) else float(value)

    def _limits(self) -> str:
        words = {
            "above": self.above, "at least": self.least, "below": self.below, "at most": self.most
        }  # fmt: skip
        given = [f"{word} {limit:,}" for word, limit in words.items() if limit is not None]
        return " and ".join(given).replace("above 0", "positive") or "finite"

    @property
    def schema(self) -> dict[str, Any]:
        """A number."""
        limits = {
            "exclusiveMinimum": self.above, "minimum": self.least,
            "exclusiveMaximum": self.below, "maximum": self.most,
        }  # fmt: skip
        return {"type": "number"} | {k: limit for k, limit in limits.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    """One of a few words; True and False can be among them, and then its flag takes no word.

    Args:
        words: all that there are.
        own_flags: words that have a flag of their own, with its help; others mean True.
    """

    words: tuple[Any, ...]
    own_flags: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_switch(self) -> bool:
        """Whether its flag takes no word."""
        return True in self.words

    def checked(self, name: str, value: Any) -> Any:
        """Exactly one of the words: 1 is not True."""
        if not any(value == word and type(value) is type(word) for word in self.words):
            words = [str(w).lower() if isinstance(w, bool) else w for w in self.words]
            raise UnknownName(name.replace("_", " "), str(value), words)
        return value

    @property
    def schema(self) -> dict[str, Any]:
        """The words."""
        return {"enum": list(self.words)}

    def written(self, flag: str, value: Any) -> list[str]:
        """The flag and the word; a switch is the flag alone, or the flag of the word."""
        if value in self.own_flags:
            return [f"--{value}"]
        if self.is_switch:
            return [flag if value else flag.replace("--", "--no-", 1)]
        return [flag, value]


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """A text, or a path.

    Args:
        longest: in characters.
        characters: that it may be made of, as inside of the brackets of a regular expression.
    """

    longest: int = 4096
    characters: str | None = None

    def checked(self, name: str, value: Any) -> str:
        """Paths become texts."""
        text = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(text, str):
            raise UsageError(f"{name} is {value!r}; it must be a text.")
        if len(text) > self.longest:
            raise UsageError(f"{name} is too long: at most {self.longest:,} characters.")
        if self.characters is not None and not re.fullmatch(f"[{self.characters}]*", text):
            raise UsageError(f"{name} is {text!r}; it has characters that none has.")
        return text

    @property
    def schema(self) -> dict[str, Any]:
        """A string."""
        pattern = {} if self.characters is None else {"pattern": f"^[{self.characters}]*$"}
        return {"type": "string", "maxLength": self.longest, **pattern}


@dataclass(frozen=True, slots=True)
class Many(Kind):
    """Any number of values; one alone is a list of one.

    Args:
        each: what they may be.
        least: how many there must be.
    """

    each: Text | Number
    least: int = 0

    def checked(self, name: str, value: Any) -> tuple[Any, ...]:
        """A tuple."""
        alone, words = (str, "words") if isinstance(self.each, Text) else (float, "numbers")
        given = (value,) if isinstance(value, alone) else value
        if isinstance(given, Mapping) or not isinstance(given, Iterable):
            raise UsageError(f"{name} is {value!r}; it must be a list of {words}.")
        values = tuple(self.each.checked(f"one of {name}", each) for each in given)
        if len(values) < self.least:
            raise UsageError(f"{name} is empty; it must be {self.least} or more.")
        return values

    @property
    def schema(self) -> dict[str, Any]:
        """An array."""
        return {"type": "array", "items": self.each.schema, "minItems": self.least}

    def written(self, flag: str, value: Any) -> list[str]:
        """The flag before each."""
        return [text for each in value for text in (flag, str(each))]


@dataclass(frozen=True, slots=True)
class Range(Kind):
    """Two finite numbers, the lower one first."""

    def checked(self, name: str, value: Any) -> tuple[float, float]:
        """``"-1000:3000"`` is a range, too."""
        pair = self.read(value) if isinstance(value, str) else value
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise UsageError(f"{name} is {value!r}; it must be two numbers, LOW:HIGH.")
        low, high = (Number().checked(f"one of {name}", each) for each in pair)
        if low >= high:
            raise UsageError(f"{name} is {value!r}; the lower number comes first.")
        return low, high

    @property
    def schema(self) -> dict[str, Any]:
        """An array of two numbers."""
        return {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}

    def read(self, text: Any) -> Any:
        """``-1000:3000``; what is none stays as it is, for the error."""
        try:
            return tuple(float(word) for word in text.split(":"))
        except ValueError:
            return text

    def written(self, flag: str, value: Any) -> list[str]:
        """The flag and ``LOW:HIGH``."""
        return [flag, ":".join(map(str, value))]


@dataclass(frozen=True, slots=True)
class Shape(Kind):
    """The sizes of one sample.

    Args:
        side: what each may be.
        most: how many there can be.
        most_values: their product.
    """

    side: Whole
    most: int
    most_values: int

    def checked(self, name: str, value: Any) -> tuple[int, ...]:
        """``"3x224x224"`` is a shape, too."""
        sizes = parse_shape(value) if isinstance(value, str) else value
        if not isinstance(sizes, (tuple, list)):
            raise UsageError(f"{name} is {value!r}; it must be like (3, 224, 224).")
        shape = tuple(self.side.checked(f"a size in {name}", size) for size in sizes)
        if not shape:
            raise UsageError(f"{name} is empty.", hint="For colour images: 3x224x224.")
        if len(shape) > self.most or math.prod(shape) > self.most_values:
            raise UsageError(
                f"{name} is {self._word(shape)}; it must be at most {self.most} sizes "
                f"and {self.most_values:,} values."
            )
        return shape

    @property
    def schema(self) -> dict[str, Any]:
        """An array of integers."""
        return {"type": "array", "items": self.side.schema, "minItems": 1, "maxItems": self.most}

    def read(self, text: Any) -> Any:
        """``3x224x224``."""
        return parse_shape(text)

    def written(self, flag: str, value: Any) -> list[str]:
        """``3x224x224``."""
        return [flag, self._word(value)]

    @staticmethod
    def _word(shape: Iterable[int]) -> str:
        return "x".join(str(size) for size in shape)


@dataclass(frozen=True, slots=True)
class Tensors(Kind):
    """Tensors of a batch in words, see :func:`~memfit.recipe.words.parse_tensor`.

    Args:
        shape: what the shape of each may be.
        words: that stand for one as they are.
        most: how many there can be.
    """

    shape: Shape
    words: tuple[str, ...] = ()
    most: int = 64

    def checked(self, name: str, value: Any) -> tuple[str, ...]:
        """A tuple of words; shapes and example tensors of a batch (batch first) become words."""
        if isinstance(value, Mapping):
            return tuple(self._word(name, key, each) for key, each in value.items())
        if isinstance(value, str) or hasattr(value, "dtype") or _is_shape(value):
            value = (value,)
        if not isinstance(value, Iterable):
            raise UsageError(f"{name} is {value!r}; it must be like 'image=3x224x224'.")
        words = tuple(self._word(name, None, each) for each in value)
        if len(words) > self.most:
            raise UsageError(f"{name} has {len(words)} tensors; there can be {self.most}.")
        return words

    def _word(self, name: str, key: str | None, value: Any) -> str:
        if isinstance(value, str):
            if value in self.words:
                return value
            text = value if key is None else f"{key}={value}"
        elif hasattr(value, "dtype") and hasattr(value, "shape"):  # torch's or NumPy's
            dtype = str(value.dtype).removeprefix("torch.")
            sizes = ["N", *map(str, value.shape[1:])] if len(value.shape) == 1 else value.shape[1:]
            text = f"{'' if key is None else f'{key}='}{'x'.join(map(str, sizes))}:{dtype}"
        elif value == () or isinstance(value, int) or _is_shape(value):
            sizes = (value,) if isinstance(value, int) else value
            text = f"{'' if key is None else f'{key}='}{'x'.join(map(str, sizes)) or 'N'}"
        else:
            raise UsageError(f"{name} is {value!r}; it must be like 'image=3x224x224'.")
        word = parse_tensor(text)
        if word.shape:
            self.shape.checked(name, word.shape)
        return str(word)

    @property
    def schema(self) -> dict[str, Any]:
        """An array of words."""
        return {"type": "array", "items": Text(200).schema, "maxItems": self.most}

    def written(self, flag: str, value: Any) -> list[str]:
        """The flag before each."""
        return [text for each in value for text in (flag, each)]


def _is_shape(value: Any) -> bool:
    """Such as ``(3, 224, 224)``; an empty one is an empty list of tensors."""
    is_sizes = isinstance(value, (tuple, list)) and bool(value)
    return is_sizes and all(isinstance(size, int) for size in value)


@dataclass(frozen=True, slots=True)
class Spec(Kind):
    """A name, or a name with options: ``{"name": "sgd", "momentum": 0.9}``."""

    def checked(self, name: str, value: Any) -> str | dict[str, Any]:
        """``"sgd,momentum=0.9"`` is one, too."""
        if isinstance(value, str) and "," not in Text(_LONGEST_SPEC).checked(name, value):
            return value
        spec = parse_spec(value) if isinstance(value, str) else value
        if not isinstance(spec, Mapping):
            raise UsageError(f"{name} is {value!r}; it must be like 'sgd,momentum=0.9'.")
        options = plain_options(name, spec)
        return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}

    @property
    def schema(self) -> dict[str, Any]:
        """A string such as ``sgd,momentum=0.9``."""
        return Text(_LONGEST_SPEC).schema

    def read(self, text: Any) -> Any:
        """``sgd,momentum=0.9``."""
        return parse_spec(text)

    def written(self, flag: str, value: Any) -> list[str]:
        """``sgd,momentum=0.9``."""
        return [flag, write_spec(value) if isinstance(value, Mapping) else str(value)]
