"""What a forward is called with: said, shown by an example, matched by name or by order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import memfit
from memfit import Recipe
from memfit.errors import StepError, UnknownName, UsageError
from memfit.step.inputs import example_inputs
from memfit.step.tensors import Arguments, TensorSpec, tensors_in


class ImageAndTable(nn.Module):
    """3 x 16 x 16 images and 8 numbers: 448 and 125 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 16, 3, 2, 1)
        self.head = nn.Linear(16 + 8, 5)

    def forward(self, image: Tensor, meta: Tensor) -> Tensor:
        scores: Tensor = self.head(torch.cat([self.image(image).mean((2, 3)), meta], 1))
        return scores


class OneDict(ImageAndTable):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(batch["image"], batch["meta"])


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 3)

    def forward(self, views: list[Tensor]) -> Tensor:
        return torch.stack([self.layer(view) for view in views]).mean(0)


BATCH_OF_4 = 4 * (3 * 16 * 16 * 4 + 8 * 4 + 8)


def plan(model: Any, **options: Any) -> memfit.Plan:
    return memfit.plan(model, gpu="8GiB", verify=False, **options)


@pytest.mark.parametrize(
    "said",
    [
        ("image=3x16x16", "meta=8"),
        ("meta=8", "image=3x16x16"),
        ("3x16x16", "8"),
        ("3x16x16", "meta=8"),
        {"image": (3, 16, 16), "meta": 8},
        {"image": torch.zeros(2, 3, 16, 16), "meta": torch.zeros(2, 8)},
        [(3, 16, 16), (8,)],
    ],
)
def test_two_inputs_by_name_or_by_order(said: Any) -> None:
    made = plan(ImageAndTable, input=said)
    assert made.parameter_count == 448 + 125
    assert made.at(4).parts["batch"] == BATCH_OF_4


def test_names_that_the_forward_does_not_have_are_one_dict_where_it_takes_one() -> None:
    made = plan(OneDict, input=("image=3x16x16", "meta=8"))
    assert made.at(4).parts["batch"] == BATCH_OF_4


def test_a_name_that_is_repeated_is_a_list() -> None:
    made = plan(Views, input=("views=12", "views=12", "views=12"))
    assert made.at(4).parts["batch"] == 4 * (3 * 12 * 4 + 8)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (("image=3x16x16",), "also takes meta"),
        (("image=3x16x16", "metta=8"), "has no 'metta'"),
    ],
)
def test_inputs_that_do_not_match_are_refused_with_the_names(said: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan(ImageAndTable, input=said)


def test_one_shape_for_a_forward_of_two_says_how_to_give_both() -> None:
    with pytest.raises(UsageError, match=r"takes image, meta") as error:
        plan(ImageAndTable, input_shape=(3, 16, 16))
    assert error.value.hint is not None
    assert "--input image=..." in error.value.hint


@pytest.mark.parametrize("said", ["image=", "3xx4", "a b=3", "3x0", "NxN", "3:int63", "=3", ""])
def test_what_is_no_tensor_is_refused(said: str) -> None:
    with pytest.raises((UsageError, UnknownName)):
        Recipe(model="mlp", input=said)


def test_inputs_survive_a_recipe_file() -> None:
    recipe = Recipe(model="mlp", input={"ids": torch.zeros(2, 64, dtype=torch.int64), "age": ()})
    assert recipe.input == ("ids=64:int64", "age=N")
    assert Recipe(**recipe.to_dict()) == recipe


def test_a_batch_that_is_not_first() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells, self.head = nn.LSTM(8, 16), nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.cells(x)[0])
            return out

    made = plan(Sequence, input="20xNx8", loss="token-cross-entropy")
    assert made.at(4).parts["batch"] == 4 * (20 * 8 * 4 + 20 * 8)


# -- tokens ----------------------------------------------------------------------------------------


class SmallGPT(nn.Module):
    """Called as many write it: the loss is returned where the targets are given."""

    def __init__(self, vocabulary: int = 50, width: int = 16) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.token.weight

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Any]:
        logits = self.head(self.token(idx))
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def test_tokens_are_the_first_argument_and_targets_are_handed_to_the_forward() -> None:
    made = plan(SmallGPT, input_ids=32, batch_size=4)
    assert made.parameter_count == 50 * 16
    assert made.step.batch.size_bytes(4) == 4 * (32 * 8 + 32 * 8)
    assert made.to_dict()["batch"]["targets"] == ["(N, 32) int64"]
    assert "The loss is the one that the model returns." in made.assumptions

    def forward(model: nn.Module, ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits, loss = model(ids, targets)
        return loss, logits

    own = plan(SmallGPT, input_ids=32, batch_size=4, step=forward, target="32:int64")
    assert own.at(4).peak_allocated_bytes == made.at(4).peak_allocated_bytes


def test_a_model_that_wants_labels_and_returns_its_loss() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 5)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(self.layer(x), y)

    made = plan(Own, input=("x=8", "y=N:int64"))
    assert made.at(4).parts["batch"] == 4 * (8 * 4 + 8)


# -- the author's example --------------------------------------------------------------------------

_EXAMPLE = """
import torch
from torch import nn

class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 5)

    def forward(self, x, mask, scale):
        return self.layer(x) * mask[:, None] * scale

def build():
    return Masked()

def example_batch(batch_size):
    return torch.zeros(batch_size, 8), torch.ones(batch_size), torch.ones(1)
"""


def test_an_example_beside_the_builder_says_the_inputs(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(_EXAMPLE)
    made = plan(f"{tmp_path}/net.py:build", batch_size=4)
    assert made.at(4).parts["batch"] == 4 * (8 * 4 + 4 + 8) + 4


def test_an_example_shows_where_the_batch_is() -> None:
    shown = example_inputs(lambda n: {"x": torch.zeros(7, n, 3), "ids": torch.zeros(n, 4).long()})
    assert shown == Arguments(
        (),
        {
            "x": TensorSpec((7, 3), torch.float32, 1),
            "ids": TensorSpec((4,), torch.int64),
        },
    )


@pytest.mark.parametrize(
    "example",
    [lambda n: torch.zeros(n, n), lambda n: torch.zeros(2 * n), lambda n: torch.zeros(n**2)],
)
def test_an_example_that_does_not_show_it_is_refused(example: Any) -> None:
    with pytest.raises(StepError, match="which size is the batch"):
        example_inputs(example)


def test_a_tensor_given_twice_is_counted_once() -> None:
    one = torch.zeros(3)
    assert list(tensors_in((Arguments((one,), {"target": one}), one))) == [one]


class ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 5)

    def forward(self, *, features: Tensor) -> Any:
        return self.head(features)


class ByOrder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 5)

    def forward(self, *tensors: Tensor) -> Any:
        return self.head(sum(tensors))


def test_a_forward_that_takes_names_only_says_how_to_give_them() -> None:
    with pytest.raises(UsageError, match="by name only") as error:
        plan(ByName, input_shape=(8,))
    assert "--input features=" in (error.value.hint or "")
    assert plan(ByName, input="features=8").at(4).parts["batch"] == 4 * (8 * 4 + 8)


def test_a_forward_that_takes_no_names_says_so() -> None:
    with pytest.raises(UsageError) as error:
        plan(ByOrder, input="features=8")
    assert "without names" in (error.value.hint or "")
    assert plan(ByOrder, input=("8", "8")).at(4).parts["batch"] == 4 * (2 * 8 * 4 + 8)


def test_tokens_for_a_forward_that_requires_its_targets_say_how_to_give_both() -> None:
    class Wants(nn.Module):
        def forward(self, idx: Tensor, targets: Tensor) -> None: ...

    with pytest.raises(UsageError, match="takes idx, targets"):
        plan(Wants(), input_ids=16)


def test_a_name_that_a_module_of_torch_does_not_have_is_refused() -> None:
    """A forward of the user's own may take a dict; a Sequential's ``input`` is a tensor."""
    with pytest.raises(UsageError, match="has no 'x'"):
        plan(nn.Sequential(nn.Linear(8, 5)), input="x=8")
