"""A recipe as command-line flags, shared by every command that takes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from memfit.errors import UsageError

if TYPE_CHECKING:
    from memfit.recipe.recipe import Recipe

__all__ = [
    "Flag",
    "JsonFlag",
    "MemoryFlags",
    "TrainingFlags",
    "Whole",
    "recipe_of",
    "training_recipe",
]


def _whole(_kind: object, tokens: Sequence[Any]) -> int:
    """An integer as written: 3.5 is none, and is not rounded to one."""
    text: str = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number.") from None


Whole = Annotated[int | None, Parameter(converter=_whole)]
JsonFlag = Annotated[bool, Parameter(name="--json", negative=())]
Flag = Annotated[bool | None, Parameter(negative_bool=("no-",))]
Words = Annotated[list[str] | None, Parameter(negative=())]

_MODEL = Group("Model and data", sort_key=1)
_MEMORY = Group("Memory", sort_key=2)
_TRAINING = Group("Training", sort_key=3)


def _in(group: Group, words: str) -> Parameter:
    return Parameter(group=group, help=words)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MemoryFlags:
    """What decides memory; every field is one of :class:`~memfit.Recipe`, None when not given."""

    input_shape: Annotated[
        str | None, _in(_MODEL, "Of one sample, such as 3x224x224; from the data when omitted.")
    ] = None
    input_ids: Annotated[Whole, _in(_MODEL, "Tokens in one sample, for language models.")] = None
    num_classes: Annotated[
        Whole, _in(_MODEL, "Of the model's head; from the data when omitted.")
    ] = None
    data: Annotated[
        str | None,
        _in(_MODEL, "mnist, fashion-mnist, cifar10, cifar100, shapes or a path, see memfit data."),
    ] = None
    root: Annotated[str | None, _in(_MODEL, "Where the named sets are.")] = None
    colour: Annotated[
        str | None, _in(_MODEL, "What the model gets: grey or rgb; auto is what the images are.")
    ] = None
    augment: Annotated[
        Words,
        _in(
            _MODEL,
            "crop=4, flip, random-resized-crop, randaugment=2:9, trivialaugment, "
            "colour-jitter=0.4, mixup=0.2 or cutmix; may be repeated.",
        ),
    ] = None
    batch_size: Annotated[
        Whole, _in(_MEMORY, "The micro-batch: one forward and backward on one device.")
    ] = None
    global_batch: Annotated[
        Whole, _in(_MEMORY, "Samples for one optimizer step, reached by accumulation.")
    ] = None
    optimizer: Annotated[
        str | None,
        _in(_MEMORY, "A name, with options after commas: sgd,momentum=0.9 or adamw,fused=true."),
    ] = None
    precision: Annotated[
        str | None, _in(_MEMORY, "fp32, tf32, amp-fp16, amp-bf16, fp16 or bf16.")
    ] = None
    memory_format: Annotated[str | None, _in(_MEMORY, "nchw or nhwc (channels last).")] = None
    attention: Annotated[str | None, _in(_MEMORY, "auto, flash, efficient or math.")] = None
    zero_grad: Annotated[
        str | None,
        _in(_MEMORY, "none: gradients are freed before each step; zero: they stay."),
    ] = None
    cudnn_benchmark: Annotated[Flag, _in(_MEMORY, "torch.backends.cudnn.benchmark.")] = None
    gradient_checkpointing: Annotated[Flag, _in(_MEMORY, "Recompute blocks in backward.")] = None
    reentrant: Annotated[
        bool,
        Parameter(negative=(), group=_MEMORY, help="Checkpoint with the reentrant implementation."),
    ] = False
    accumulation: Annotated[Whole, _in(_MEMORY, "Micro-batches for one optimizer step.")] = None
    clip_grad_norm: Annotated[float | None, _in(_MEMORY, "Clip gradients to this norm.")] = None
    ema: Annotated[Flag, _in(_MEMORY, "Keep a moving average of the weights on the device.")] = None
    frozen: Annotated[
        Words, _in(_MEMORY, "Parameters that do not train, as a path pattern; may be repeated.")
    ] = None
    allocator: Annotated[
        str | None,
        _in(_MEMORY, "Options as in PYTORCH_ALLOC_CONF, such as expandable_segments:True."),
    ] = None
    base_lr: Annotated[
        float | None, _in(_TRAINING, "A learning rate that works at the base batch size.")
    ] = None
    base_batch_size: Annotated[
        Whole, _in(_TRAINING, "The global batch at which the base learning rate works.")
    ] = None
    safety: Annotated[
        float | None, _in(_MEMORY, "Share of the card that the recommended batch may use.")
    ] = None

    def given(self) -> dict[str, Any]:
        """The recipe's fields that were given, as it wants them."""
        from memfit.recipe.recipe import parse_optimizer, parse_shape

        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if values.pop("reentrant"):
            values["gradient_checkpointing"] = "reentrant"
        if values["input_shape"] is not None:
            values["input_shape"] = parse_shape(values["input_shape"])
        if values["optimizer"] is not None:
            values["optimizer"] = parse_optimizer(values["optimizer"])
        return {name: value for name, value in values.items() if value is not None}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """What decides training beyond memory; fields of :class:`~memfit.Recipe`."""

    epochs: Annotated[Whole, _in(_TRAINING, "Passes over the training data.")] = None
    steps: Annotated[Whole, _in(_TRAINING, "Optimizer steps; wins over epochs.")] = None
    lr: Annotated[float | None, _in(_TRAINING, "Peak learning rate.")] = None
    schedule: Annotated[
        str | None, _in(_TRAINING, "Of the learning rate after warm-up: cosine, step or constant.")
    ] = None
    milestones: Annotated[
        list[float] | None,
        Parameter(
            negative=(),
            group=_TRAINING,
            help="Shares of all steps at which step divides the learning rate by ten.",
        ),
    ] = None
    mean: Annotated[
        list[float] | None,
        Parameter(negative=(), group=_MODEL, help="Of each channel, 0 to 1; measured if omitted."),
    ] = None
    std: Annotated[list[float] | None, Parameter(negative=(), group=_MODEL, help="As mean.")] = None
    warmup: Annotated[
        float | None, _in(_TRAINING, "Share of all steps in which the learning rate rises.")
    ] = None
    label_smoothing: Annotated[float | None, _in(_TRAINING, "As torch.nn.CrossEntropyLoss.")] = None
    ema_decay: Annotated[float | None, _in(_TRAINING, "Of the moving average.")] = None
    resize: Annotated[str | None, _in(_MODEL, "Images of another size: crop, stretch or pad.")] = (
        None
    )
    transform: Annotated[str | None, _in(_MODEL, "Done to each image: path/to/file.py:name.")] = (
        None
    )
    on_bad_image: Annotated[
        str | None, _in(_MODEL, "error, or skip: count, list and leave out.")
    ] = None
    workers: Annotated[Whole, _in(_MODEL, "Processes that read images.")] = None
    seed: Annotated[Whole, _in(_TRAINING, "Of weights, order and augmentation.")] = None
    compile: Annotated[Flag, _in(_TRAINING, "Run the model through torch.compile.")] = None
    deterministic: Annotated[
        Flag, _in(_TRAINING, "Only algorithms that give the same bits again.")
    ] = None
    early_stopping: Annotated[
        Whole, _in(_TRAINING, "End after so many evaluations without a better one.")
    ] = None
    evaluate_every: Annotated[Whole, _in(_TRAINING, "Epochs between evaluations.")] = None
    checkpoint_every: Annotated[
        Whole, _in(_TRAINING, "Optimizer steps between checkpoints; an epoch when omitted.")
    ] = None
    keep_checkpoints: Annotated[Whole, _in(_TRAINING, "How many of the last to keep.")] = None
    weights: Annotated[
        str | None, _in(_MODEL, "Start from: pretrained, or a .pt or .safetensors file.")
    ] = None
    grow_after: Annotated[
        Whole, _in(_TRAINING, "Clean steps before a larger micro-batch is tried again.")
    ] = None
    shard: Annotated[
        Flag, _in(_TRAINING, "Under torchrun: split weights and optimizer state over the ranks.")
    ] = None

    def given(self) -> dict[str, Any]:
        """The recipe's fields that were given."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def recipe_of(model: str | None, changes: dict[str, Any]) -> Recipe:
    """The recipe of a file with flags over it, or of a model and flags.

    Args:
        model: a recipe file ending in ``.toml``, or a model.
        changes: fields of the recipe.

    Raises:
        UsageError: no model is named.
    """
    from memfit.recipe.recipe import Recipe, load_recipe

    if model is not None and Path(model).suffix == ".toml":
        return load_recipe(model, **changes)
    if model is None:
        raise UsageError("Which model?", hint="Such as: memfit plan torchvision:resnet50")
    return Recipe(model=model, **changes)


def training_recipe(model: str | None, changes: dict[str, Any]) -> Recipe:
    """The recipe to train; what is not said at all is the built-in example."""
    from memfit.recipe.recipe import example_recipe

    if model is None:
        return example_recipe(**changes)
    recipe = recipe_of(model, changes)
    return recipe if recipe.data is not None else recipe.but(data="shapes")
