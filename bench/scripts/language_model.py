# In the style of word language models: one long text in columns, a Transformer encoder with a
# causal mask, perplexity on held-out text, the best model kept and read back.
import argparse
import math

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--batch_size", type=int, default=20)
parser.add_argument("--bptt", type=int, default=35)
parser.add_argument("--lr", type=float, default=5.0)
parser.add_argument("--epochs", type=int, default=40)
args = parser.parse_args()
device = torch.device("cuda")
WORDS, WIDTH = 33278, 200


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 200, dropout=0.2)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.decoder = nn.Linear(WIDTH, WORDS)
        position = torch.arange(5000).unsqueeze(1)
        rate = torch.exp(torch.arange(0, WIDTH, 2) * (-math.log(10000.0) / WIDTH))
        table = torch.zeros(5000, 1, WIDTH)
        table[:, 0, 0::2] = torch.sin(position * rate)
        table[:, 0, 1::2] = torch.cos(position * rate)
        self.register_buffer("table", table)

    def forward(self, tokens):
        mask = torch.log(torch.tril(torch.ones(len(tokens), len(tokens)))).to(tokens.device)
        x = self.embedding(tokens) * math.sqrt(WIDTH) + self.table[: len(tokens)]
        return torch.log_softmax(self.decoder(self.encoder(x, mask=mask)), dim=-1)


def batchify(words, columns):
    rows = len(words) // columns
    return words[: rows * columns].view(columns, rows).t().contiguous().to(device)


def get_batch(source, i):
    length = min(args.bptt, len(source) - 1 - i)
    return source[i : i + length], source[i + 1 : i + 1 + length].view(-1)


def evaluate(source):
    model.eval()
    total = 0.0
    with torch.no_grad():
        for i in range(0, len(source) - 1, args.bptt):
            data, targets = get_batch(source, i)
            output = model(data).view(-1, WORDS)
            total += len(data) * criterion(output, targets).item()
    return total / (len(source) - 1)


train_data = batchify(torch.randint(WORDS, (2_000_000,)), args.batch_size)
val_data = batchify(torch.randint(WORDS, (20_000,)), 10)
model = LanguageModel().to(device)
criterion = nn.NLLLoss()
lr, best = args.lr, None
for epoch in range(1, args.epochs + 1):
    model.train()
    for batch, i in enumerate(range(0, len(train_data) - 1, args.bptt)):
        data, targets = get_batch(train_data, i)
        model.zero_grad()
        loss = criterion(model(data).view(-1, WORDS), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        for p in model.parameters():
            p.data.add_(p.grad, alpha=-lr)
        if batch % 200 == 0:
            print(f"epoch {epoch} {batch}: ppl {math.exp(min(loss.item(), 20)):.2f}")
    loss = evaluate(val_data)
    if best is None or loss < best:
        torch.save(model.state_dict(), "model.pt")
        best = loss
    else:
        lr /= 4.0
