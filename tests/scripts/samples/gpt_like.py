# A small language model in the style of short GPT trainings: settings as globals that the command
# line overrides, an estimate of the loss before the first step, accumulation, autocast.
import sys
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import nn

batch_size = 4
block_size = 32
eval_iters = 5
eval_interval = 100
gradient_accumulation_steps = 2
dtype = "bfloat16"
for word in sys.argv[1:]:
    key, value = word.removeprefix("--").split("=")
    globals()[key] = type(globals()[key])(value)

device = "cuda"
context = torch.autocast(device, getattr(torch, dtype)) if dtype != "float32" else nullcontext()


class GPT(nn.Module):
    def __init__(self, vocabulary=128, width=64):
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.block = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, idx, targets):
        logits = self.head(self.block(self.wte(idx)))
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def get_batch():
    x = torch.randint(128, (batch_size, block_size + 1))
    x = x.pin_memory().to(device, non_blocking=True)
    return x[:, :-1].contiguous(), x[:, 1:].contiguous()


model = GPT().to(device)
raw_model = model
model = torch.compile(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
scaler = torch.amp.GradScaler(device, enabled=dtype == "float16")


@torch.no_grad()
def estimate_loss():
    model.eval()
    losses = torch.zeros(eval_iters)
    for k in range(eval_iters):
        with context:
            losses[k] = model(*get_batch())[1].item()
    model.train()
    return losses.mean()


iteration = 0
while True:
    if iteration % eval_interval == 0:
        print(f"step {iteration}: loss {estimate_loss():.4f}")
        torch.save(
            {"model": raw_model.state_dict(), "optimizer": optimizer.state_dict()}, "ckpt.pt"
        )
    for _ in range(gradient_accumulation_steps):
        with context:
            logits, loss = model(*get_batch())
            loss = loss / gradient_accumulation_steps
        scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    iteration += 1
