"""Plans: the arithmetic against hand counts and against traces at the asked batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memfit
import memfit.planner.planning
from memfit.cards.catalogue import gpu as find_gpu
from memfit.errors import UnknownName, UsageError
from memfit.memory.allocator.timeline import replay
from memfit.memory.tape.tape import Part
from memfit.planner.plan import Plan
from memfit.planner.planning import plan_job
from memfit.planner.result import BatchPlan
from memfit.planner.verdict import verdict
from memfit.step.job import resolve

MIB = 1024**2
WEIGHTS = 407_080  # 101,770 float32
IMAGES = 784 * 4 + 8  # bytes of one sample with its label


def plan(model: Any = "mlp", **options: Any) -> Plan:
    if model == "mlp":
        options.setdefault("input_shape", (1, 28, 28))
    return memfit.plan(model, **{"gpu": "11GiB", "verify": False} | options)


def held(plan: Plan, part: str, batch: int = 64, before: str = "optimizer") -> int:
    """Bytes of a part when a phase of the second step begins."""
    timeline = plan.at(batch).timeline
    (mark,) = [m for m in timeline.tape.marks if (m.step, str(m.phase)) == (1, before)]
    return timeline.parts_at(mark.position - 1)[Part(part)]


EIGHT_BIT = (  # a byte each and a float32 for 256 of the large matrices, float32 for the others
    100_352 + 392 * 4 + 1280 * 4 + (128 + 10) * 4
)
CODE_BOOK = 256 * 4


@pytest.mark.parametrize(
    ("optimizer", "state"),
    [
        ("sgd", 0),
        ({"name": "sgd", "momentum": 0.9}, WEIGHTS),
        ("adam", 2 * WEIGHTS),
        ("adamw", 2 * WEIGHTS),
        ({"name": "adamw", "amsgrad": True}, 3 * WEIGHTS),
        ({"name": "adamw", "fused": True}, 2 * WEIGHTS + 4 * 4),  # step counts are on the device
        ("adagrad", WEIGHTS),
        ("rmsprop", WEIGHTS),
        ({"name": "rmsprop", "momentum": 0.9, "centered": True}, 3 * WEIGHTS),
        ("lion", WEIGHTS),
        ("adam8bit", 2 * (EIGHT_BIT + CODE_BOOK)),
        ("lion8bit", EIGHT_BIT + CODE_BOOK),
    ],
)
def test_the_parts_that_stay_are_the_arithmetic_to_the_byte(optimizer: Any, state: int) -> None:
    made = plan(optimizer=optimizer)
    assert made.parameter_count == 101_770
    assert held(made, "parameters") == WEIGHTS
    assert held(made, "gradients") == WEIGHTS
    assert held(made, "optimizer") == state
    assert held(made, "batch") == 64 * IMAGES
    assert held(made, "batch", 1000) == 1000 * IMAGES


MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "cnn": ("cnn", {"input_shape": (3, 32, 32)}),
    "resnet18": ("torchvision:resnet18", {"input_shape": (3, 64, 64), "num_classes": 10}),
    "mobilenet": ("torchvision:mobilenet_v3_small", {"input_shape": (3, 64, 64)}),
    "vit": ("timm:vit_tiny_patch16_224", {"input_shape": (3, 64, 64)}),
    "swin": ("torchvision:swin_t", {"input_shape": (3, 64, 64)}),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"precision": "amp-fp16", "optimizer": "adamw"},
    {"precision": "bf16", "memory_format": "nhwc", "ema": True},
    {"gradient_checkpointing": True, "accumulation": 2, "clip_grad_norm": 1.0},
]
CASES = [
    pytest.param(model, OPTIONS[number], id=f"{model}-{number}")
    for model, numbers in [
        ("cnn", (0, 1, 2)),
        ("resnet18", (0, 1, 2, 3)),
        ("mobilenet", (1,)),
        ("vit", (0, 1, 2, 3)),
        ("swin", (1, 3)),
    ]
    for number in numbers
]


@pytest.mark.parametrize(("model", "options"), CASES)
def test_the_arithmetic_is_the_direct_trace_to_the_byte(model: str, options: Any) -> None:
    name, shape = MODELS[model]
    made = plan(name, **shape, **options)
    assert made.is_affine, made.tapes.not_affine_because
    for batch in (1, 13, 64):
        arithmetic = made.at(batch)
        direct = replay(made.step.trace(batch), settings=None)
        assert arithmetic.timeline.sizes_bytes == direct.sizes_bytes, batch
        assert arithmetic.timeline.tape.events == direct.tape.events
        assert arithmetic.peak_allocated_bytes == direct.peak_allocated_bytes
        assert arithmetic.peak_reserved_bytes == direct.peak_reserved_bytes


@pytest.fixture(scope="module")
def resnet() -> Plan:
    return plan("torchvision:resnet18", input_shape=(3, 64, 64), num_classes=10, optimizer="adam")


BATCHES = (1, 2, 7, 16, 64, 100, 1000)


@pytest.mark.parametrize("batch", BATCHES)
def test_the_parts_add_up_to_the_total(resnet: Plan, batch: int) -> None:
    at = resnet.at(batch)
    assert sum(at.parts.values()) == at.total_bytes
    assert min(at.parts.values()) >= 0
    assert at.total_bytes == at.peak_reserved_bytes + at.parts["context"]
    assert at.peak_allocated_bytes <= at.peak_reserved_bytes
    assert list(at.parts) == [
        "parameters", "gradients", "optimizer", "batch", "activations", "temporaries",
        "workspaces", "cache", "context",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["mlp", "timm:vit_tiny_patch16_224"])
def test_the_peak_grows_with_the_batch(name: str) -> None:
    # With convolutions it may not: cuDNN picks its plan, and so its workspace, by the batch.
    made = plan(name, **({} if name == "mlp" else {"input_shape": (3, 64, 64)}))
    peaks = [made.at(batch).peak_allocated_bytes for batch in (*range(2, 40), *BATCHES[4:])]
    assert peaks == sorted(peaks)


def test_parameters_and_state_do_not_depend_on_the_batch(resnet: Plan) -> None:
    parts = [resnet.at(batch).parts for batch in BATCHES]
    assert len({part["parameters"] for part in parts}) == 1
    assert len({part["optimizer"] for part in parts}) == 1


# -- the batch that fits ------------------------------------------------------------------------


def test_the_largest_batch_fits_and_the_next_does_not(resnet: Plan) -> None:
    largest = resnet.max_batch_size
    assert largest
    assert resnet.at(largest).fits()
    assert not resnet.at(largest + 1).fits()


def test_the_recommended_batch_runs_within_the_safety(resnet: Plan) -> None:
    batch = resnet.recommended_batch_size
    assert batch
    assert batch % 8 == 0
    assert resnet.gpu
    safe = resnet.gpu.with_free_bytes(int(0.8 * resnet.gpu.usable_bytes))
    assert resnet.at(batch).fits(safe)
    assert not resnet.at(batch + 8).fits(safe)
    assert resnet.max_batch_size
    assert 0.7 < batch / resnet.max_batch_size < 0.9


def test_a_larger_card_takes_a_larger_batch(resnet: Plan) -> None:
    sizes = [find_gpu(f"{size}GiB") for size in (2, 4, 8)]
    largest = [resnet.limits.on(gpu).max_batch_size for gpu in sizes]
    assert largest == sorted(largest)
    assert largest[0] < largest[2]


def test_nothing_fits_a_card_that_the_context_fills() -> None:
    made = plan("torchvision:resnet18", input_shape=(3, 224, 224), gpu="256MiB", optimizer="adam")
    assert made.max_batch_size == 0
    assert made.fits is False
    assert made.at(None).batch_size == 1


def test_without_a_card_there_is_no_limit_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memfit.planner.planning.local_gpu", lambda: None)
    made = plan(gpu=None)
    assert (made.gpu, made.fits, made.max_batch_size) == (None, None, None)
    with pytest.raises(UsageError, match="Which GPU"):
        made.at(64).fits()
    assert made.at(64).fits("rtx-3090")


def test_the_asked_batch_decides_whether_it_fits() -> None:
    shape = {"input_shape": (3, 64, 64), "gpu": "2GiB"}
    assert plan("torchvision:resnet18", batch_size=8, **shape).fits is True
    assert plan("torchvision:resnet18", batch_size=100_000, **shape).fits is False


def test_a_global_batch_is_reached_by_equal_micro_batches() -> None:
    made = plan("torchvision:resnet18", input_shape=(3, 224, 224), gpu="2GiB", global_batch=96)
    assert made.micro_batch * made.accumulation == 96
    assert made.micro_batch <= (made.recommended_batch_size or 0)


def test_the_learning_rate_follows_the_global_batch() -> None:
    made = plan(base_lr=0.1, base_batch_size=256, global_batch=1024)
    assert made.learning_rate
    assert made.learning_rate.value == pytest.approx(0.4)
    assert plan().learning_rate is None


def test_batch_norm_that_cannot_take_one_sample_is_planned_all_the_same() -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 4))
    made = plan(model, input_shape=(16,), gpu="256MiB")
    assert made.fits is True
    assert made.at(1).total_bytes <= made.at(2).total_bytes


# -- models whose structure depends on the batch --------------------------------------------------


class Branching(nn.Module):
    """One more layer runs for every batch beyond four."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[: 1 + (len(x) > 4) + (len(x) > 16)]:
            x = layer(x).relu()
        return x


def test_a_model_that_branches_on_the_batch_is_traced_directly() -> None:
    made = plan(Branching(), input_shape=(16,), num_classes=16)
    assert not made.is_affine
    assert made.tapes.not_affine_because
    assert any("traced directly" in sentence for sentence in made.assumptions)
    for batch in (2, 8, 32):
        timeline = made.at(batch).timeline
        assert timeline.sizes_bytes == made.step.trace(batch).sizes_bytes
        relus = [a for a in timeline.tape.allocations if a.operator == "aten.relu.default"]
        assert len(relus) == 2 * (1 + (batch > 4) + (batch > 16))
    assert made.at(32).parts["gradients"] > made.at(2).parts["gradients"] or (
        made.at(32).peak_allocated_bytes > made.at(2).peak_allocated_bytes
    )


class BranchingLate(nn.Module):
    """The two traced batches look alike; a larger one does not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y.sin() if len(x) > 20 else y


def test_verifying_finds_a_difference_that_the_two_traces_did_not_show() -> None:
    made = plan(BranchingLate(), input_shape=(16,), num_classes=16)
    assert made.is_affine
    assert made.verify(16)
    assert not made.verify(32)
    assert not made.is_affine
    assert "32" in made.tapes.not_affine_because
    operators = [a.operator for a in made.at(32).timeline.tape.allocations]
    assert "aten.sin.default" in operators


def test_planning_verifies_at_the_asked_batch() -> None:
    asked = {"input_shape": (16,), "num_classes": 16, "verify": True}
    assert not plan(BranchingLate(), batch_size=32, **asked).is_affine
    assert plan(BranchingLate(), batch_size=16, **asked).is_affine


# -- what changes the answer ----------------------------------------------------------------------


def peak(**options: Any) -> BatchPlan:
    shape = {"input_shape": (3, 64, 64), "num_classes": 10}
    return plan("torchvision:resnet18", **shape, **options).at(64)


def test_mixed_precision_halves_activations_and_not_the_weights() -> None:
    shape = {"input_shape": (3, 64, 64), "num_classes": 10}
    full, half = (
        plan("torchvision:resnet18", precision=precision, **shape)
        for precision in ("fp32", "amp-fp16")
    )
    assert held(half, "parameters") == held(full, "parameters")
    kept = [held(made, "activations", before="backward") for made in (half, full)]
    weights = 2 * full.parameter_count  # half copies, kept for backward
    # A little more than half: the pooling layer's int64 indices, and a half copy of the images.
    assert 0.5 < (kept[0] - weights) / kept[1] < 0.6


def test_tf32_is_float32_in_memory() -> None:
    assert peak(precision="tf32").parts == peak().parts


def test_keeping_zeroed_gradients_costs_their_size() -> None:
    kept, freed = peak(zero_grad="zero"), peak()
    more = kept.peak_allocated_bytes - freed.peak_allocated_bytes
    assert kept.parts["gradients"] > freed.parts["gradients"]
    assert more > 0


def test_frozen_layers_need_less() -> None:
    frozen = peak(frozen=("conv1", "bn1", "layer1", "layer2"))
    assert frozen.peak_allocated_bytes < peak().peak_allocated_bytes


# -- as data --------------------------------------------------------------------------------------


def test_to_dict_is_plain_and_says_what_it_rests_on(resnet: Plan) -> None:
    import json

    told = json.loads(json.dumps(resnet.to_dict()))
    assert told["schema_version"] == 1
    assert told["at"]["total_bytes"] == sum(told["at"]["parts"].values())
    assert told["model"]["parameters"] == resnet.parameter_count
    assert told["is_affine"] is True
    assert told["assumptions"]
    assert told["unsupported"] == {}


def test_a_result_can_be_compared_and_pickled(resnet: Plan) -> None:
    import pickle

    result = resnet.result()
    assert pickle.loads(pickle.dumps(result)) == result == resnet.result()
    assert result.at.fits() is True
    assert result.to_dict() == resnet.to_dict()


def test_each_part_at_its_own_most(resnet: Plan) -> None:
    at = resnet.at(64)
    tape, sizes = resnet.tape_at(64)
    live = dict.fromkeys(Part, 0)
    most = dict(live)
    for event in tape.events:
        number = event if event >= 0 else ~event
        part = tape.allocations[number].part
        live[part] += sizes[number] if event >= 0 else -sizes[number]
        most[part] = max(most[part], live[part])
    for part in Part:
        assert at.parts[part] <= at.parts_most[part]
        if part not in (Part.CACHE, Part.CONTEXT):
            assert at.parts_most[part] == most[part]
    assert at.parts_most["gradients"] == 4 * resnet.parameter_count
    assert at.parts["gradients"] < at.parts_most["gradients"]
    assert at.parts_most["context"] == at.parts["context"]


def test_reporting_a_result_traces_and_searches_nothing(
    resnet: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from memfit.planner.overview import overview
    from memfit.report.plan.text import render_plan

    found = overview(resnet, [])

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("asked while drawing")

    for name in ("memfit.planner.tracing.TrainingStep.trace", "memfit.planner.limits.Limits.on"):
        monkeypatch.setattr(name, refuse)
    monkeypatch.setattr("memfit.memory.allocator.allocator.CachingAllocator.allocate", refuse)
    render_plan(found, Console(width=80))


def test_a_notebook_gets_text_and_html(resnet: Plan) -> None:
    bundle = resnet._repr_mimebundle_()
    assert "resnet18" in bundle["text/plain"]
    assert "<td>activations</td>" in bundle["text/html"]


@pytest.mark.parametrize("batch", [0, -1, 1 << 25, True, 2.5, "64"])
def test_a_batch_that_is_none_is_refused(resnet: Plan, batch: Any) -> None:
    with pytest.raises(UsageError, match="batch_size"):
        resnet.at(batch)


def test_unknown_words_are_named() -> None:
    with pytest.raises(UnknownName, match="precision 'fp17'"):
        plan(precision="fp17")
    with pytest.raises(UnknownName):
        plan(gpu="rtx-9999")


def test_the_users_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    before = [p.detach().clone() for p in model.parameters()]
    model.eval()
    plan(model, input_shape=(16,), precision="bf16", frozen=("1.bias",))
    assert not model.training
    assert [p.dtype for p in model.parameters()] == [torch.float32] * 2
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    for a, b in zip(model.parameters(), before, strict=True):
        assert torch.equal(a, b)


def test_without_a_card_its_rules_are_an_assumption() -> None:
    plan = plan_job(resolve("mlp", input_shape=(1, 28, 28)), verify=False)
    assert any("kernels and CUDA context are those of" in line for line in plan.assumptions)
    assert any("kernels" in line for line in plan.to_dict()["assumptions"])


def test_a_share_of_the_card_limits_what_fits_whatever_was_asked_before() -> None:
    share = "per_process_memory_fraction:0.5"
    plan = memfit.plan("cnn", gpu="rtx-3060", batch_size=64, verify=False, allocator=share)
    assert plan.gpu is not None
    assert not plan.limits.runs_on(plan.gpu, 12_500)
    free_bytes = plan.gpu.usable_bytes - plan.gpu.context_bytes
    assert plan.at(12_500).peak_reserved_bytes <= free_bytes  # the card has room, the share has not
    assert not plan.limits.runs_on(plan.gpu, 12_500)
    assert plan.limits.runs_on(plan.gpu, 8_000)


def test_where_each_batch_is_traced_the_end_of_the_search_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import io

    from rich.console import Console

    from memfit.planner.overview import overview
    from memfit.report.console.terminal import as_text
    from memfit.report.plan.text import render_plan

    monkeypatch.setattr("memfit.planner.tapes._MAX_TRACED_BATCH", 12)
    plan = memfit.plan("mlp", gpu="11GiB", batch_size=8, verify=False)
    plan.tapes.affine = None
    plan.tapes.not_affine_because = "tried"
    assert plan.max_batch_size == plan.tapes.last_batch == 12
    console = Console(width=100, file=io.StringIO())
    text = as_text(console, render_plan(overview(plan, None), console))
    assert "Largest micro-batch that fits: 12 or more" in text


def test_tight_is_what_does_not_run_with_the_recommended_share_of_the_card() -> None:
    found = [
        verdict(plan("cnn", optimizer="adamw", gpu="rtx-3060", batch_size=batch))
        for batch in (18_552, 22_339)  # the recommended and the largest one
    ]
    assert [v and (v.fits, v.missing_bytes > 0, v.is_tight) for v in found] == [
        (True, True, False),
        (True, True, True),
    ]
