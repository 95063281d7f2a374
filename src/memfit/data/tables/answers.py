"""What the columns of a table ask of an image: its class, values to predict, or several labels.

The rules, in this order (``task=`` (``--task``) decides otherwise):

- words divided by ``|``, or by commas, semicolons or spaces in a column of a plural name (``tags``,
  ``labels``): several labels;
- words: classes;
- numbers with fractions, and negative ones but for a -1 beside one other: values;
- whole numbers in a column that is called something one measures (``age``, ``price``), or with a
  number of its own for more than half of at least 20 rows: values;
- other whole numbers: classes;
- several columns of 0 and 1 (or -1 and 1): several labels, or classes where every row has one 1;
- several columns of numbers, some with fractions: several values.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.samples.dataset import Labels, Problem, Targets
from memfit.data.samples.labels import MAX_CLASSES, class_labels
from memfit.errors import DataError
from memfit.files.names import printable
from memfit.recipe.fields import Task

__all__ = ["Answers", "Column", "answers_of", "answers_of_array", "notes_on"]

_MEASURED = frozenset({
    "age", "boneage", "price", "cost", "income", "salary", "amount", "weight", "mass", "height",
    "width", "length", "depth", "distance", "size", "area", "volume", "temperature", "speed",
    "velocity", "angle", "steering", "throttle", "score", "rating", "mos", "value", "values",
    "count", "counts", "quantity", "percent", "percentage", "yield", "duration", "bmi", "calories",
    "density", "pawpularity", "latitude", "longitude", "lat", "lon", "lng", "x", "y1", "x1",
})  # fmt: skip
_GROUPED = frozenset({
    "class", "group", "category", "bin", "bucket", "label", "id", "type", "level", "grade",
})  # fmt: skip
_PLURALS = frozenset({"labels", "tags", "classes", "categories", "attributes", "findings"})
_FEW_ROWS = 20


@dataclass(slots=True)
class Column:
    """The cells of a column, each different text once; very many different ones as numbers.

    Args:
        name: of the column.
        codes: of each row, its place among the texts.
        texts: different ones with their places, in order of appearance.
        values: of each row, once there are more texts than any set has classes.
    """

    name: str
    codes: array[int] = field(default_factory=lambda: array("q"))
    texts: dict[str, int] = field(default_factory=dict)
    values: array[float] | None = None

    def append(self, text: str) -> None:
        """Add a cell.

        Raises:
            ValueError: there are more different texts than any set has classes.
        """
        if self.values is not None:
            self.values.append(float(text))
            return
        self.codes.append(self.texts.setdefault(text, len(self.texts)))
        if len(self.texts) > MAX_CLASSES:
            numbers = [float(text) for text in self.texts]
            self.values = array("d", (numbers[code] for code in self.codes))

    def __len__(self) -> int:
        return len(self.codes if self.values is None else self.values)

    def numbers(self) -> NDArray[np.float64] | None:
        """``(N,)``; None where a cell is no finite number."""
        if self.values is not None:
            return np.frombuffer(self.values, np.float64)
        try:
            known = [_number(text) for text in self.texts]
        except ValueError:
            return None
        if not all(map(math.isfinite, known)):
            return None
        return np.asarray(known)[np.frombuffer(self.codes, np.int64)]

    @property
    def counts_rows(self) -> bool:
        """Whether it only numbers the rows, from 0 or 1."""
        numbers = self.numbers() if len(self) > 2 else None
        if numbers is None or numbers[0] not in (0, 1):
            return False
        return np.array_equal(numbers, np.arange(len(numbers)) + numbers[0])

    @property
    def words(self) -> set[str]:
        """What its name is made of, in lower case."""
        parts = re.sub(r"([a-z])([A-Z])", r"\1 \2", self.name).lower()
        return {parts, *re.split(r"[^a-z0-9]+", parts)}


def _number(text: str) -> float:
    """Also ``True`` and ``0,5``."""
    truths = {"true": 1.0, "false": 0.0}
    if text.lower() in truths:
        return truths[text.lower()]
    return float(text.replace(",", ".") if re.fullmatch(r"-?\d+,\d+", text) else text)


@dataclass(frozen=True, slots=True)
class Answers:
    """What there is to say of each row.

    Args:
        task: what is asked; None where the columns do not say.
        reason: why it is that, in a few words; empty where it can be nothing else.
        labels: ``(N,)`` int64 class numbers.
        targets: ``(N,)`` or ``(N, K)`` float32.
        classes: names of classes, or of labels.
        value_names: names of values.
    """

    task: Task | None
    reason: str
    labels: Labels | None = None
    targets: Targets | None = None
    classes: tuple[str, ...] = ()
    value_names: tuple[str, ...] = ()


def answers_of(columns: Sequence[Column], task: Task | None, where: str) -> Answers:
    """What columns ask for, by the rules above.

    Args:
        columns: those that are neither paths nor splits nor known to be something else.
        task: what the user says that they ask for.
        where: the file, for messages.

    Raises:
        DataError: the columns cannot be what the user says.
    """
    found, reason = _task_of(columns)
    if task in (None, found):
        asked = found
    else:
        asked, reason = task, "as asked"
    make: Callable[[], Answers | None] = {
        "classes": lambda: _classes(columns, reason),
        "values": lambda: _values(columns, reason),
        "labels": lambda: _several(columns, reason),
    }.get(asked or "", lambda: None)
    answers = make()
    if answers is not None:
        return answers
    if task is not None:
        names = ", ".join(printable(column.name) for column in columns)
        raise DataError(f"{where}: columns {names} hold no {task}.")
    return Answers(None, reason)


def notes_on(columns: Sequence[Column], answers: Answers, where: str) -> list[Problem]:
    """What is doubtful about the answers of a table."""
    if answers.labels is not None and len(answers.labels) >= _FEW_ROWS:
        distinct = len(np.unique(answers.labels))
        if 2 * distinct > len(answers.labels):
            reason = (
                f"{distinct:,} classes in {len(answers.labels):,} rows: is it the right column?"
            )
            return [Problem(where, reason)]
    if answers.task is not None or not columns:
        return []
    names = ", ".join(printable(column.name) for column in columns)
    known = [numbers for column in columns if (numbers := column.numbers()) is not None]
    several = sum(map(_are_truths, known)) > 1
    more = "; --task labels takes those of 0 and 1" if several else ""
    reason = f"none of its columns ({names}) is named label, class or target: no labels{more}"
    return [Problem(where, reason)]


def answers_of_array(
    values: NDArray[Any], where: str, name: str, task: Task | None = None
) -> Answers:
    """What an array asks for: as the columns of a table, but class numbers keep their own.

    Args:
        values: ``(N,)``, ``(N, 1)`` or ``(N, K)``.
        where: the source, for messages.
        name: of the array.
        task: what the user says that it asks for.

    Raises:
        DataError: it cannot be that, or is of something else.
    """
    if values.ndim > 2 or values.dtype.kind not in "biufUS":
        raise DataError(f"{where}: {values.dtype} of shape {values.shape} says nothing of images.")
    found = answers_of(_columns_of_array(values, name), task, where)
    is_numbers = values.dtype.kind in "biuf" and values.size == len(values)
    if found.task != "classes" or not is_numbers or values.min() < 0:
        return found
    labels = class_labels(values, where)
    classes = tuple(str(number) for number in range(int(labels.max()) + 1))
    return Answers("classes", found.reason, labels=labels, classes=classes)


def _columns_of_array(values: NDArray[Any], name: str) -> list[Column]:
    """The columns of an array ``(N,)``, ``(N, 1)`` or ``(N, K)``; several are called 0, 1, 2..."""
    table = values.reshape(len(values), -1)
    found = []
    for number, cells in enumerate(table.T):
        distinct, codes = np.unique(cells, return_inverse=True)
        column = Column(name if table.shape[1] == 1 else str(number))
        column.codes = array("q", codes.ravel().tolist())
        column.texts = {_text(each): place for place, each in enumerate(distinct.tolist())}
        found.append(column)
    return found


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# -- the rules -------------------------------------------------------------------------------------


def _task_of(columns: Sequence[Column]) -> tuple[Task | None, str]:
    if not columns:
        return None, ""
    return _of_one(columns[0]) if len(columns) == 1 else _of_many(columns)


def _of_one(column: Column) -> tuple[Task, str]:
    name = printable(column.name)
    if _divider(column) is not None:
        return "labels", f"{name} holds several words"
    numbers = column.numbers()
    if numbers is None:
        return "classes", ""
    measured = _measured(column, numbers)
    return (
        ("values", f"{name} {measured}")
        if measured
        else ("classes", f"{name} holds few whole numbers")
    )


def _measured(column: Column, numbers: NDArray[np.float64]) -> str | None:
    """Why numbers are no classes."""
    distinct = np.unique(numbers)
    is_own = len(numbers) >= _FEW_ROWS and 2 * len(distinct) > len(numbers)
    reasons = {
        "holds numbers with fractions": (distinct != np.round(distinct)).any(),
        "holds negative numbers": distinct[0] < 0 and (len(distinct) > 2 or distinct[0] != -1),
        "is something one measures": column.words & _MEASURED and not column.words & _GROUPED,
        f"holds {len(distinct):,} different numbers": is_own or len(distinct) > MAX_CLASSES,
    }
    return next((reason for reason, is_so in reasons.items() if is_so), None)


def _of_many(columns: Sequence[Column]) -> tuple[Task | None, str]:
    known = [column.numbers() for column in columns]
    numbers = [each for each in known if each is not None]
    truths = [each for each in numbers if _are_truths(each)]
    if len(truths) == len(columns):
        if (np.stack(truths).clip(min=0).sum(axis=0) == 1).all():
            return "classes", f"{len(columns):,} columns, one of them 1 in every row"
        return "labels", f"{len(columns):,} columns of 0 and 1"
    if len(numbers) == len(columns) and any((n != np.round(n)).any() for n in numbers):
        return "values", f"{len(columns):,} columns of numbers"
    return None, ""


def _are_truths(numbers: NDArray[np.float64]) -> bool:
    found = set(np.unique(numbers).tolist())
    return found <= {0.0, 1.0} or found <= {-1.0, 1.0}


def _divider(column: Column) -> str | None:
    """What divides words, where a cell may hold several."""
    texts = list(column.texts)
    if column.values is not None:
        return None
    if all(re.fullmatch(r"\[.*\]", text) for text in texts):  # a list as Python writes it
        return r"[\[\]'\"]*\s*,\s*[\[\]'\"]*|^\['?\"?|'?\"?\]$"
    if any("|" in text for text in texts):
        return r"\s*\|\s*"
    if not column.words & _PLURALS:
        return None
    for divider in (r"\s*[;,]\s*", r"\s+"):
        words = {word for text in texts for word in re.split(divider, text)}
        if any(re.search(divider, text) for text in texts) and len(words) < len(texts):
            return divider
    return None


# -- what they give --------------------------------------------------------------------------------


def _classes(columns: Sequence[Column], reason: str) -> Answers | None:
    if len(columns) != 1:
        return _one_hot(columns, reason)
    column = columns[0]
    if column.values is not None:
        return None
    texts = [_whole(text) for text in column.texts]
    order, names = _sorted_classes(texts)
    labels = order[np.frombuffer(column.codes, np.int64)]
    return Answers("classes", reason, labels=labels, classes=names)


def _one_hot(columns: Sequence[Column], reason: str) -> Answers | None:
    table = _table(columns)
    if table is None or (np.sort(table, axis=1)[:, :-1] == table.max(axis=1, keepdims=True)).any():
        return None
    names = tuple(printable(column.name) for column in columns)
    return Answers("classes", reason, labels=table.argmax(axis=1), classes=names)


def _values(columns: Sequence[Column], reason: str) -> Answers | None:
    table = _table(columns)
    if table is None:
        return None
    names = tuple(printable(column.name) for column in columns)
    targets = np.ascontiguousarray(table[:, 0] if len(columns) == 1 else table, np.float32)
    return Answers("values", reason, targets=targets, value_names=names)


def _several(columns: Sequence[Column], reason: str) -> Answers | None:
    if len(columns) == 1:
        return _words(columns[0], reason)
    chosen = [c for c in columns if (n := c.numbers()) is not None and _are_truths(n)]
    table = _table(chosen)
    if table is None:
        return None
    names = tuple(printable(column.name) for column in chosen)
    return Answers("labels", reason, targets=(table > 0).astype(np.float32), classes=names)


def _words(column: Column, reason: str) -> Answers | None:
    if column.values is not None:
        return None
    divider = _divider(column) or r"\s*[|;,]\s*|\s+"
    sets = [{word for word in re.split(divider, text) if word} for text in column.texts]
    names = sorted(set().union(*sets))
    shares = np.array([[name in words for name in names] for words in sets], np.float32)
    targets = shares[np.frombuffer(column.codes, np.int64)]
    return Answers("labels", reason, targets=targets, classes=tuple(map(printable, names)))


def _table(columns: Sequence[Column]) -> NDArray[np.float64] | None:
    """``(N, K)``; None where a cell is no number."""
    numbers = [column.numbers() for column in columns]
    known = [each for each in numbers if each is not None]
    return np.stack(known, axis=1) if known and len(known) == len(columns) else None


def _whole(text: str) -> str:
    """``1`` for ``1.0``: what pandas makes of whole numbers beside an empty cell."""
    return text[:-2] if re.fullmatch(r"-?\d+\.0", text) else text


def _sorted_classes(texts: list[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The number of each text, and the names in order: numbers by value, else by name."""
    classes = list(dict.fromkeys(texts))
    try:
        classes.sort(key=lambda text: (int(text), text))
    except ValueError:
        classes.sort()
    numbers = {text: number for number, text in enumerate(classes)}
    return np.array([numbers[text] for text in texts], np.int64), tuple(map(printable, classes))
