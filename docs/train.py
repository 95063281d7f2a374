"""A training script as people write them: ``memfit run --gpu rtx-3060 docs/train.py`` takes it."""

import argparse

import torch
import torchvision
from torch.utils.data import DataLoader
from torchvision.datasets import FakeData
from torchvision.transforms import ToTensor

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=64)
options = parser.parse_args()

data = FakeData(10_000, (3, 224, 224), 10, ToTensor())
loader = DataLoader(data, batch_size=options.batch_size, shuffle=True, num_workers=2)
device = "cuda" if torch.cuda.is_available() else "cpu"
model = torchvision.models.resnet18(num_classes=10).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for epoch in range(10):
    for images, labels in loader:
        scores = model(images.to(device))
        loss = torch.nn.functional.cross_entropy(scores, labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch}: loss {loss.item():.3f}")
    torch.save(model.state_dict(), "resnet18.pt")
