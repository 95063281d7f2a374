"""Every field of a recipe, once: THE TABLE.

A field is one row. Made from the rows are the checks of :class:`~memfit.Recipe`, flags with their
``--help`` and ``docs/commands.md``, what a page may ask of ``memfit serve`` with its OpenAPI
document, the page's form, the command that the page shows, and what makes two recipes the same
for a measurement.
"""

# ruff: noqa: RUF009 - a row is a dataclass field with its default

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum, Flag
from typing import Any, Literal, get_args

from memfit.recipe.kinds import (
    Choice,
    Kind,
    Many,
    Number,
    Range,
    Shape,
    Spec,
    Tensors,
    Text,
    Whole,
)

__all__ = [
    "FIELDS",
    "MAX_BATCH",
    "Attention",
    "Checkpointing",
    "Colour",
    "Field",
    "MemoryFormat",
    "Mode",
    "Offer",
    "OnBadImage",
    "Precision",
    "RecipeFields",
    "Resize",
    "Schedule",
    "Section",
    "Task",
    "ZeroGrad",
    "offered",
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
Mode = Literal["train", "eval", "inference"]
Task = Literal["classes", "masks", "values", "labels"]


class Section(Enum):
    """Where a flag stands in ``--help``."""

    MODEL = "Model and data"
    MEMORY = "Memory"
    TRAINING = "Training"


class Offer(Flag):
    """Who offers a field, beside Python and recipe files."""

    NOBODY = 0
    MODEL = 1  # a flag of memfit model
    PLAN = 2  # a flag of every command that plans
    TRAIN = 4  # a flag of the commands that train, too
    REQUEST = 8  # what a page may ask of memfit serve
    FORM = 16  # a control of the page's form
    MORE = 32  # one under "More"
    DATA = 64  # a flag of memfit data


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A row of the table.

    Args:
        name: in Python, TOML and JSON; the flag is the same with dashes.
        default: None stands for "decided by something else", ``MISSING`` for none.
        kind: what it may be.
        section: of ``--help``.
        by: who offers it.
        help: what it is.
        label: on the page, in English and Chinese.
        has_effect: whether it changes a byte of a step on one device.
        is_rare: whether only ``--help-all`` lists its flag.
        takes_code: whether Python may give an object beside the recipe, which then holds its name;
            see :mod:`memfit.recipe.own`.
    """

    name: str
    default: Any
    kind: Kind
    section: Section
    by: Offer
    help: str
    label: tuple[str, str] = ("", "")
    has_effect: bool = True
    is_rare: bool = False
    takes_code: bool = False

    @property
    def flag(self) -> str:
        """``--batch-size``."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def schema(self) -> dict[str, Any]:
        """What it may be in JSON, in words of JSON Schema."""
        schema = self.kind.schema_or_null if self.default is None else self.kind.schema
        default = {} if self.default is MISSING else {"default": self.default}
        return schema | default | {"description": self.help}

    def checked(self, value: Any) -> Any:
        """The value in its one spelling.

        Raises:
            UsageError: it is impossible.
        """
        if value is None and self.default is None:
            return None
        return self.kind.checked(self.name, value)


def _row(default: Any, kind: Kind, section: Section, by: Offer, help: str, **more: Any) -> Any:
    row = {"kind": kind, "section": section, "by": by, "help": help, **more}
    return field(default=default, metadata=row)


#: More samples than any step on one device has; larger numbers are typing errors.
MAX_BATCH = 1 << 24

_MODEL, _MEMORY, _TRAINING = Section.MODEL, Section.MEMORY, Section.TRAINING
_NOBODY, _PLAN, _TRAIN, _ASK = Offer.NOBODY, Offer.PLAN, Offer.TRAIN, Offer.REQUEST
_DATA = Offer.DATA
_SHORT, _FORM, _MORE = Offer.MODEL | _PLAN, _ASK | Offer.FORM, _ASK | Offer.MORE
_BATCH, _COUNT = Whole(1, MAX_BATCH), Whole(1, 1_000_000_000)
_SWITCH, _WORDS = Choice((False, True)), Many(Text())
_POSITIVE, _SHARE = Number(above=0), Number(least=0, below=1)
# PyTorch's kernels count the values of a tensor in 32 bits
_SHAPE = Shape(Whole(1, 1_000_000), most=5, most_values=(1 << 31) - 1)


# fmt: off
@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeFields:
    """The table: a name, its type, its default, and what :class:`Field` says of the rest."""

    # -- model and data --------------------------------------------------------------------------

    model: str = field(metadata={
        "kind": Text(), "section": _MODEL, "by": _FORM, "takes_code": True,
        "help": "torchvision:NAME, timm:NAME, transformers:NAME, mlp, cnn, path/to/file.py:build "
            "or package.module:build.",
        "label": ("Model", "模型")})
    input_shape: tuple[int, ...] | None = _row(
        None, _SHAPE, _MODEL, _SHORT | _FORM,
        "Of one sample, such as 3x224x224; from the data when omitted.",
        label=("Input size", "输入尺寸"))
    input_ids: int | None = _row(
        None, Whole(1, 10_000_000), _MODEL, _SHORT | _ASK,
        "Tokens in one sample, for language models.")
    input: tuple[str, ...] = _row(
        (), Tensors(_SHAPE), _MODEL, _SHORT | _ASK,
        "One tensor of a sample, such as image=3x224x224, meta=8 or ids=64:int64; repeated where "
        "the model takes several; N where the batch is not first, as in 128xNx80.")
    num_classes: int | None = _row(
        None, Whole(1, 10_000_000), _MODEL, _SHORT | _FORM,
        "Of the model's head; from the data when omitted.",
        label=("Classes", "类别数"))
    boxes: int | None = _row(
        None, Whole(1, 10_000), _MODEL, _PLAN,
        "Objects in an image, for torchvision's detection models; PyTorch itself runs them behind "
        "stubs (Linux, CUDA build, a compiler).")
    data: str | None = _row(
        None, Text(), _MODEL, _PLAN,
        "mnist, fashion-mnist, cifar10, cifar100, shapes, a path, or a Dataset of your own: "
        "my_data.py:make; see memfit data.",
        takes_code=True)
    root: str | None = _row(
        None, Text(), _MODEL, _PLAN, "Where the named sets are.", has_effect=False, is_rare=True)
    task: Task | None = _row(
        None, Choice(get_args(Task)), _MODEL, _PLAN | _DATA,
        "What the data asks for: classes, masks (a class for each pixel), values (numbers to "
        "predict) or labels (several for an image); as the data looks when omitted.")
    window: tuple[float, float] | None = _row(
        None, Range(), _MODEL, _PLAN | _DATA,
        "Grey levels that become black and white, for 16 and 32-bit and float images: -1000:3000.",
        has_effect=False, is_rare=True)
    frame: int | None = _row(
        None, Whole(0, 1_000_000), _MODEL, _PLAN | _DATA,
        "Of images with several frames or pages, from 0; the first when omitted.",
        has_effect=False, is_rare=True)
    colour: Colour = _row(
        "auto", Choice(get_args(Colour)), _MODEL, _PLAN,
        "What the model gets: grey or rgb; auto is what the images are.", is_rare=True)
    augment: tuple[str, ...] = _row(
        (), _WORDS, _MODEL, _PLAN,
        "crop=4, flip, random-resized-crop, randaugment=2:9, trivialaugment, colour-jitter=0.4, "
        "mixup=0.2 or cutmix; may be repeated.")
    mean: tuple[float, ...] | None = _row(
        None, Many(Number(above=-1_000_000, below=1_000_000), 1), _MODEL, _TRAIN,
        "Of each channel, 0 to 1; measured if omitted.", is_rare=True)
    std: tuple[float, ...] | None = _row(
        None, Many(Number(above=0, below=1_000_000), 1), _MODEL, _TRAIN, "As mean.", is_rare=True)
    resize: Resize = _row(
        "crop", Choice(get_args(Resize)), _MODEL, _TRAIN,
        "Images of another size: crop (shorter side, then the centre), stretch or pad.")
    transform: str | None = _row(
        None, Text(), _MODEL, _TRAIN,
        "Done to each uint8 image (C, H, W): path/to/file.py:name; floats that it returns are not "
        "normalised.",
        takes_code=True)
    on_bad_image: OnBadImage = _row(
        "error", Choice(get_args(OnBadImage)), _MODEL, _TRAIN,
        "error, or skip: count, list and leave out.", has_effect=False, is_rare=True)
    workers: int | None = _row(
        None, Whole(0, 1024), _MODEL, _TRAIN,
        "Processes that read images; chosen by the machine when omitted.", has_effect=False)
    weights: str | None = _row(
        None, Text(), _MODEL, _TRAIN,
        "Start from: pretrained, or a .pt or .safetensors file.", has_effect=False)

    val_share: float = _row(
        0.1, _SHARE, _MODEL, _TRAIN,
        "Of the training samples, held out to validate on where the data has no val split, the "
        "same in every run; 0 for none.", has_effect=False)

    # -- memory ----------------------------------------------------------------------------------

    batch_size: int | None = _row(
        None, _BATCH, _MEMORY, _SHORT | _ASK,
        "The micro-batch: one forward and backward on one device.")
    mode: Mode = _row(
        "train", Choice(get_args(Mode)), _MEMORY, _PLAN | _FORM,
        "train; eval: forward passes without gradients, with the loss; inference: in "
        "inference_mode, without targets.",
        label=("Mode", "模式"))
    eval_batch_size: int | None = _row(
        None, _BATCH, _MEMORY, _PLAN | _ASK,
        "Samples in one forward of the validation pass between epochs; with data that has a "
        "validation split the micro-batch when omitted.", has_effect=False)
    global_batch: int | None = _row(
        None, _BATCH, _MEMORY, _PLAN | _ASK,
        "Samples for one optimizer step, reached by accumulation.", has_effect=False)
    precision: Precision = _row(
        "fp32", Choice(get_args(Precision)), _MEMORY, _SHORT | _FORM,
        "fp32, tf32, amp-fp16, amp-bf16, fp16 or bf16.",
        label=("Precision", "精度"))
    optimizer: str | Mapping[str, Any] = _row(
        "sgd", Spec(), _MEMORY, _SHORT | _FORM,
        "A name, with options after commas: sgd,momentum=0.9 or adamw,fused=true.",
        label=("Optimizer", "优化器"), takes_code=True)
    accumulation: int = _row(
        1, _BATCH, _MEMORY, _PLAN | _FORM, "Micro-batches for one optimizer step.",
        label=("Accumulation", "梯度累积"))
    memory_format: MemoryFormat = _row(
        "nchw", Choice(get_args(MemoryFormat)), _MEMORY, _PLAN | _FORM,
        "nchw or nhwc (channels last).",
        label=("Memory format", "内存格式"))
    zero_grad: ZeroGrad = _row(
        "none", Choice(get_args(ZeroGrad)), _MEMORY, _PLAN | _MORE,
        "none: gradients are freed before each step; zero: they stay.",
        label=("zero_grad", "zero_grad"), is_rare=True)
    attention: Attention = _row(
        "auto", Choice(get_args(Attention)), _MEMORY, _PLAN | _MORE,
        "The kernel of scaled_dot_product_attention: auto, flash, efficient or math.",
        label=("Attention", "注意力实现"), is_rare=True)
    gradient_checkpointing: Checkpointing = _row(
        False, Choice(get_args(Checkpointing), {
            "reentrant": "Checkpoint with the reentrant implementation."}),
        _MEMORY, _PLAN | _FORM, "Recompute blocks in backward.",
        label=("Gradient checkpointing", "梯度检查点"))
    clip_grad_norm: float | None = _row(
        None, Number(above=0, most=1_000_000), _MEMORY, _PLAN | _MORE,
        "Clip gradients to this norm.",
        label=("Clip gradient norm", "梯度范数裁剪"), is_rare=True)
    ema: bool = _row(
        False, _SWITCH, _MEMORY, _PLAN | _MORE,
        "Keep a moving average of the weights on the device.",
        label=("Moving average (EMA)", "滑动平均（EMA）"))
    cudnn_benchmark: bool = _row(
        False, _SWITCH, _MEMORY, _PLAN | _MORE, "torch.backends.cudnn.benchmark.",
        label=("cudnn.benchmark", "cudnn.benchmark"), is_rare=True)
    frozen: tuple[str, ...] = _row(
        (), _WORDS, _MEMORY, _PLAN,
        "Parameters that do not train, as a path pattern such as layer1.*; may be repeated.",
        is_rare=True)
    allocator: str = _row(
        "", Text(200, r"A-Za-z0-9_.,:<>=\[\]\- "), _MEMORY, _PLAN | _ASK,
        "Options as in PYTORCH_ALLOC_CONF, such as expandable_segments:True.", is_rare=True)
    safety: float = _row(
        0.8, Number(above=0, most=1), _MEMORY, _PLAN | _ASK,
        "Share of the card that the recommended batch may use.", has_effect=False, is_rare=True)
    loss: str | None = _row(
        None, Text(), _MEMORY, _PLAN,
        "cross-entropy, token-cross-entropy, bce, mse, l1, smooth-l1, dice, ctc, triplet, "
        "contrastive, none (the model returns it), sums such as dice+cross-entropy or "
        "cross-entropy@logits+0.4*cross-entropy@aux, bce@each, or path/to/file.py:name.",
        takes_code=True)
    target: tuple[str, ...] = _row(
        (), Tensors(_SHAPE, ("input",)), _MEMORY, _PLAN | _ASK,
        "What the loss compares with, of one sample, such as 1x224x224 or 32:int64; input is the "
        "input itself; follows from the loss when omitted.")
    step: str | None = _row(
        None, Text(), _MEMORY, _NOBODY,
        "How your own forward pass, (model, inputs, targets) -> loss, is called.",
        takes_code=True)

    # -- training --------------------------------------------------------------------------------

    base_lr: float | None = _row(
        None, _POSITIVE, _TRAINING, _PLAN,
        "A learning rate that works at the base batch size.", has_effect=False)
    base_batch_size: int = _row(
        256, _BATCH, _TRAINING, _PLAN,
        "The global batch at which the base learning rate works.", has_effect=False, is_rare=True)
    epochs: int = _row(
        5, _COUNT, _TRAINING, _TRAIN, "Passes over the training data.", has_effect=False)
    steps: int | None = _row(
        None, _COUNT, _TRAINING, _TRAIN, "Optimizer steps; wins over epochs.", has_effect=False)
    lr: float | None = _row(
        None, _POSITIVE, _TRAINING, _TRAIN,
        "Peak learning rate; when omitted base_lr scaled to the global batch, else the "
        "optimizer's usual one.", has_effect=False)
    schedule: Schedule = _row(
        "cosine", Choice(get_args(Schedule)), _TRAINING, _TRAIN,
        "Of the learning rate after warm-up: cosine, step or constant.", has_effect=False)
    milestones: tuple[float, ...] = _row(
        (0.5, 0.75), Many(_SHARE, 1), _TRAINING, _TRAIN,
        "Shares of all steps at which step divides the learning rate by ten.", has_effect=False,
        is_rare=True)
    warmup: float = _row(
        0.05, _SHARE, _TRAINING, _TRAIN,
        "Share of all steps in which the learning rate rises.", has_effect=False, is_rare=True)
    label_smoothing: float = _row(
        0.0, _SHARE, _TRAINING, _TRAIN, "As torch.nn.CrossEntropyLoss.", is_rare=True)
    ema_decay: float = _row(
        0.999, _SHARE, _TRAINING, _TRAIN, "Of the moving average, for each step.",
        has_effect=False, is_rare=True)
    seed: int = _row(
        0, Whole(-(1 << 63), (1 << 63) - 1), _TRAINING, _TRAIN,
        "Of weights, order and augmentation.", has_effect=False)
    compile: bool = _row(
        False, _SWITCH, _TRAINING, _TRAIN, "Run the model through torch.compile.")
    deterministic: bool = _row(
        False, _SWITCH, _TRAINING, _TRAIN, "Only algorithms that give the same bits again.",
        is_rare=True)
    early_stopping: int | None = _row(
        None, _COUNT, _TRAINING, _TRAIN,
        "End after so many evaluations without a better one.", has_effect=False)
    evaluate_every: int = _row(
        1, _COUNT, _TRAINING, _TRAIN, "Epochs between evaluations.", has_effect=False, is_rare=True)
    checkpoint_every: int | None = _row(
        None, _COUNT, _TRAINING, _TRAIN,
        "Optimizer steps between checkpoints; an epoch when omitted.", has_effect=False,
        is_rare=True)
    keep_checkpoints: int = _row(
        2, _COUNT, _TRAINING, _TRAIN, "How many of the last to keep, beside the best.",
        has_effect=False, is_rare=True)
    grow_after: int = _row(
        200, _COUNT, _TRAINING, _TRAIN,
        "Clean steps before a larger micro-batch is tried again after out-of-memory.",
        has_effect=False, is_rare=True)
    shard: bool = _row(
        False, _SWITCH, _TRAINING, _TRAIN,
        "Under torchrun: split weights, gradients and optimizer state over the ranks.")
# fmt: on


#: The rows by name, in order.
FIELDS: Mapping[str, Field] = {
    f.name: Field(name=f.name, default=f.default, **f.metadata) for f in fields(RecipeFields)
}


def offered(by: Offer) -> list[Field]:
    """The fields that somebody offers."""
    return [row for row in FIELDS.values() if by & row.by]
