# In the style of the first variational autoencoder one writes: digits, a sampled code, a picture
# of samples after every epoch.
import argparse

import torch
import torch.nn.functional as F
from torch import nn, optim
from torchvision import datasets, transforms
from torchvision.utils import save_image

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=128)
parser.add_argument("--epochs", type=int, default=10)
args = parser.parse_args()
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
loader = torch.utils.data.DataLoader(
    datasets.MNIST("data", train=True, download=True, transform=transforms.ToTensor()),
    batch_size=args.batch_size,
    shuffle=True,
    num_workers=1,
    pin_memory=True,
)


class VAE(nn.Module):
    def __init__(self, code=20):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU())
        self.mean, self.logvar = nn.Linear(400, code), nn.Linear(400, code)
        self.decoder = nn.Sequential(
            nn.Linear(code, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid()
        )

    def forward(self, x):
        hidden = self.encoder(x.view(-1, 784))
        mean, logvar = self.mean(hidden), self.logvar(hidden)
        code = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
        return self.decoder(code), mean, logvar


model = VAE().to(device)
optimizer = optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(1, args.epochs + 1):
    model.train()
    total = 0.0
    for batch_idx, (data, _) in enumerate(loader):
        data = data.to(device)
        optimizer.zero_grad()
        guess, mean, logvar = model(data)
        likeness = F.binary_cross_entropy(guess, data.view(-1, 784), reduction="sum")
        divergence = -0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())
        loss = likeness + divergence
        loss.backward()
        total += loss.item()
        optimizer.step()
        if batch_idx % 100 == 0:
            print(f"epoch {epoch} {batch_idx}: {loss.item() / len(data):.4f}")
    with torch.no_grad():
        sample = model.decoder(torch.randn(64, 20, device=device)).cpu()
        save_image(sample.view(64, 1, 28, 28), f"sample_{epoch}.png")
