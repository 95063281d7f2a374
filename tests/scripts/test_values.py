"""Small operators compute for real behind the stubs, and what was made up is known as such."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memfit.scripts.told.answer import Answer, Decided, Status

RunSample = Callable[..., Answer]

#: The same values on both sides, and a layer whose output nobody computes.
TENSORS = """
import torch
from torch import nn
torch.manual_seed(1)
host = torch.randn(50, 8)
card = host.cuda()
made_up = nn.Linear(8, 8).cuda()(card)
def same(a, b):
    assert a.is_cuda and a.shape == b.shape and a.dtype == b.dtype, (a.shape, b.shape)
    torch.testing.assert_close(a.cpu(), b)
"""


def values_of(run_sample: RunSample, code: str) -> dict[str, Decided]:
    """By line, of code below the tensors."""
    answer = run_sample("train.py", code=f"{TENSORS}{code}")
    assert answer.status is Status.NO_TRAINING, answer.traceback or answer
    before = TENSORS.count("\n")
    lines = {str(number + 1): line for number, line in enumerate(code.splitlines())}
    found = {}
    for value in answer.values:
        file, _, line = value.place.partition(":")
        assert file == "train.py"
        if int(line) > before:
            found[lines[str(int(line) - before)]] = value
    return found


@pytest.mark.parametrize(
    "function",
    [
        "lambda x: x * 2 + 1",
        "lambda x: x.half().softmax(1).float()",
        "lambda x: x.t()[2:5].contiguous()",
        "lambda x: x.clone().clamp_(min=0).cumsum(0).sort(descending=True)[1]",
        "lambda x: torch.cat([x, x[:3]]).view(torch.int32)[::2]",
        "lambda x: x[x > 0.5]",
        "lambda x: x[x.sum(1) > 0, :][:, [1, 3]]",
        "lambda x: torch.masked_select(x, x[:, :1] > 0)",
        "lambda x: (x > 1).nonzero(as_tuple=True)[1]",
        "lambda x: x.round().unique(return_counts=True)[1]",
        "lambda x: x.argmax(1).bincount()",
        "lambda x: x.clone().index_put_((x > 0,), torch.zeros(1, device=x.device))",
        "lambda x: x.repeat_interleave(x.argmax(1), dim=0)",
        "lambda x: torch.arange(6, device=x.device) + torch.full((6,), 2, device=x.device)",
        "lambda x: torch.stack(torch._foreach_add([x, x], 1.0))",
    ],
)
def test_the_gpu_has_the_values_of_the_host(run_sample: RunSample, function: str) -> None:
    """PyTorch's own operators on the host are the oracle, sizes by values included."""
    code = f"""function = {function}
for mode in torch.enable_grad, torch.no_grad, torch.inference_mode:
    with mode():
        same(function(card), function(host))
"""
    values_of(run_sample, code)


def test_composite_operators_of_inference_have_values(run_sample: RunSample) -> None:
    """Autograd takes them apart elsewhere; a count of what was found then is a size."""
    code = """with torch.inference_mode():
    counts = card.round().long().view(-1).unique(return_counts=True)[1].to(torch.int32)
expected = host.round().long().view(-1).unique(return_counts=True)[1]
assert torch.zeros(counts.max(), device="cuda").numel() == expected.max()
assert counts.to(torch.float64).reshape(-1, 1).sum() == expected.sum()
"""
    values_of(run_sample, code)


def test_boxes_that_overlap(run_sample: RunSample) -> None:
    code = """from torchvision.ops import nms
boxes = torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]])
scores = torch.tensor([0.5, 0.9, 0.1])
same(nms(boxes.cuda(), scores.cuda(), 0.5), nms(boxes, scores, 0.5))
"""
    assert values_of(run_sample, code)


def test_what_was_read_is_listed_with_its_origin(run_sample: RunSample) -> None:
    real, made_up = "n = int((card > 0).sum())", "m = made_up.relu().mean().item()"
    size, no_size = "a = card[card > 0]", "b = made_up[made_up > 0]"
    copied = "c = made_up.detach().cpu()"
    by_host = "d = float(c.sum())"
    back = "e = (c * 2).cuda().sum().item()"
    repeated = "for _ in range(5): f = bool(card.any())"
    lines = (real, made_up, size, no_size, copied, by_host, back, repeated, "assert m == 0")
    found = values_of(run_sample, "\n".join(lines) + "\nassert len(b) == 0 < n == len(a)\n")
    facts = {line: (value.what, value.is_made_up) for line, value in found.items()}
    assert facts == {
        real: ("number", False), made_up: ("number", True), size: ("size", False),
        no_size: ("size", True), copied: ("copy", True), by_host: ("number", True),
        back: ("number", True), repeated: ("number", False),
    }  # fmt: skip
    assert found[repeated].count == 5
    assert found[repeated].value == "True"
    assert found[copied].value == "50 x 8"


def test_real_values_over_made_up_ones_are_real(run_sample: RunSample) -> None:
    code = """buffer = made_up.detach().clone()
buffer.copy_(card)
same(buffer, host)
a = buffer.sum().item()
"""
    assert values_of(run_sample, code)["a = buffer.sum().item()"].is_made_up is False


def test_the_hosts_random_numbers_are_its_own(run_sample: RunSample) -> None:
    code = """torch.manual_seed(3); expected = torch.rand(4)
torch.manual_seed(3)
noise = torch.randn(100, device="cuda"), nn.Dropout()(card), torch.randperm(9, device="cuda")
torch.testing.assert_close(torch.rand(4), expected)
assert 0.5 < noise[0].std() < 2 and noise[2].sum() == 36
assert torch.rand(3, generator=torch.Generator("cuda"), device="cuda").min() > 0
"""
    values_of(run_sample, code)


def test_what_is_large_is_zero_and_takes_no_memory(run_sample: RunSample) -> None:
    """Also where a block held other values before; 8 GB of images stay address space."""
    code = """
for _ in range(3):
    small = torch.ones(4_000_000, device="cuda"); del small
    large = torch.empty(5_000_000).fill_(7).cuda()
    assert large.max() == 0
    del large
images = [torch.randn(64, 3, 512, 1024, device="cuda") for _ in range(20)]
assert float(images[0][0, 0].relu_().sum()) == 0
import resource
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 << 20
"""
    found = values_of(run_sample, code)
    assert all(value.is_made_up for line, value in found.items() if "images" in line)


def test_weights_and_what_comes_of_zeros_take_no_memory(run_sample: RunSample) -> None:
    """6 GB of weights, copies, gradients and momentum stay address space; biases have values."""
    code = """
import torch
from torch import nn
model = nn.Sequential(*(nn.Linear(1000, 1000, device="cuda") for _ in range(400)))
copies = [layer.weight.data.clone() for layer in model]
optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
model(torch.rand(8, 1000, device="cuda")).sum().backward()
optimizer.step()
for copy in copies:
    copy.mul_(2)
assert model[0].weight.detach().cpu().sum() == 0 < model[0].bias.detach().std()
"""
    answer = run_sample("train.py", code=code)
    assert answer.status is Status.ENDED, answer.traceback
    assert answer.peak_allocated_bytes > 6e9
    assert answer.memory_bytes < 2 << 30


def test_a_checkpoint_is_no_decision(run_sample: RunSample) -> None:
    code = "torch.save(nn.Linear(4, 4).cuda().state_dict(), 'last.pt')\ntorch.load('last.pt')\n"
    assert not values_of(run_sample, code)


def test_a_gradient_scaler_does_not_skip_steps_by_made_up_gradients(
    run_sample: RunSample,
) -> None:
    code = """
import torch
model = torch.nn.Linear(8, 1).cuda()
optimizer = torch.optim.AdamW(model.parameters())
scaler = torch.amp.GradScaler()
for _ in range(9):
    with torch.autocast("cuda", torch.float16):
        loss = 1 / model(torch.ones(4, 8, device="cuda")).sum() * float("nan")
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert optimizer.state
    optimizer.zero_grad()
"""
    answer = run_sample("train.py", code=code)
    assert answer.status is Status.STOPPED, answer.traceback
    assert len(answer.steps) == 3
