"""Models of the suite that no library names: recurrent, small Llama-type, dense prediction.

Each is built by ``models.py:build_...`` without arguments, small enough for any card, and takes
one tensor of a fixed shape.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["build_anchors", "build_llama", "build_lstm", "build_unet"]


class TextLstm(nn.Module):
    """Token numbers ``(N, L)`` to scores ``(N, 4)``: embedding, two LSTM layers, the last state."""

    def __init__(self, vocabulary: int = 20_000, width: int = 512, classes: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, input_ids: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(input_ids))
        return self.head(states[:, -1])


class RmsNorm(nn.Module):
    """Scaled by the root mean square of the last dimension (arXiv 1910.07467)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def rotate(x: Tensor) -> Tensor:
    """Rotary positions (arXiv 2104.09864) of ``(N, heads, L, size)``."""
    length, size = x.shape[-2:]
    half = size // 2
    frequencies = 10_000.0 ** -(torch.arange(half, device=x.device) / half)
    angles = torch.arange(length, device=x.device)[:, None] * frequencies
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class LlamaBlock(nn.Module):
    """Grouped-query attention and a gated feed-forward, each after a norm (arXiv 2302.13971)."""

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.attention_norm, self.feed_norm = RmsNorm(width), RmsNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * groups * self.size, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        hidden = 8 * width // 3 // 64 * 64
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(self.attention_norm(x))
        gate, up = self.gate_up(self.feed_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)

    def _attend(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        query = self.query(x).view(n, length, self.heads, self.size).transpose(1, 2)
        pair = self.key_value(x).view(n, length, 2, self.groups, self.size)
        key, value = pair.permute(2, 0, 3, 1, 4).unbind(0)
        more = self.heads // self.groups
        key, value = rotate(key).repeat_interleave(more, 1), value.repeat_interleave(more, 1)
        mixed = F.scaled_dot_product_attention(rotate(query), key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(n, length, width))


class Llama(nn.Module):
    """Token numbers ``(N, L)`` to ``{"logits": (N, L, vocabulary)}``."""

    def __init__(
        self, vocabulary: int = 32_000, width: int = 512, depth: int = 8, heads: int = 8
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(LlamaBlock(width, heads, heads // 2) for _ in range(depth))
        self.norm = RmsNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        x = self.embedding(input_ids)
        for block in self.blocks:
            x = block(x)
        return {"logits": self.head(self.norm(x))}


def _convolutions(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(True),
        nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(True),
    )  # fmt: skip


class UNet(nn.Module):
    """Images ``(N, 3, H, W)`` to scores of pixels ``(N, 2, H, W)`` (arXiv 1505.04597)."""

    def __init__(self, width: int = 32, depth: int = 4, classes: int = 2) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _convolutions(a, b) for a, b in zip([3, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 2, stride=2)
            for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.join = nn.ModuleList(_convolutions(2 * b, b) for b in widths[-2::-1])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else F.max_pool2d(x, 2))
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = join(torch.cat((skip, up(x)), dim=1))
        return self.head(x)


class Anchors(nn.Module):
    """Images to scores of anchor boxes ``(N, classes, anchors)``: three levels, shared heads.

    The dense part of a one-stage detector (RetinaNet, arXiv 1708.02002): all its shapes are fixed;
    the matching of boxes, whose shapes are not, is left out. Box offsets are four more classes.
    """

    def __init__(self, width: int = 128, classes: int = 20, anchors: int = 9) -> None:
        super().__init__()
        from torchvision.models import resnet18

        body = resnet18(weights=None)
        self.stem = nn.Sequential(body.conv1, body.bn1, body.relu, body.maxpool, body.layer1)
        self.levels = nn.ModuleList([body.layer2, body.layer3, body.layer4])
        self.lateral = nn.ModuleList(nn.Conv2d(n, width, 1) for n in (128, 256, 512))
        self.head = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(), nn.Conv2d(width, anchors * (classes + 4), 3, padding=1),
        )  # fmt: skip
        self.outputs = classes + 4

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        found, above = [], None
        for lateral, x in zip(reversed(self.lateral), reversed(maps), strict=True):
            side = lateral(x)
            above = side if above is None else side + F.interpolate(above, scale_factor=2.0)
            scores = self.head(above)
            found.append(scores.unflatten(1, (self.outputs, -1)).flatten(2))
        return torch.cat(found, dim=2)


def build_lstm() -> nn.Module:
    """A text classifier of 14 million parameters."""
    return TextLstm()


def build_llama() -> nn.Module:
    """A decoder of 57 million parameters."""
    return Llama()


def build_unet() -> nn.Module:
    """A segmenter of 8 million parameters."""
    return UNet()


def build_anchors() -> nn.Module:
    """The dense part of a detector of 12 million parameters."""
    return Anchors()
