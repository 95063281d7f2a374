# In the style of the digits example everyone begins with: argparse, two loaders, a checkpoint.
import argparse

import torch
import torch.nn.functional as F
from torch import nn, optim
from torchvision import datasets, transforms


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3)
        self.fc = nn.Linear(16 * 13 * 13, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return F.log_softmax(self.fc(torch.flatten(x, 1)), dim=1)


def train(model, device, loader, optimizer, epoch):
    model.train()
    for batch_idx, (data, target) in enumerate(loader):
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        if batch_idx % 10 == 0:
            print(f"epoch {epoch} [{batch_idx}/{len(loader)}] loss {loss.item():.4f}")


def test(model, device, loader):
    model.eval()
    correct = 0
    with torch.no_grad():
        for data, target in loader:
            data, target = data.to(device), target.to(device)
            output = model(data)
            correct += output.argmax(dim=1).eq(target).sum().item()
    print(f"accuracy {correct / len(loader.dataset):.1%}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--test-batch-size", type=int, default=500)
    parser.add_argument("--save-model", action="store_true")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    workers = {"num_workers": 2, "pin_memory": True, "persistent_workers": True}
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.13, 0.31)])
    data = datasets.MNIST("../data", train=True, download=True, transform=transform)
    held_out = datasets.MNIST("../data", train=False, transform=transform)
    loader = torch.utils.data.DataLoader(data, args.batch_size, True, **workers)
    test_loader = torch.utils.data.DataLoader(held_out, batch_size=args.test_batch_size, **workers)
    model = Net().to(device)
    optimizer = optim.Adadelta(model.parameters(), lr=1.0)
    for epoch in range(1, 15):
        train(model, device, loader, optimizer, epoch)
        test(model, device, test_loader)
        if args.save_model:
            torch.save(model.state_dict(), "mnist_cnn.pt")
            model.load_state_dict(torch.load("mnist_cnn.pt"))


if __name__ == "__main__":
    main()
