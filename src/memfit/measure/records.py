"""What was measured, kept: one small JSON file for each GPU and recipe."""

from __future__ import annotations

import importlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memfit.cards.catalogue import GPU, gpus
from memfit.errors import MemfitError, OtherVersion, RunError, UsageError
from memfit.files.durable import why_not_written, write_whole
from memfit.measure.process import recipe_facts
from memfit.measure.target import Target, card_from_facts
from memfit.recipe.fields import FIELDS
from memfit.recipe.recipe import Recipe
from memfit.version import __version__

if TYPE_CHECKING:
    from memfit.planner.plan import Plan

__all__ = [
    "SCHEMA_VERSION",
    "Limit",
    "Measurement",
    "Record",
    "default_folder",
    "load_record",
    "load_records",
    "measured_of_plan",
    "measured_points",
    "recipe_of",
    "record_path",
    "resolved_model",
    "save_record",
    "versions_here",
]

SCHEMA_VERSION = 1

Status = Literal["ok", "out_of_memory", "crashed", "timed_out"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One recipe at one micro-batch; bytes that nobody could read are None.

    Args:
        batch_size: the micro-batch.
        status: how the process ended.
        message: of the error, where there was one.
        peak_allocated_bytes: ``max_memory_allocated`` over all steps.
        peak_reserved_bytes: ``max_memory_reserved`` over all steps.
        steady_allocated_bytes: the same of the last step alone.
        steady_reserved_bytes: the same of the last step alone.
        bare_context_bytes: the process on the GPU before libraries load: after one tiny kernel.
        context_bytes: the process on the GPU after the steps, less what the allocator holds.
        gpu_used_bytes: the whole process: context and peak reserved.
        gpu_idle_bytes: what the GPU held before the process came.
        parts: requested bytes at the peak, by part; where the run was recorded.
        recorded_allocated_bytes: the peak of the recorded run: the plain run's, unless recording
            changed something.
        replayed_reserved_bytes: the measured sequence through memfit's model of the allocator.
        workspaces: what operators took beside their tensors.
        step_seconds: median time of a step; None where no kernel ran.
        retries: how often cached segments had to be released.
        others: other processes on the GPU; see :attr:`counts`.
    """

    batch_size: int
    status: Status
    message: str = ""
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    steady_allocated_bytes: int | None = None
    steady_reserved_bytes: int | None = None
    bare_context_bytes: int | None = None
    context_bytes: int | None = None
    gpu_used_bytes: int | None = None
    gpu_idle_bytes: int | None = None
    parts: dict[str, int] | None = None
    recorded_allocated_bytes: int | None = None
    replayed_reserved_bytes: int | None = None
    workspaces: tuple[dict[str, Any], ...] = ()
    step_seconds: float | None = None
    retries: int | None = None
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, batch_size: int, answer: Mapping[str, Any]) -> Measurement:
        """From what a process answered."""
        known = {f.name for f in fields(cls)} - {"batch_size"}
        values = {name: value for name, value in answer.items() if name in known}
        return cls(batch_size, **_with_tuples(values))

    def with_composition(self, answer: Mapping[str, Any]) -> Measurement:
        """With what the recorded run of the same batch answered."""
        names = ("parts", "recorded_allocated_bytes", "replayed_reserved_bytes", "workspaces")
        return replace(self, **_with_tuples({n: answer[n] for n in names if n in answer}))

    @property
    def counts(self) -> bool:
        """Whether its figures are ones to hold a prediction against.

        The allocator counts its own process alone. Others (a desktop, a browser) change that only
        when memory runs short and cached segments are released; what the driver says of the whole
        GPU is None where they blur it (:attr:`memfit.measure.readings.Use.own_bytes`).
        """
        return self.status == "ok" and (not self.others or self.retries == 0)


@dataclass(frozen=True, slots=True)
class Limit:
    """The largest micro-batch that really ran.

    Args:
        max_batch_size: 0 when none did.
        tried: each micro-batch with how it ended, in order.
        is_complete: nothing but out-of-memory and success was seen.
    """

    max_batch_size: int
    tried: tuple[tuple[int, str], ...]
    is_complete: bool = True


@dataclass(frozen=True)
class Record:
    """Everything that was measured of one recipe on one device.

    Args:
        name: of the recipe in its suite.
        family: such as ``resnet``.
        target: as :meth:`memfit.measure.target.Target.facts` says it.
        versions: of what decides memory.
        date: of the last measurement, in UTC.
        recipe: the fields that are not the usual ones.
        measurements: by rising micro-batch.
        limit: the largest micro-batch that ran, where it was looked for.
        sequences: the allocator's sequence by micro-batch, packed, where it is kept.
    """

    name: str
    family: str
    target: dict[str, Any]
    versions: dict[str, str | None]
    recipe: dict[str, Any]
    date: str = ""
    measurements: tuple[Measurement, ...] = ()
    limit: Limit | None = None
    sequences: dict[str, str] = field(default_factory=dict)

    @property
    def is_of_gpu(self) -> bool:
        """Whether a real GPU was measured."""
        return self.target.get("kind") == "cuda"

    @property
    def target_key(self) -> str:
        """The folder that it belongs in."""
        return Target.of(self.target).key

    @property
    def card(self) -> GPU:
        """The card with the memory that was free, and what the catalogue says of it today."""
        card = card_from_facts(self.target)
        today = gpus().get(card.key) if self.is_of_gpu else None
        return card if today is None else today.with_free_bytes(card.usable_bytes)

    def measurement(self, batch_size: int) -> Measurement | None:
        """What was measured at a micro-batch."""
        return next((m for m in self.measurements if m.batch_size == batch_size), None)

    def with_measurement(self, measurement: Measurement) -> Record:
        """With one more, or one replaced."""
        others = [m for m in self.measurements if m.batch_size != measurement.batch_size]
        ordered = sorted([*others, measurement], key=lambda m: m.batch_size)
        return replace(self, measurements=tuple(ordered), date=_now())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is None or empty is left out of the measurements."""
        content = asdict(self)
        content["measurements"] = [
            {k: v for k, v in m.items() if v not in (None, "", [], ())}
            for m in content["measurements"]
        ]
        return {"schema_version": SCHEMA_VERSION, **content}


def versions_here() -> dict[str, str | None]:
    """Versions of what decides memory, as far as the process that starts others knows them."""
    from memfit.models.optional import is_installed

    names = ["torch", "torchvision", *(n for n in ("timm", "transformers") if is_installed(n))]
    return {
        "memfit": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: metadata.version(name) for name in names},
        "driver": _driver_version(),
    }


def default_folder() -> Path:
    """``bench/truth/records`` of the checkout that memfit runs from, else ``records`` here."""
    checkout = Path(__file__).resolve().parents[3] / "bench" / "truth"
    return checkout / "records" if checkout.is_dir() else Path("records")


def record_path(folder: Path, target: Target, name: str) -> Path:
    """Where a recipe's record on a device is."""
    return folder / target.key / f"{name}.json"


def save_record(path: Path, record: Record) -> None:
    """Write a record whole, or not at all.

    Raises:
        RunError: the place cannot be written.
    """
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(record.to_dict(), indent=1) + "\n").encode())
    except OSError as error:
        why = why_not_written(error, folder)
        raise RunError(f"The record {path} cannot be written: {why}.") from None


def load_record(path: Path) -> Record:
    """Read a record.

    Raises:
        OtherVersion: another memfit wrote it, in another form.
        UsageError: it is no record.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Cannot read the record {path}: {error.strerror}.") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}.") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise _other_version(path, version)
    try:
        return _record(content)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is no record of memfit measure: {error!r}.") from None


def load_records(folder: Path) -> dict[Path, Record]:
    """All records under a folder, in the order of their names.

    Raises:
        OtherVersion: one of them has another form.
    """
    return {path: load_record(path) for path in sorted(folder.glob("*/*.json"))}


def recipe_of(record: Record, folder: Path | None = None) -> Recipe:
    """The recipe of a record, without a micro-batch.

    Args:
        record: as it was read.
        folder: where the suite's own models are; the checkout's ``bench/truth`` when omitted.
    """
    content = dict(record.recipe)
    folder = folder or default_folder().parent
    content["model"] = resolved_model(str(content["model"]), folder)
    return Recipe(**content)


def resolved_model(model: str, folder: Path) -> str:
    """A model file beside the suite by its full path, anything else as it is."""
    file, colon, name = model.rpartition(":")
    if colon and file.endswith(".py") and (folder / file).is_file():
        return f"{(folder / file).resolve()}:{name}"
    return model


def measured_points(
    recipe: Recipe, gpu_key: str, folder: Path | None = None
) -> list[dict[str, Any]]:
    """What was measured on a GPU for a recipe with the same memory-deciding fields.

    Args:
        recipe: the micro-batch in it does not matter.
        gpu_key: such as ``rtx-3060``.
        folder: of the records; the default one when omitted.

    Returns:
        For each micro-batch that ran alone on the GPU: ``batch_size``, ``peak_allocated_bytes``,
        ``peak_reserved_bytes``, ``total_bytes`` and ``source`` in words; nothing when there is no
        record. Records of anything but a real GPU are none.
    """
    folder = folder or default_folder()
    wanted = _deciding(recipe_facts(recipe))
    points = []
    for path in sorted((folder / gpu_key).glob("*.json")):
        try:
            record = load_record(path)
        except MemfitError:
            continue
        if record.is_of_gpu and _deciding(record.recipe) == wanted:
            points += [_point(record, m) for m in record.measurements if m.counts]
    return sorted(points, key=lambda point: point["batch_size"])


def measured_of_plan(plan: Plan) -> list[dict[str, Any]]:
    """What the records have of a plan's recipe on its card, as :func:`measured_points` says.

    Args:
        plan: without a card, or of a user's own objects, nothing was measured of it.
    """
    if plan.gpu is None or plan.step.job.own.given():
        return []
    return measured_points(plan.recipe, Target("cuda", plan.gpu).key)


def _deciding(facts: Mapping[str, Any]) -> str:
    """The memory-deciding fields in one spelling; a recipe file's name in place of its path."""
    kept = {k: v for k, v in facts.items() if FIELDS[k].has_effect}
    model = str(kept.get("model", ""))
    file, colon, name = model.rpartition(":")
    if colon and file.endswith(".py"):
        kept["model"] = f"{Path(file).name}:{name}"
    optimizer = kept.get("optimizer", "sgd")
    spec = {"name": optimizer} if isinstance(optimizer, str) else dict(optimizer)
    kept["optimizer"] = {k: v for k, v in spec.items() if k not in ("lr", "weight_decay")}
    if kept.get("gradient_checkpointing") is True:
        kept["gradient_checkpointing"] = "non-reentrant"
    return json.dumps(kept, sort_keys=True)


def _point(record: Record, measurement: Measurement) -> dict[str, Any]:
    torch_version = record.versions.get("torch")
    return {
        "batch_size": measurement.batch_size,
        "peak_allocated_bytes": measurement.peak_allocated_bytes,
        "peak_reserved_bytes": measurement.peak_reserved_bytes,
        "total_bytes": measurement.gpu_used_bytes,
        "source": f"measured on {record.card.name}, torch {torch_version}, {record.date[:10]}",
    }


def _record(content: dict[str, Any]) -> Record:
    known = {f.name for f in fields(Record)}
    values = {name: value for name, value in content.items() if name in known}
    values["measurements"] = tuple(
        Measurement(**_with_tuples(row)) for row in values["measurements"]
    )
    if values.get("limit") is not None:
        limit = values["limit"]
        tried = tuple((int(batch), str(status)) for batch, status in limit["tried"])
        values["limit"] = Limit(int(limit["max_batch_size"]), tried, bool(limit["is_complete"]))
    return Record(**values)


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return values | {n: tuple(values[n]) for n in ("workspaces", "others") if n in values}


def _other_version(path: Path, version: object) -> OtherVersion:
    if isinstance(version, int) and version > SCHEMA_VERSION:
        hint = "Upgrade memfit, or measure again into another folder: --records FOLDER."
    else:
        hint = "Nothing older can be converted. Measure it again: memfit measure --suite --force."
    return OtherVersion(
        f"{path} has schema version {version}; this memfit reads {SCHEMA_VERSION}.", hint=hint
    )


def _driver_version() -> str | None:
    nvml = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        return str(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
