"""Training loops as people write them; as a program, one of them on PyTorch's own CUDA.

``python -O usual_loops.py NAME`` prints ``torch.cuda.max_memory_allocated()`` after the loop;
without assertions, as nothing is computed on a card that is not there.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))


def batch(size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 1, 28, 28), torch.randint(10, (size,))


def course() -> None:
    """Running loss, accuracy, a device that is asked for."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = mlp().to(device)
    optimizer = torch.optim.Adam(model.parameters())
    running, right = 0.0, 0
    for step in range(3):
        images, labels = batch()
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        output = model(images)
        loss = F.cross_entropy(output, labels)
        loss.backward()
        optimizer.step()
        running += loss.item()
        right += int((output.argmax(1) == labels).sum().item())
        print(f"{step}: {loss:.3f} {running / (step + 1):.3f} {right}")


def watched() -> None:
    """Values are looked at in every way there is."""
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    model = mlp().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses, best = [], math.inf
    for _ in range(3):
        images, labels = (tensor.cuda(non_blocking=True) for tensor in batch())
        output = model(images)
        loss = F.cross_entropy(output, labels)
        is_number = torch.isfinite(loss).all() and not torch.isnan(loss)
        assert is_number
        assert images.is_cuda
        assert images.device.type == "cuda"
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach().cpu().numpy())
        predicted = output.argmax(dim=1).cpu().numpy()
        assert predicted.shape == (64,)
        assert len(labels.tolist()) == 64
        best = min(best, float(norm))
        _, top = output.topk(5)
        top.eq(labels.view(-1, 1)).reshape(-1).float().sum(0).mul_(100.0 / 64).item()
        torch.cuda.synchronize()
    torch.cuda.empty_cache()


def scaled() -> None:
    """Automatic mixed precision with a scaler that is asked for its scale."""
    model = mlp().cuda()
    optimizer = torch.optim.AdamW(model.parameters())
    scaler = torch.amp.GradScaler("cuda")
    for _ in range(3):
        images, labels = (tensor.cuda() for tensor in batch())
        with torch.autocast("cuda"):
            loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert scaler.get_scale() == 65536.0
    assert optimizer.state


def moved_late() -> None:
    """The model is moved when the optimizer exists."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    model.cuda()
    for _ in range(3):
        images, labels = (tensor.to("cuda:0") for tensor in batch())
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert len(optimizer.state) == 4


def saved() -> None:
    """Checkpoints to the CPU, to a file and back."""
    model = mlp().cuda()
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(3):
        images, labels = (tensor.cuda() for tensor in batch())
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        kept = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    assert all(tensor.device.type == "cpu" for tensor in kept.values())
    model.load_state_dict(kept)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.pt"
        torch.save({"model": kept, "optimizer": optimizer.state_dict()}, path)
        loaded = torch.load(path, map_location="cuda")
    model.load_state_dict(loaded["model"])


def by_hand() -> None:
    """No optimizer of torch.optim."""
    model = mlp().cuda()
    for _ in range(3):
        images, labels = (tensor.cuda() for tensor in batch())
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.sub_(0.1 * parameter.grad)
                parameter.grad = None


def without_modules() -> None:
    """Tensors, a loss and a rule."""
    x, y = torch.randn(256, 128, device="cuda"), torch.randn(256, 8, device="cuda")
    w = torch.randn(128, 8, device="cuda", requires_grad=True)
    for _ in range(3):
        loss = (x @ w - y).pow(2).mean()
        loss.backward()
        assert w.grad is not None
        with torch.no_grad():
            w -= 0.1 * w.grad
            w.grad.zero_()


def evaluated() -> None:
    """Training and evaluation take turns, with loaders."""
    images, labels = batch(256)
    data = TensorDataset(images, labels)
    train = DataLoader(data, 64, shuffle=True, pin_memory=True)
    check = DataLoader(data, 128)
    model = mlp().cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        model.train()
        for images, labels in train:
            x, y = images.cuda(non_blocking=True), labels.cuda(non_blocking=True)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        model.eval()
        right = torch.zeros(1, device="cuda")
        with torch.inference_mode():
            for x, y in check:
                output = model(x.cuda())
                right += (output.argmax(1) == y.cuda()).sum()
                F.cross_entropy(output, y.cuda()).item()
        assert 0 <= right.item() <= 256


def measured() -> None:
    """Streams, events, generators, memory statistics."""
    model = mlp().cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator(device="cuda").manual_seed(0)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.manual_seed_all(0)
    with torch.cuda.device(0), torch.cuda.stream(torch.cuda.current_stream()):
        for _ in range(3):
            start.record()
            x = torch.randn(64, 784, device="cuda", generator=generator)
            optimizer.zero_grad()
            model(x).logsumexp(1).mean().backward()
            optimizer.step()
            end.record()
            torch.cuda.synchronize()
            assert start.elapsed_time(end) >= 0
            assert torch.cuda.memory_allocated() <= torch.cuda.max_memory_allocated()
    free, total = torch.cuda.mem_get_info()
    assert 0 < free < total
    assert torch.cuda.memory_stats()["allocated_bytes.all.peak"] > 0


def lengths() -> None:
    """Sizes that small values decide: lengths, masks, positions."""
    embed, head = nn.Embedding(100, 32).cuda(), nn.Linear(32, 100).cuda()
    parameters = [*embed.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters)
    for _ in range(3):
        length = torch.tensor([7, 30, 12, 5], device="cuda")
        most = int(length.max().item())
        positions = torch.arange(most, device=length.device)
        mask = positions[None] < length[:, None]
        tokens = torch.randint(100, (4, most)).cuda()
        logits = head(embed(tokens[mask]))
        assert logits.shape == (54, 100)
        loss = F.cross_entropy(logits, tokens[mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert mask.nonzero().shape == (54, 2)


def quasi_newton() -> None:
    """LBFGS and its closure."""
    model = mlp().cuda()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    images, labels = (tensor.cuda() for tensor in batch())

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)


def parallel() -> None:
    """DataParallel on all of one GPU; autocast and checkpointing as written for CUDA."""
    model = nn.DataParallel(mlp()).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        images, labels = batch()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(images), labels.cuda())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


LOOPS: dict[str, Callable[[], None]] = {
    loop.__name__: loop
    for loop in (
        course, watched, scaled, moved_late, saved, by_hand, without_modules, evaluated, measured,
        lengths, quasi_newton, parallel,
    )
}  # fmt: skip


if __name__ == "__main__":
    LOOPS[sys.argv[1]]()
    print(torch.cuda.max_memory_allocated())
    sys.stdout.flush()
    os._exit(0)
