# In the style of short diffusion trainings: noise is added and a U-Net with attention guesses it,
# an average of the weights draws samples after each epoch.
import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.utils import save_image

batch_size, image_size, steps, device = 32, 32, 1000, "cuda"


class Residual(nn.Module):
    def __init__(self, inside, outside, time=256):
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(8, inside), nn.SiLU(), nn.Conv2d(inside, outside, 3, padding=1)
        )
        self.time = nn.Linear(time, outside)
        self.second = nn.Sequential(
            nn.GroupNorm(8, outside), nn.SiLU(), nn.Conv2d(outside, outside, 3, padding=1)
        )
        self.skip = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x, t):
        h = self.first(x) + self.time(t)[:, :, None, None]
        return self.second(h) + self.skip(x)


class Attention(nn.Module):
    def __init__(self, width, heads=4):
        super().__init__()
        self.norm, self.heads = nn.GroupNorm(8, width), heads
        self.qkv, self.out = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = (
            part.reshape(b, self.heads, c // self.heads, h * w).transpose(2, 3)
            for part in self.qkv(self.norm(x)).chunk(3, dim=1)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(b, c, h, w)
        return x + self.out(y)


class UNet(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, 256), nn.SiLU(), nn.Linear(256, 256))
        self.into = nn.Conv2d(3, width, 3, padding=1)
        self.down1, self.down2 = Residual(width, width), Residual(width, 2 * width)
        self.middle, self.attention = Residual(2 * width, 2 * width), Attention(2 * width)
        self.up2, self.up1 = Residual(4 * width, width), Residual(2 * width, width)
        self.out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x, t):
        t = self.time(t[:, None].float() / steps)
        a = self.down1(self.into(x), t)
        b = self.down2(F.avg_pool2d(a, 2), t)
        h = self.attention(self.middle(F.avg_pool2d(b, 2), t))
        h = self.up2(torch.cat([F.interpolate(h, scale_factor=2), b], 1), t)
        return self.out(self.up1(torch.cat([F.interpolate(h, scale_factor=2), a], 1), t))


beta = torch.linspace(1e-4, 0.02, steps, device=device)
alpha_bar = (1 - beta).cumprod(0)
model = UNet().to(device)
ema = copy.deepcopy(model).requires_grad_(False)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
data = TensorDataset(torch.rand(2_000, 3, image_size, image_size) * 2 - 1)
loader = DataLoader(data, batch_size=batch_size, shuffle=True, drop_last=True)

for epoch in range(100):
    model.train()
    for (x,) in loader:
        x = x.to(device)
        t = torch.randint(0, steps, (len(x),), device=device)
        noise = torch.randn_like(x)
        level = alpha_bar[t][:, None, None, None]
        with torch.autocast("cuda", dtype=torch.bfloat16):
            guess = model(level.sqrt() * x + (1 - level).sqrt() * noise, t)
            loss = F.mse_loss(guess, noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for average, now in zip(ema.parameters(), model.parameters()):
                average.lerp_(now, 0.005)
    with torch.no_grad():
        x = torch.randn(16, 3, image_size, image_size, device=device)
        for t in reversed(range(0, steps, 100)):
            guess = ema(x, torch.full((16,), t, device=device))
            x = (x - beta[t] / (1 - alpha_bar[t]).sqrt() * guess) / (1 - beta[t]).sqrt()
        save_image(x.clamp(-1, 1) / 2 + 0.5, f"sample_{epoch}.png")
