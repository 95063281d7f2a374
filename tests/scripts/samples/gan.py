# Two networks, two optimizers, a fixed noise to draw from, images written after the epoch.
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

device = "cuda"
generator = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 784), nn.Tanh()).to(device)
critic = nn.Sequential(nn.Linear(784, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)).to(device)
first = torch.optim.Adam(critic.parameters(), lr=2e-4, betas=(0.5, 0.999))
second = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
loss = nn.BCEWithLogitsLoss()
loader = DataLoader(TensorDataset(torch.rand(4096, 784)), batch_size=32, num_workers=4)
for epoch in range(5):
    for (real,) in loader:
        real = real.to(device)
        ones, zeros = torch.ones(len(real), 1, device=device), torch.zeros(len(real), 1).to(device)
        critic.zero_grad()
        loss(critic(real), ones).backward()
        fake = generator(torch.randn(len(real), 16, device=device))
        loss(critic(fake.detach()), zeros).backward()
        first.step()
        generator.zero_grad()
        cost = loss(critic(fake), ones)
        cost.backward()
        second.step()
    with torch.no_grad():
        torch.save(generator(torch.randn(8, 16, device=device)).cpu(), f"fake_{epoch}.pt")
