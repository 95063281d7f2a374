"""Losses by name: against PyTorch's own, with the targets that follow from an output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import memfit
from memfit.errors import AmbiguousOutput, StepError, UnknownName, UsageError
from memfit.recipe.words import LOSS_NAMES
from memfit.step.losses import Term, parse_loss
from memfit.step.named_losses import LOSSES
from memfit.step.tensors import TensorSpec
from memfit.step.usual import Known, usual_loss

N = 6
VALUES = torch.Generator().manual_seed(0)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=VALUES)


def classes(number: int, *shape: int) -> Tensor:
    return torch.randint(number, shape, generator=VALUES)


# -- the words -------------------------------------------------------------------------------------


def test_a_sum_of_weighted_terms_of_named_outputs() -> None:
    loss = parse_loss("cross-entropy@logits + 0.4*cross-entropy@aux")
    assert loss.terms == (
        Term("cross-entropy", "logits"),
        Term("cross-entropy", "aux", 0.4),
    )
    assert str(loss) == "cross-entropy@logits+0.4*cross-entropy@aux"


def test_a_name_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="cross-entropy"):
        parse_loss("cross-entrop")


@pytest.mark.parametrize("text", ["", "mse+", "2**mse", "mse@", "1.2.3*mse"])
def test_what_is_no_sum_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_loss(text)


def test_every_name_that_is_known_is_a_loss() -> None:
    assert tuple(LOSSES) == LOSS_NAMES


# -- values and targets, as PyTorch has them -------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "output", "target", "expected"),
    [
        ("cross-entropy", random(N, 5), classes(5, N), F.cross_entropy),
        ("cross-entropy", random(N, 5, 3, 4), classes(5, N, 3, 4), F.cross_entropy),
        ("bce", random(N, 1, 3, 4), random(N, 1, 3, 4).sigmoid(), None),
        ("mse", random(N, 1), random(N, 1), F.mse_loss),
        ("l1", random(N, 2), random(N, 2), F.l1_loss),
        ("smooth-l1", random(N, 4), random(N, 4), F.smooth_l1_loss),
    ],
)
def test_a_loss_and_its_target_are_those_of_pytorch(
    text: str, output: Tensor, target: Tensor, expected: Any
) -> None:
    loss = parse_loss(text)
    (spec,) = loss.targets_of(output, N, torch.float32)
    assert spec == TensorSpec(tuple(target.shape[1:]), target.dtype)
    expected = expected or F.binary_cross_entropy_with_logits
    assert torch.equal(loss(output, target), expected(output, target))


def test_token_cross_entropy_has_its_classes_last() -> None:
    output, target = random(N, 7, 5), classes(5, N, 7)
    loss = parse_loss("token-cross-entropy")
    assert loss.targets_of(output, N, torch.float32) == (TensorSpec((7,), torch.int64),)
    assert torch.equal(loss(output, target), F.cross_entropy(output.mT, target))


def test_a_batch_that_is_not_first_stays_where_it_is() -> None:
    output = random(20, N, 5)
    (spec,) = parse_loss("token-cross-entropy").targets_of(output, N, torch.float32)
    assert spec.whole(N) == (20, N)


def test_dice_of_a_right_answer_is_almost_nothing_and_of_a_wrong_one_almost_one() -> None:
    truth = classes(2, N, 8, 8)
    sure = 50 * F.one_hot(truth, 2).movedim(-1, 1).float()
    dice = parse_loss("dice")
    assert dice(sure, truth).item() == pytest.approx(0, abs=1e-6)
    assert dice(sure.flip(1), truth).item() == pytest.approx(1, abs=0.01)
    mask = truth[:, None].float()
    assert dice(100 * (mask - 0.5), mask).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "channels", "dtype", "shape"),
    [
        ("dice", 4, torch.int64, (8, 8)),
        ("dice", 1, torch.float32, (1, 8, 8)),
        ("dice+cross-entropy", 4, torch.int64, (8, 8)),
        ("dice+bce", 4, torch.float32, (4, 8, 8)),
    ],
)
def test_dice_shares_the_target_of_the_term_beside_it(
    text: str, channels: int, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    output = random(N, channels, 8, 8)
    assert parse_loss(text).targets_of(output, N, torch.float32) == (TensorSpec(shape, dtype),)


def test_terms_of_different_targets_get_their_own() -> None:
    output = {"cls": random(N, 5), "box": random(N, 4)}
    loss = parse_loss("cross-entropy@cls+0.5*mse@box")
    labels, boxes = classes(5, N), random(N, 4)
    assert loss.targets_of(output, N, torch.float32) == (
        TensorSpec((), torch.int64), TensorSpec((4,), torch.float32),
    )  # fmt: skip
    expected = F.cross_entropy(output["cls"], labels) + 0.5 * F.mse_loss(output["box"], boxes)
    assert torch.equal(loss(output, (labels, boxes)), expected)


def test_heads_of_as_many_classes_share_their_labels_and_others_do_not() -> None:
    alike = (random(N, 5), random(N, 5))
    other = (random(N, 3), random(N, 7))
    labels = TensorSpec((), torch.int64)
    two = parse_loss("cross-entropy@0+cross-entropy@1")
    assert two.targets_of(alike, N, torch.float32) == (labels,)
    assert two.targets_of(other, N, torch.float32) == (labels, labels)
    first, second = classes(3, N), classes(7, N)
    expected = F.cross_entropy(other[0], first) + F.cross_entropy(other[1], second)
    assert torch.equal(two(other, (first, second)), expected)
    embedded = (random(N, 5), random(N, 32))
    joint = parse_loss("cross-entropy@0+0.5*triplet@1")
    assert joint.targets_of(embedded, N, torch.float32) == (labels,)


def test_each_output_is_compared_with_the_one_target() -> None:
    outputs = [random(N, 1, 4, 4) for _ in range(3)]
    target = random(N, 1, 4, 4).sigmoid()
    loss = parse_loss("bce@each")
    assert len(loss.targets_of(outputs, N, torch.float32)) == 1
    expected = sum(F.binary_cross_entropy_with_logits(o, target) for o in outputs)
    assert loss(outputs, target).item() == pytest.approx(float(expected))


def test_ctc_is_pytorchs_with_full_lengths() -> None:
    scores, target = random(12, N, 5), classes(4, N, 3) + 1
    lengths = (torch.full((N,), 12), torch.full((N,), 3))
    expected = F.ctc_loss(scores.log_softmax(-1), target, *lengths)
    assert torch.equal(parse_loss("ctc")(scores, target), expected)


def test_triplet_is_of_three_or_the_hardest_of_one() -> None:
    three = tuple(random(N, 3) for _ in range(3))
    assert torch.equal(parse_loss("triplet")(three, None), F.triplet_margin_loss(*three))
    # two classes on a line, at 0 and 1 and at 10 and 12
    line, labels = torch.tensor([[0.0], [1.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1])
    # furthest of the same class less nearest of another, plus one: all below nothing
    assert parse_loss("triplet")(line, labels).item() == 0
    mixed = torch.tensor([0, 1, 0, 1])
    # 10-1+1, 11-1+1, 10-2+1, 11-2+1
    assert parse_loss("triplet")(line, mixed).item() == pytest.approx((10 + 11 + 9 + 10) / 4)


def test_contrastive_is_symmetric_and_least_when_pairs_agree() -> None:
    first, second = random(N, 3), random(N, 3)
    loss = parse_loss("contrastive")
    assert loss((first, second), None).item() == pytest.approx(loss((second, first), None).item())
    assert loss((first, first), None) < loss((first, second), None)
    assert loss.targets_of((first, second), N, torch.float32) == ()


def test_an_output_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(StepError, match=r"no .aux.") as error:
        parse_loss("cross-entropy@aux")({"out": random(N, 2)}, classes(2, N))
    assert error.value.hint is not None
    assert "out" in error.value.hint


# -- what is meant where nothing is said -----------------------------------------------------------


def meant(output: Any, **known: Any) -> str:
    return str(usual_loss(output, N, Known(**known)))


def test_scores_of_classes_are_trained_with_cross_entropy() -> None:
    assert meant(random(N, 5)) == "cross-entropy"
    assert meant((random(N, 5), random(N, 500))) == "cross-entropy"
    assert meant(random(N, 4, 8, 8), classes=4) == "cross-entropy"
    tokens = TensorSpec((20,), torch.int64)
    assert meant(random(N, 20, 16), inputs=(tokens,)) == "token-cross-entropy"
    assert meant(random(N, 20, 16), classes=16) == "token-cross-entropy"


def test_a_model_that_returns_its_loss_is_trained_with_it() -> None:
    assert meant(random(1).sum()) == "none"
    assert meant({"loss": random(1).sum(), "logits": random(N, 5)}) == "none@loss"
    assert meant((random(N, 5), random(1).sum()), gets_target=True) == "none@1"
    detector = {"loss_classes": random(1).sum(), "loss_boxes": random(1).sum()}
    assert meant(detector) == "none@loss_classes+none@loss_boxes"


@pytest.mark.parametrize(
    ("output", "known", "answers"),
    [
        (random(N), {}, {"mse", "bce"}),
        (random(N, 1), {}, {"mse", "bce"}),
        (  # a penalty, or a temperature, of a model that never sees its target
            (random(N, 5), random(1).sum()),
            {},
            {"cross-entropy@0", "none@1"},
        ),
        (
            (random(N, 8), random(N, 8), random(1).sum()),
            {},
            {"contrastive", "cross-entropy@0", "cross-entropy@1", "none@2"},
        ),
        (
            [random(N, 4, 8, 8), random(N, 4, 4, 4)],
            {},
            {"cross-entropy", "bce", "mse", "cross-entropy@each"},
        ),
        (
            {"age": random(N, 1), "tokens": random(N, 10, 92)},
            {},
            {"mse@age", "token-cross-entropy@tokens"},
        ),
        ((random(N, 5).argmax(1), random(N, 5)), {}, {"cross-entropy@1"}),
        (random(N, 1, 8, 8), {}, {"bce", "mse", "dice+bce"}),
        (random(N, 4, 8, 8), {}, {"cross-entropy", "bce", "mse"}),
        (random(N, 20, 16), {}, {"token-cross-entropy", "cross-entropy", "mse"}),
        (random(20, N, 16), {}, {"token-cross-entropy", "ctc", "mse"}),
        (
            random(N, 3, 8, 8),
            {"inputs": (TensorSpec((3, 8, 8), torch.float32),)},
            {"mse", "bce", "cross-entropy"},
        ),
        (
            [random(N, 1, 4, 4), random(N, 1, 4, 4)],
            {},
            {"cross-entropy@each", "cross-entropy@0", "bce@each"},
        ),
        (
            (random(N, 8), random(N, 8)),
            {},
            {"cross-entropy@each", "cross-entropy@0", "contrastive"},
        ),
        (
            {"cls": random(N, 5), "box": random(N, 4)},
            {},
            {"cross-entropy@cls", "cross-entropy@box"},
        ),
    ],
)
def test_an_output_that_does_not_decide_is_asked_about(
    output: Any, known: dict[str, Any], answers: set[str]
) -> None:
    with pytest.raises(AmbiguousOutput) as error:
        meant(output, **known)
    assert {loss for loss, _ in error.value.answers} == answers
    for loss, _ in error.value.answers:
        parse_loss(loss)


@dataclass(slots=True)
class Detected:
    scores: Tensor
    boxes: Tensor


def test_the_tensors_of_a_dataclass_with_slots_have_its_names() -> None:
    loss = parse_loss("cross-entropy@scores+l1@boxes")
    targets = loss.targets_of(Detected(random(N, 5), random(N, 4)), N, torch.float32)
    assert [(target.shape, target.dtype) for target in targets] == [
        ((), torch.int64),
        ((4,), torch.float32),
    ]


@pytest.mark.parametrize(
    ("loss", "output", "target", "words"),
    [
        ("mse", random(N, 1), random(N), r"compares \(\d, 1\).* with a target of \(\d,\)"),
        ("cross-entropy", random(N, 5), torch.zeros(N, 1, dtype=torch.int64), "target is"),
        ("token-cross-entropy", random(N, 7, 5), torch.zeros(N, 1, dtype=torch.int64), "target is"),
        ("ctc", random(7, N, 5), None, "How long"),
        ("ctc", random(N, 7, 5), torch.ones(N, 3, dtype=torch.int64), r"\(T, N, classes\)"),
    ],
)
def test_a_target_of_another_shape_is_refused(
    loss: str, output: Tensor, target: Tensor | None, words: str
) -> None:
    """Torch broadcasts some of them to N times N values, and takes others by chance."""
    with pytest.raises(StepError, match=words):
        parse_loss(loss)(output, target)


@pytest.mark.parametrize("loss", ["cross-entropy", "mse", "bce"])
@pytest.mark.parametrize(
    "output", [random(N, 5).argmax(1), random(N, 5) > 0, torch.fft.fft(random(N, 5))]
)
def test_nothing_is_learnt_from_other_than_real_numbers(loss: str, output: Tensor) -> None:
    with pytest.raises(StepError, match="nothing can be learnt"):
        parse_loss(loss).targets_of(output, N, torch.float32)
    with pytest.raises(StepError, match="nothing can be learnt"):
        meant(output)


def test_a_batch_that_is_flattened_into_another_size_is_refused() -> None:
    for loss in ("cross-entropy", "token-cross-entropy", "mse"):
        with pytest.raises(StepError, match="no size of its own"):
            parse_loss(loss).targets_of(random(N * 7, 5), N, torch.float32)
    with pytest.raises(StepError, match="no size of its own"):
        meant(random(N * 7, 5))


def test_an_unused_output_is_named_with_all_its_sizes() -> None:
    loss = parse_loss("cross-entropy@0")
    assert loss.unused((random(N, 5), random(2, N, 8)), N) == ("1 (2, N, 8) float32",)


# -- in a plan -------------------------------------------------------------------------------------


def test_weights_of_classes_in_the_users_loss_go_to_the_device() -> None:
    """They cost three numbers there, and stay where the user has them."""
    own = nn.CrossEntropyLoss(weight=torch.ones(3))
    weighted = memfit.plan(nn.Linear(8, 3), input_shape=(8,), loss=own, batch_size=4, gpu="8GiB")
    assert weighted.at(4).parts["batch"] == 4 * (8 * 4 + 8)
    assert own.weight.device.type == "cpu"


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, 3])
def test_what_is_no_loss_is_refused(loss: Any) -> None:
    with pytest.raises(UsageError, match="compares nothing"):
        memfit.plan(nn.Linear(8, 3), input_shape=(8,), loss=loss, batch_size=4, gpu="8GiB")


def test_a_loss_of_nothing_that_trains_is_refused() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Any:
            return self.head(x).detach()

    with pytest.raises(StepError, match="nothing that trains"):
        memfit.plan(Frozen, input_shape=(8,), batch_size=4, gpu="8GiB")


def test_a_language_model_that_scores_its_last_token_gets_targets_for_all() -> None:
    """As nanoGPT's ``model.py`` does where no targets are given; the loss scores every token."""

    class Last(nn.Module):
        def __init__(self, *, is_short: bool) -> None:
            super().__init__()
            self.table, self.is_short = nn.Embedding(50, 50), is_short

        def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
            if targets is None:
                return self.table(idx[:, [-1]] if self.is_short else idx), None
            scores = self.table(idx)
            return scores, F.cross_entropy(scores.flatten(0, 1), targets.flatten())

    options: dict[str, Any] = {"input_ids": 16, "batch_size": 4, "gpu": "8GiB"}
    short, full = (memfit.plan(Last(is_short=is_short), **options) for is_short in (True, False))
    assert short.at(4).parts == full.at(4).parts
    assert short.at(4).parts["batch"] == 2 * 4 * 16 * 8


def net(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("loss", "own", "model", "shape", "target"),
    [
        ("bce", nn.BCEWithLogitsLoss(), net(nn.Conv2d(3, 1, 3, 1, 1)), (3, 8, 8), "1x8x8"),
        ("mse", nn.MSELoss(), net(nn.Flatten(), nn.Linear(12, 1)), (3, 2, 2), "1"),
        ("l1", nn.L1Loss(), net(nn.Linear(12, 4)), (12,), "4"),
        ("cross-entropy", nn.CrossEntropyLoss(), net(nn.Conv2d(3, 5, 1)), (3, 8, 8), "8x8:int64"),
    ],
)
def test_a_named_loss_costs_what_the_users_own_does(
    loss: str, own: Any, model: nn.Module, shape: tuple[int, ...], target: str
) -> None:
    named = memfit.plan(model, input_shape=shape, loss=loss, batch_size=4, gpu="8GiB")
    written = memfit.plan(
        model, input_shape=shape, loss=own, target=target, batch_size=4, gpu="8GiB"
    )
    assert named.at(4).parts == written.at(4).parts
    assert named.at(4).peak_reserved_bytes == written.at(4).peak_reserved_bytes


def test_a_reconstruction_compares_with_the_input_itself() -> None:
    """16 images of 3 x 64 x 64 in float32, once; another image as target is said."""
    model = net(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1))
    options: dict[str, Any] = {"input_shape": (3, 64, 64), "batch_size": 16, "gpu": "8GiB"}
    again = memfit.plan(model, loss="mse", **options)
    assert again.at(16).parts["batch"] == 16 * 3 * 64 * 64 * 4
    other = memfit.plan(model, loss="mse", target="3x64x64", **options)
    assert other.at(16).parts["batch"] == 2 * 16 * 3 * 64 * 64 * 4
    with pytest.raises(AmbiguousOutput):
        memfit.plan(model, **options)


def test_a_second_output_without_a_loss_costs_nothing_in_it() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.embed = nn.Linear(8, 5), nn.Linear(8, 500)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.head(x), self.embed(x)

    usual = memfit.plan(Both, input_shape=(8,), batch_size=64, gpu="8GiB")
    first = memfit.plan(
        Both, input_shape=(8,), batch_size=64, gpu="8GiB",
        loss=lambda output, target: F.cross_entropy(output[0], target),
    )  # fmt: skip
    assert usual.at(64).parts == first.at(64).parts
    assert "1 (N, 500) float32" in " ".join(usual.assumptions)


def test_half_precision_targets_are_half() -> None:
    model = net(nn.Linear(12, 4))
    plan = memfit.plan(model, input_shape=(12,), loss="mse", precision="bf16", gpu="8GiB")
    assert plan.at(8).parts["batch"] == 8 * (12 + 4) * 2
