"""Models of transformers, from their configuration: no weights, no network.

``NAME`` is a well-known model (``known_configs.toml``), a folder with a ``config.json``, that file
itself, or a model in the local Hugging Face cache. ``NAME#TASK`` chooses another head than the
configuration's own: ``bert-base-uncased#sequence-classification``.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from memfit.errors import InputShapeError, ModelError, UnknownName
from memfit.models.built import BuiltModel, Task
from memfit.models.meta import construct_library_model
from memfit.models.optional import optional_package

__all__ = ["build_transformers", "transformers_names"]

# The classes that give a configuration its head, and the endings of `architectures` in config.json
# that name them. In the order in which a configuration without `architectures` is tried.
_HEADS: dict[Task, tuple[str, tuple[str, ...]]] = {
    "classification": (
        "AutoModelForImageClassification",
        ("ForImageClassification", "ForImageClassificationWithTeacher"),
    ),
    "segmentation": ("AutoModelForSemanticSegmentation", ("ForSemanticSegmentation",)),
    "masked-lm": ("AutoModelForMaskedLM", ("ForMaskedLM", "ForPreTraining")),
    "causal-lm": ("AutoModelForCausalLM", ("ForCausalLM", "LMHeadModel")),
    "seq2seq-lm": ("AutoModelForSeq2SeqLM", ("ForConditionalGeneration",)),
    "sequence-classification": (
        "AutoModelForSequenceClassification",
        ("ForSequenceClassification",),
    ),
    "token-classification": ("AutoModelForTokenClassification", ("ForTokenClassification",)),
}
_IMAGE_TASKS: tuple[Task, ...] = ("classification", "segmentation")
_LABELLED_TASKS: tuple[Task, ...] = (
    *_IMAGE_TASKS,
    "sequence-classification",
    "token-classification",
)

_DEFAULT_TOKENS = 512  # the length BERT and GPT-2 class models are commonly trained or tuned at
_DEFAULT_IMAGE_SIZE = 224  # for convolutional nets, whose configuration names no size


def transformers_names() -> list[str]:
    """The well-known names, sorted, without the source's prefix."""
    return sorted(_known_configs())


def build_transformers(
    name: str, input_shape: tuple[int, ...] | None, num_classes: int | None
) -> BuiltModel:
    """Build a transformers model in float32 with its key-value cache off, as for training.

    Args:
        name: ``NAME`` or ``NAME#TASK``.
        input_shape: ``(C, H, W)`` for images, ``(L,)`` for token ids.
        num_classes: for classification and segmentation; language models have none.

    Raises:
        UnknownName: neither known, nor a path, nor in the local cache.
        InputShapeError: the model cannot take the shape.
        ModelError: transformers is missing, or has no such head for this model.
    """
    transformers = optional_package("transformers")
    spec = f"transformers:{name}"
    name, _, asked_task = name.partition("#")
    config, own_task = _configuration(transformers, name)
    task = _task(transformers, spec, config, asked_task or own_task)
    config.use_cache = False
    if num_classes is not None and task in _LABELLED_TASKS:
        config.num_labels = num_classes
    if task == "sequence-classification" and config.pad_token_id is None:
        config.pad_token_id = 0  # decoders look for the last token before the padding
    if task == "seq2seq-lm" and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0  # what the labels are shifted by; its value is no size
    is_image = task in _IMAGE_TASKS
    shape = _fit_image(spec, config, input_shape) if is_image else None
    shape = shape or _token_shape(spec, config, input_shape)
    auto_class = getattr(transformers, _HEADS[task][0])
    module = construct_library_model(
        spec,
        # float32 whatever the checkpoint was saved in: the precision is the recipe's business
        lambda: auto_class.from_config(config, dtype=torch.float32, trust_remote_code=False),
        input_shape,
    )
    return BuiltModel(
        module,
        spec,
        shape,
        config.num_labels if task in _LABELLED_TASKS else None,
        "image" if is_image else "token",
        None if is_image else config.get_text_config().vocab_size,
        task,
    )


@cache
def _known_configs() -> dict[str, dict[str, Any]]:
    table = files("memfit.models").joinpath("known_configs.toml").read_text(encoding="utf-8")
    return tomllib.loads(table)


def _configuration(transformers: Any, name: str) -> tuple[Any, str | None]:
    """The configuration object, and its task where our table knows it."""
    for known, entry in _known_configs().items():
        if name == known or name in entry.get("also", ()):
            fields = {key: entry[key] for key in entry.keys() - {"also", "model_type", "task"}}
            return transformers.AutoConfig.for_model(entry["model_type"], **fields), entry["task"]
    try:
        config = transformers.AutoConfig.from_pretrained(
            name, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        if Path(name).exists():
            raise ModelError(
                f"transformers cannot read {name}: {type(error).__name__}: {error}",
                hint="Pass a config.json with a model_type, or the folder that holds it.",
            ) from error
        raise UnknownName(
            "model",
            f"transformers:{name}",
            transformers_names(),
            hint="Not in memfit's table, not a path, not in the local Hugging Face cache; nothing "
            "is downloaded. Save its config.json and pass transformers:path/to/config.json.",
        ) from error
    return config, None


def _task(transformers: Any, spec: str, config: Any, asked: str | None) -> Task:
    """The task asked for, else that of the configuration's architecture, else the first head."""
    heads = [
        task
        for task, (auto_class, _) in _HEADS.items()
        if type(config) in getattr(transformers, auto_class)._model_mapping
    ]
    if asked:
        matching = [task for task in heads if task == asked]
    else:
        architecture = (config.architectures or [""])[0]
        matching = [task for task in heads if architecture.endswith(_HEADS[task][1])] or heads
    if not matching:
        what = f"no {asked} head" if asked else "no head that memfit knows"
        raise ModelError(
            f"transformers has {what} for {spec} ({config.model_type}).",
            hint=f"It has: {', '.join(heads)}." if heads else None,
        )
    return matching[0]


def _fit_image(spec: str, config: Any, asked: tuple[int, ...] | None) -> tuple[int, ...]:
    """Set the configuration's channels and image size to those asked for; returns the shape."""
    own_size = getattr(config, "image_size", _DEFAULT_IMAGE_SIZE)
    height, width = own_size if isinstance(own_size, list | tuple) else (own_size, own_size)
    if asked is None:
        return (config.num_channels, height, width)
    if len(asked) != 3:
        raise InputShapeError(f"{spec} takes an image C x H x W, not the shape {asked}.")
    config.num_channels = asked[0]
    if hasattr(config, "image_size") and asked[1:] != (height, width):
        config.image_size = asked[1] if asked[1] == asked[2] else list(asked[1:])
    return asked


def _token_shape(spec: str, config: Any, asked: tuple[int, ...] | None) -> tuple[int]:
    """``(L,)``: asked for, else at most 512 tokens; learned positions bound it."""
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None) or _DEFAULT_TOKENS
    if text.model_type == "roberta":  # its positions start behind the padding id
        longest -= text.pad_token_id + 1
    if asked is None:
        return (min(_DEFAULT_TOKENS, longest),)
    if len(asked) != 1:
        raise InputShapeError(
            f"{spec} takes token ids, not an input of shape {asked}.",
            hint="Its input shape is one number, the sequence length: --input-shape 512.",
        )
    rotary = getattr(text, "rope_parameters", None) or getattr(text, "rope_theta", None)
    if asked[0] > longest and not rotary:
        raise InputShapeError(f"{spec} has {longest} learned positions, not {asked[0]}.")
    return (asked[0],)
