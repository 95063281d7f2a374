"""The meta build beside the ordinary one: same names, shapes, dtypes, tying, flags."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import warnings
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import get_model

from memfit import models
from memfit.errors import InputShapeError, ModelError
from memfit.models.meta import construct_on_meta, meta_twin
from memfit.models.optional import optional_package

TINY = {
    "bert": {"hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 99},
    "gpt2": {"n_embd": 24, "n_layer": 2, "vocab_size": 99},
    "llama": {
        "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 99,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    },
}  # fmt: skip
HEADS = {"bert": "MaskedLM", "gpt2": "CausalLM", "llama": "CausalLM"}


def description(module: nn.Module) -> dict[str, object]:
    """All that the meta build must share with the ordinary one."""
    tied: dict[int, list[str]] = defaultdict(list)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        tied[id(parameter)].append(name)
    return {
        "parameters": [
            (name, type(p), p.shape, p.stride(), p.dtype, p.requires_grad)
            for name, p in module.named_parameters()
        ],
        "tied": sorted(names for names in tied.values() if len(names) > 1),
        "buffers": [(name, b.shape, b.stride(), b.dtype) for name, b in module.named_buffers()],
        "persistent": list(module.state_dict()),
        "modules": [(name, type(part), part.training) for name, part in module.named_modules()],
    }


def tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


@pytest.mark.parametrize(
    "name", ["resnet18", "mnasnet0_5", "regnet_y_400mf", "shufflenet_v2_x0_5", "swin_v2_t"]
)
def test_torchvision_builds_as_ordinarily(name: str) -> None:
    built = models.build(f"torchvision:{name}")
    assert description(built.module) == description(get_model(name, weights=None))
    assert all(tensor.is_meta for tensor in tensors(built.module))


@pytest.mark.parametrize(
    "name",
    ["levit_128s", "swinv2_cr_tiny_ns_224", "test_efficientnet", "test_vit", "vitamin_small_224"],
)
def test_timm_builds_as_ordinarily(name: str) -> None:
    built = models.build(f"timm:{name}")
    assert description(built.module) == description(optional_package("timm").create_model(name))
    assert all(tensor.is_meta for tensor in tensors(built.module))


@pytest.mark.parametrize("kind", sorted(TINY))
def test_transformers_builds_as_ordinarily(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **TINY[kind]}))
    built = models.build(f"transformers:{tmp_path}")
    transformers = optional_package("transformers")
    auto_class = getattr(transformers, f"AutoModelFor{HEADS[kind]}")
    real = auto_class.from_config(transformers.AutoConfig.from_pretrained(tmp_path))
    assert description(real)["tied"], "these embeddings are tied"
    assert description(built.module) == description(real)
    assert all(tensor.is_meta for tensor in tensors(built.module))


def layers(sizes: list[int], tie: bool, frozen: bool, norm: bool) -> nn.Sequential:
    net = nn.Sequential()
    for size in sizes:
        net.append(nn.Linear(8, 8, bias=size % 2 == 0))
        if norm:
            net.append(nn.BatchNorm1d(8))
    if tie:
        net[-1 if not norm else -2].weight = net[0].weight
    net[0].weight.requires_grad_(not frozen)
    net[-1].train(not frozen)
    return net


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), *[st.booleans()] * 3)
@settings(max_examples=30)
def test_twin_and_redirected_construction_agree_with_the_original(
    sizes: list[int], tie: bool, frozen: bool, norm: bool
) -> None:
    original = layers(sizes, tie, frozen, norm)
    redirected = construct_on_meta(lambda: layers(sizes, tie, frozen, norm))
    assert isinstance(redirected, nn.Module)
    assert all(parameter.is_meta for parameter in redirected.parameters())
    assert description(meta_twin(original)) == description(original)
    assert description(meta_twin(redirected)) == description(original)


def test_one_parameter_registered_twice_stays_one() -> None:
    def build() -> nn.Module:
        weight = nn.Parameter(torch.ones(3))
        return nn.ParameterList([weight, weight])

    built = models.build(build)
    assert len(list(built.module.parameters())) == 1


def test_a_seven_billion_parameter_decoder_stays_below_two_gib() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory of a process is read from /proc")
    program = (
        "from memfit import models\n"
        "built = models.build('transformers:meta-llama/Llama-2-7b-hf')\n"
        "print(sum(p.numel() for p in built.module.parameters()))\n"
        "print(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    parameters, peak_kib = map(int, out.stdout.split())
    assert parameters == 6_738_415_616  # 25 GiB in float32
    assert peak_kib < 2 * 1024 * 1024


def noisy() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(int(torch.randint(3, 9, ())), 2), nn.Dropout())


@pytest.mark.parametrize("model", ["torchvision:resnet18", "timm:test_vit", noisy])
def test_no_random_numbers_are_drawn(model: object) -> None:
    before = torch.get_rng_state()
    models.build(model)  # type: ignore[arg-type]
    assert torch.equal(before, torch.get_rng_state())


def test_the_users_module_is_left_alone() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    module(torch.ones(1, 1, 5, 5)).sum().backward()
    module[0].weight.tag = "kept"  # type: ignore[attr-defined]
    values = [tensor.clone() for tensor in tensors(module)]
    identities = [id(tensor) for tensor in tensors(module)]
    built = models.build(module)
    assert [id(tensor) for tensor in tensors(module)] == identities
    assert all(torch.equal(a, b) for a, b in zip(tensors(module), values, strict=True))
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert all(tensor.is_meta for tensor in tensors(built.module))
    assert all(parameter.grad is None for parameter in built.module.parameters())
    assert built.module.get_parameter("0.weight").tag == "kept"  # type: ignore[attr-defined]
    assert built.name == "Sequential"


def test_training_modes() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    module[1].eval()
    assert [part.training for part in models.build(module).module] == [True, False]
    module.eval()
    assert [part.training for part in models.build(module).module] == [True, True]
    assert not module.training


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch 2.11 itself
def test_a_compiled_model_is_unwrapped() -> None:
    built = models.build(torch.compile(nn.Linear(2, 3)))  # type: ignore[arg-type]
    assert type(built.module) is nn.Linear
    assert built.name == "Linear"


def test_a_recurrent_twin_still_runs() -> None:
    built = models.build(nn.LSTM(4, 5, batch_first=True))
    output, _ = built.module(torch.empty(2, 3, 4, device="meta"))
    assert output.shape == (2, 3, 5)


def test_what_cannot_be_copied_is_named() -> None:
    module = nn.Linear(1, 1)
    module.lock = threading.Lock()
    with pytest.raises(ModelError, match="Linear cannot be copied: TypeError") as caught:
        models.build(module)
    assert "function that builds" in (caught.value.hint or "")


class LearnsItsShape(nn.Module):
    """Feeds a dummy image through its layers in the constructor, as many course nets do."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
        width = self.features(torch.zeros(1, 3, 8, 8)).shape[1]
        self.head = nn.Linear(width, 2)
        self.register_buffer("scale", torch.ones(2))
        self.start = self.scale.copy_(self.head.weight.mean(1)).tolist()  # a buffer stays real
        self.to("cpu")


def test_a_constructor_may_use_its_layers_without_memory() -> None:
    module = construct_on_meta(LearnsItsShape)
    assert isinstance(module, LearnsItsShape)
    assert module.head.in_features == 4 * 6 * 6
    assert all(parameter.is_meta for parameter in module.parameters())


def test_a_factory_may_load_a_checkpoint_without_a_warning() -> None:
    checkpoint = nn.Linear(2, 2).state_dict()

    def build() -> nn.Module:
        module = nn.Linear(2, 2)
        module.load_state_dict(checkpoint)
        return module

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert models.build(build).module.get_parameter("weight").is_meta


def test_a_constructor_that_reads_its_weights_is_built_ordinarily() -> None:
    class Reads(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.mean = float(self.weight.mean())

    built = models.build(Reads)
    assert -1 < built.module.mean < 1  # type: ignore[operator]
    assert all(parameter.is_meta for parameter in built.module.parameters())


def test_other_threads_construct_ordinarily() -> None:
    made: list[nn.Module] = []

    def build() -> nn.Module:
        thread = threading.Thread(target=lambda: made.append(nn.Linear(2, 2)))
        thread.start()
        thread.join()
        return nn.Linear(2, 2)

    assert next(construct_on_meta(build).parameters()).is_meta  # type: ignore[attr-defined]
    assert not next(made[0].parameters()).is_meta


def test_lazy_layers_take_their_size_from_the_input() -> None:
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))
    built = models.build(net, input_shape=(3, 8, 8))
    assert built.module.get_parameter("3.weight").shape == (2, 4 * 6 * 6)
    assert built.module.get_buffer("1.running_mean").shape == (4,)
    assert all(tensor.is_meta for tensor in tensors(built.module))
    assert isinstance(net[3], nn.LazyLinear), "the user's stays lazy"


def test_lazy_layers_built_by_a_function() -> None:
    built = models.build(lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), input_shape=(1, 4))
    assert built.module.get_parameter("1.weight").shape == (2, 4)


def test_lazy_layers_need_a_shape_that_fits() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(ModelError, match=r"lazy layers \(2\.weight\)"):
        models.build(net)
    with pytest.raises(InputShapeError, match="does not accept a 1x8x8 input"):
        models.build(net, input_shape=(1, 8, 8))
