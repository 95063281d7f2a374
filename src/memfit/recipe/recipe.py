"""A recipe: everything that decides what a training step needs in memory.

``plan`` and all later commands take the same recipe, as a Python object, a TOML file or flags.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from memfit.errors import UnknownName, UsageError

__all__ = [
    "EXAMPLE",
    "Attention",
    "Checkpointing",
    "Colour",
    "MemoryFormat",
    "OnBadImage",
    "Precision",
    "Recipe",
    "Resize",
    "Schedule",
    "ZeroGrad",
    "example_recipe",
    "load_recipe",
    "parse_optimizer",
    "parse_shape",
]

Precision = Literal["fp32", "tf32", "amp-fp16", "amp-bf16", "fp16", "bf16"]
MemoryFormat = Literal["nchw", "nhwc"]
Attention = Literal["auto", "flash", "efficient", "math"]
ZeroGrad = Literal["none", "zero"]
Checkpointing = Literal[False, True, "non-reentrant", "reentrant"]
Colour = Literal["auto", "grey", "rgb"]
Resize = Literal["crop", "stretch", "pad"]
OnBadImage = Literal["error", "skip"]
Schedule = Literal["cosine", "step", "constant"]

#: What is trained when neither a model nor data is named: a minute on a laptop.
EXAMPLE: Mapping[str, Any] = {
    "model": "cnn", "data": "shapes", "optimizer": "adamw", "lr": 0.002,
}  # fmt: skip

#: More samples than any step on one device has; larger numbers are typing errors.
MAX_BATCH = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What decides memory: the model, its input, and how it is trained.

    Args:
        model: a spec (``"torchvision:resnet50"``, ``"path/to/file.py:build"``), an ``nn.Module``
            or a callable without arguments that makes one.
        input_shape: of one sample, ``(C, H, W)`` for images; the model's own when omitted.
        input_ids: tokens in one sample, for language models; replaces ``input_shape``.
        num_classes: the model's own when omitted.
        batch_size: the micro-batch to ask about: one forward and backward on one device.
        global_batch: samples for one optimizer step, reached by accumulation.
        optimizer: a name, ``{"name": "sgd", "momentum": 0.9, "foreach": False}``, or a callable
            that takes the parameters.
        precision: ``tf32`` is float32 in memory.
        memory_format: ``nhwc`` is ``torch.channels_last``.
        attention: the kernel that ``scaled_dot_product_attention`` may use.
        zero_grad: ``none`` frees gradients before each step, ``zero`` keeps and fills them.
        cudnn_benchmark: as ``torch.backends.cudnn.benchmark``.
        gradient_checkpointing: recompute blocks in backward; ``True`` is ``"non-reentrant"``.
        accumulation: micro-batches for one optimizer step.
        clip_grad_norm: clip gradients to this norm.
        ema: keep an exponential moving average of the weights on the device.
        frozen: path patterns of parameters that do not train, such as ``"layer1.*"``.
        loss: ``(output, target) -> scalar``; cross-entropy that fits the output when omitted.
        step: ``(model, inputs, targets) -> loss``, for a forward pass of your own.
        allocator: options as in ``PYTORCH_ALLOC_CONF``.
        base_lr: a learning rate known to work...
        base_batch_size: ...at this global batch.
        safety: share of the card that the recommended batch may use.
        data: what to train on: a named set, a path, or an opened ``memfit.data.Dataset``; it also
            decides ``input_shape`` and ``num_classes`` where they are omitted.
        root: folder of the named sets.
        colour: what the model gets; ``auto`` is what the images are.
        resize: how images of another size become ``input_shape``: shorter side and centre crop,
            stretched, or padded.
        mean: of each channel, on the scale 0 to 1; measured on the training images when omitted
            (on 2,048 of them where they are files).
        std: as ``mean``.
        augment: words such as ``("crop=4", "flip")``, see
            :func:`memfit.data.loading.augment.parse_augmentation`.
        transform: done to each uint8 image ``(C, H, W)`` in a worker: a callable, or
            ``path/to/file.py:name``; what it returns as float is not normalised again.
        on_bad_image: stop at an image that cannot be read, or count, list and leave it out.
        workers: processes that read images; chosen by the machine when omitted.
        seed: of the order, the augmentation and the weights.
        epochs: passes over the training data...
        steps: ...or optimizer steps, which win.
        lr: peak learning rate; without it ``base_lr`` is scaled to the global batch, else the
            optimizer's usual one.
        schedule: of the learning rate after warm-up.
        warmup: share of all steps in which the learning rate rises from zero.
        milestones: shares of all steps at which ``step`` divides the learning rate by ten.
        label_smoothing: as ``torch.nn.CrossEntropyLoss``.
        ema_decay: of the moving average, for each step.
        compile: run the model through ``torch.compile``.
        deterministic: only algorithms that give the same bits again.
        early_stopping: end after so many evaluations without a better one.
        evaluate_every: epochs between evaluations.
        checkpoint_every: optimizer steps between checkpoints; an epoch when omitted.
        keep_checkpoints: how many of the last to keep, beside the best.
        weights: start from ``"pretrained"`` weights of torchvision or timm, or from a local file.
        grow_after: clean steps before a larger micro-batch is tried again after out-of-memory.
        shard: on several ranks, each keeps a part of weights, gradients and optimizer state.

    Raises:
        UsageError: a value is impossible.
        UnknownName: a value is none of the known words.
    """

    model: Any
    input_shape: tuple[int, ...] | None = None
    input_ids: int | None = None
    num_classes: int | None = None
    batch_size: int | None = None
    global_batch: int | None = None
    optimizer: str | Mapping[str, Any] | Callable[..., Any] = "sgd"
    precision: Precision = "fp32"
    memory_format: MemoryFormat = "nchw"
    attention: Attention = "auto"
    zero_grad: ZeroGrad = "none"
    cudnn_benchmark: bool = False
    gradient_checkpointing: Checkpointing = False
    accumulation: int = 1
    clip_grad_norm: float | None = None
    ema: bool = False
    frozen: tuple[str, ...] = ()
    loss: Callable[..., Any] | None = None
    step: Callable[..., Any] | None = None
    allocator: str = ""
    base_lr: float | None = None
    base_batch_size: int = 256
    safety: float = 0.8
    data: Any = None
    root: str | None = None
    colour: Colour = "auto"
    resize: Resize = "crop"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augment: tuple[str, ...] = ()
    transform: str | Callable[..., Any] | None = None
    on_bad_image: OnBadImage = "error"
    workers: int | None = None
    seed: int = 0
    epochs: int = 5
    steps: int | None = None
    lr: float | None = None
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    milestones: tuple[float, ...] = (0.5, 0.75)
    label_smoothing: float = 0.0
    ema_decay: float = 0.999
    compile: bool = False
    deterministic: bool = False
    early_stopping: int | None = None
    evaluate_every: int = 1
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    weights: str | None = None
    grow_after: int = 200
    shard: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", _as_shape(self.input_shape))
        for name in ("frozen", "augment"):
            object.__setattr__(self, name, _as_words(name, getattr(self, name)))
        for name in ("mean", "std", "milestones"):
            object.__setattr__(self, name, _as_numbers(name, getattr(self, name)))
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        self._check_shape()
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name, largest in _LARGEST.items():
            _check_count(name, getattr(self, name), largest)
        if self.workers != 0:
            _check_count("workers", self.workers, 1024)
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise UsageError(f"seed is {self.seed!r}; it must be a whole number.")
        for name in ("warmup", "label_smoothing", "ema_decay"):
            _check_share(name, getattr(self, name))
        for share in self.milestones:
            _check_share("a milestone", share)
        if not isinstance(self.safety, (int, float)) or not 0 < self.safety <= 1:
            raise UsageError(f"safety is {self.safety}; it is a share: above 0, at most 1.")
        positive = [(name, getattr(self, name)) for name in ("lr", "base_lr", "clip_grad_norm")]
        for name, value in (*positive, *(("std", value) for value in self.std or ())):
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UsageError(f"{name} is {value!r}; it must be a number.")
            if not 0 < value < float("inf"):
                raise UsageError(f"{name} is {value}; it must be positive.")
        if self.global_batch and self.batch_size and self.global_batch % self.batch_size:
            raise UsageError(
                f"global_batch {self.global_batch} is no multiple of batch_size {self.batch_size}."
            )

    def _check_shape(self) -> None:
        if self.input_shape is not None and self.input_ids is not None:
            raise UsageError("input_shape and input_ids exclude each other.")
        for size in self.input_shape or ():
            _check_count("a size in input_shape", size, 1_000_000)
        if self.input_shape == ():
            raise UsageError("input_shape is empty.", hint="For colour images: 3x224x224.")

    def but(self, **changes: Any) -> Recipe:
        """The same recipe with some values changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and TOML; code is named, not serialised."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.data is not None and not isinstance(self.data, str):
            values["data"] = str(getattr(self.data, "name", self.data))
        return {name: _plain(value) for name, value in values.items()}


_CHOICES: dict[str, tuple[Any, ...]] = {
    "precision": get_args(Precision),
    "memory_format": get_args(MemoryFormat),
    "attention": get_args(Attention),
    "zero_grad": get_args(ZeroGrad),
    "gradient_checkpointing": get_args(Checkpointing),
    "colour": get_args(Colour),
    "resize": get_args(Resize),
    "on_bad_image": get_args(OnBadImage),
    "schedule": get_args(Schedule),
}
_MANY = 1_000_000_000
_LARGEST = {
    "batch_size": MAX_BATCH, "global_batch": MAX_BATCH, "accumulation": MAX_BATCH,
    "base_batch_size": MAX_BATCH, "num_classes": 10_000_000, "input_ids": 10_000_000,
    "epochs": _MANY, "steps": _MANY, "early_stopping": _MANY, "evaluate_every": _MANY,
    "checkpoint_every": _MANY, "keep_checkpoints": _MANY, "grow_after": _MANY,
}  # fmt: skip


def example_recipe(**changes: Any) -> Recipe:
    """The built-in example with some values changed; another optimizer brings its own rate."""
    example = dict(EXAMPLE)
    if changes.keys() & {"model", "data", "optimizer", "base_lr"}:
        del example["optimizer"], example["lr"]
    return Recipe(**{**example, **changes})


def load_recipe(path: str | Path, **changes: Any) -> Recipe:
    """Read a recipe from a TOML file; ``changes`` that are not None win over the file.

    Raises:
        UsageError: no such file, no TOML, or a value is impossible.
        UnknownName: a key that no recipe has.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Cannot read the recipe {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a TOML file: {error}.") from None
    names = {f.name for f in fields(Recipe)}
    for key in content:
        if key not in names:
            raise UnknownName(f"key in {path}:", key, names)
    if isinstance(content.get("optimizer"), str) and "," in content["optimizer"]:
        content["optimizer"] = parse_optimizer(content["optimizer"])
    if isinstance(content.get("input_shape"), str):
        content["input_shape"] = parse_shape(content["input_shape"])
    content |= {name: value for name, value in changes.items() if value is not None}
    if "model" not in content:
        raise UsageError(f"{path} names no model.", hint='Add: model = "torchvision:resnet50"')
    try:
        return Recipe(**content)
    except TypeError as error:
        raise UsageError(f"{path}: {error}.") from None


def parse_shape(text: str) -> tuple[int, ...]:
    """``"3x224x224"`` (or with commas) as ``(3, 224, 224)``.

    Raises:
        UsageError: it is no shape.
    """
    parts = text.lower().replace(",", "x").replace("×", "x").split("x")
    if not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"{text!r} is not a shape.", hint="Write it like 3x224x224.")
    return tuple(int(part) for part in parts)


def parse_optimizer(
    text: str, what: str = "an optimizer", example: str = "sgd,momentum=0.9"
) -> dict[str, Any]:
    """``"sgd,momentum=0.9,foreach=false"`` as ``{"name": "sgd", "momentum": 0.9, …}``.

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


def _as_shape(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, str):
        return parse_shape(value)
    if value is None or isinstance(value, (tuple, list)):
        return None if value is None else tuple(value)
    raise UsageError(f"input_shape is {value!r}; it must be like (3, 224, 224).")


def _as_words(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (str, list, tuple, type(None))):
        raise UsageError(f"{name} is {value!r}; it must be a list of words.")
    words = (value,) if isinstance(value, str) else tuple(value or ())
    if not all(isinstance(word, str) for word in words):
        raise UsageError(f"{name} is {value!r}; it must be a list of words.")
    return words


def _as_numbers(name: str, value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    numbers = (value,) if isinstance(value, (int, float)) else tuple(value)
    if not numbers or not all(isinstance(n, (int, float)) and abs(n) < 1e6 for n in numbers):
        raise UsageError(f"{name} is {value!r}; it must be one number for each channel.")
    return tuple(float(number) for number in numbers)


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if not any(
        value is choice or (value == choice and type(value) is type(choice)) for choice in choices
    ):
        words = [choice for choice in choices if isinstance(choice, str)]
        raise UnknownName(name.replace("_", " "), str(value), words)


def _check_share(name: str, value: Any) -> None:
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise UsageError(f"{name} is {value!r}; it is a share: at least 0, below 1.")


def _check_count(name: str, value: Any, largest: int) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}; it must be a whole number.")
    if not 1 <= value <= largest:
        raise UsageError(f"{name} is {value}; it must be between 1 and {largest:,}.")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return getattr(value, "__qualname__", type(value).__qualname__)
