from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch

from memfit import models
from memfit.errors import InputShapeError, ModelError, UnknownName
from memfit.planner.tracing import TrainingStep
from memfit.step.job import resolve

# Trainable totals as the model cards and the safetensors metadata on the Hub give them.
PUBLISHED = {
    "EleutherAI/pythia-1b": 1_011_781_632,
    "EleutherAI/pythia-160m": 162_322_944,
    "EleutherAI/pythia-410m": 405_334_016,
    "EleutherAI/pythia-70m": 70_426_624,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
    "bert-base-cased": 108_340_804,
    "bert-base-uncased": 109_514_298,
    "bert-large-uncased": 335_174_458,
    "distilbert-base-uncased": 66_985_530,
    "distilgpt2": 81_912_576,
    "facebook/convnext-base-224": 88_591_464,
    "facebook/convnext-tiny-224": 28_589_128,
    "facebook/deit-base-patch16-224": 86_567_656,
    "facebook/deit-small-patch16-224": 22_050_664,
    "facebook/deit-tiny-patch16-224": 5_717_416,
    "google/vit-base-patch16-224": 86_567_656,
    "google/vit-large-patch16-224": 304_326_632,
    "facebook/bart-base": 139_420_416,
    "facebook/bart-large": 406_291_456,
    "t5-base": 222_903_552,
    "t5-small": 60_506_624,
    "gpt2": 124_439_808,
    "gpt2-large": 774_030_080,
    "gpt2-medium": 354_823_168,
    "gpt2-xl": 1_557_611_200,
    "meta-llama/Llama-2-13b-hf": 13_015_864_320,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "microsoft/beit-base-patch16-224": 86_530_984,
    "microsoft/resnet-50": 25_557_032,
    "microsoft/swin-tiny-patch4-window7-224": 28_288_354,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "roberta-base": 124_697_433,
    "roberta-large": 355_412_057,
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_every_known_name_has_its_published_count() -> None:
    counted = {}
    for spec in models.model_names("transformers"):
        parameters = models.build(spec).module.parameters()
        counted[spec.removeprefix("transformers:")] = sum(each.numel() for each in parameters)
    assert counted == PUBLISHED


def test_another_name_for_the_same() -> None:
    built = models.build("transformers:google-bert/bert-base-uncased")
    assert built.name == "transformers:google-bert/bert-base-uncased"
    assert built.module.num_parameters() == PUBLISHED["bert-base-uncased"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "kind", "task", "shape", "classes", "vocab"),
    [
        ("bert-base-uncased", "token", "masked-lm", (512,), None, 30522),
        ("gpt2", "token", "causal-lm", (512,), None, 50257),
        ("gpt2#sequence-classification", "token", "sequence-classification", (512,), 2, 50257),
        ("bert-base-uncased#causal-lm", "token", "causal-lm", (512,), None, 30522),
        ("google/vit-base-patch16-224", "image", "classification", (3, 224, 224), 1000, None),
        ("microsoft/resnet-50", "image", "classification", (3, 224, 224), 1000, None),
    ],
)
def test_what_the_configuration_says(
    name: str, kind: str, task: str, shape: tuple[int, ...], classes: int, vocab: int
) -> None:
    built = models.build(f"transformers:{name}")
    assert (built.kind, built.task) == (kind, task)
    assert built.default_input_shape == shape
    assert (built.default_num_classes, built.vocab_size) == (classes, vocab)
    assert built.module.training
    assert built.module.config.use_cache is False  # type: ignore[union-attr]
    assert {parameter.dtype for parameter in built.module.parameters()} == {torch.float32}


def test_classes_and_image_shape_are_built_in() -> None:
    built = models.build(
        "transformers:facebook/deit-tiny-patch16-224", input_shape=(1, 32, 64), num_classes=4
    )
    assert built.module(torch.empty(2, 1, 32, 64, device="meta")).logits.shape == (2, 4)
    assert (built.default_input_shape, built.default_num_classes) == ((1, 32, 64), 4)
    built = models.build("transformers:bert-base-uncased#token-classification", num_classes=9)
    assert built.module.get_parameter("classifier.weight").shape[0] == 9


def write_config(folder: Path, **fields: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(fields))
    return path


def test_a_config_of_ones_own(tmp_path: Path) -> None:
    path = write_config(
        tmp_path, model_type="bert", hidden_size=24, num_hidden_layers=1, vocab_size=50,
        architectures=["BertForSequenceClassification"], torch_dtype="bfloat16",
    )  # fmt: skip
    for name in (path, tmp_path):
        built = models.build(f"transformers:{name}")
        assert (built.task, built.vocab_size) == ("sequence-classification", 50)
        assert {parameter.dtype for parameter in built.module.parameters()} == {torch.float32}


def test_a_config_without_architectures_gets_its_first_head(tmp_path: Path) -> None:
    write_config(tmp_path, model_type="gpt2", n_layer=1, vocab_size=50)
    assert models.build(f"transformers:{tmp_path}").task == "causal-lm"


def test_a_file_that_is_no_config(tmp_path: Path) -> None:
    path = write_config(tmp_path, hidden_size=3)
    with pytest.raises(ModelError, match="cannot read"):
        models.build(f"transformers:{path}")


def test_a_name_that_nothing_local_knows() -> None:
    with pytest.raises(UnknownName, match=r"config\.json"):
        models.build("transformers:nobody/nothing")


def test_a_head_that_does_not_exist() -> None:
    with pytest.raises(ModelError, match=r"no masked-lm head[\s\S]*It has: causal-lm"):
        models.build("transformers:gpt2#masked-lm")


def test_an_encoder_decoder_is_given_labels_and_returns_its_loss(tmp_path: Path) -> None:
    write_config(tmp_path, model_type="t5", num_layers=1, vocab_size=1000)
    step = TrainingStep(resolve(f"transformers:{tmp_path}", input_ids=16))
    assert set(step.batch.inputs.named) == {"input_ids", "labels"}
    assert str(step.loss) == "none@loss"


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("gpt2", (1025,), "1024 learned positions"),
        ("roberta-base", (513,), "512 learned positions"),
        ("gpt2", (3, 224, 224), "takes token ids"),
        ("google/vit-base-patch16-224", (128,), "takes an image"),
    ],
)
def test_shapes_it_cannot_take(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputShapeError, match=message):
        models.build(f"transformers:{name}", input_shape=shape)


def test_rotary_positions_have_no_such_bound() -> None:
    built = models.build("transformers:EleutherAI/pythia-70m", input_shape=(4096,))
    assert built.default_input_shape == (4096,)
