# In the style of ImageNet trainings with made-up pictures: a ResNet-50, meters, top-5 accuracy.
import argparse
import time

import torch
from torch import nn
from torchvision import datasets, models, transforms

parser = argparse.ArgumentParser()
parser.add_argument("-a", "--arch", default="resnet50")
parser.add_argument("-b", "--batch-size", default=256, type=int)
parser.add_argument("-j", "--workers", default=4, type=int)
parser.add_argument("--epochs", default=90, type=int)


class AverageMeter:
    def __init__(self):
        self.sum, self.count = 0.0, 0

    def update(self, value, n=1):
        self.sum += value * n
        self.count += n

    @property
    def average(self):
        return self.sum / max(self.count, 1)


def accuracy(output, target, topk=(1, 5)):
    with torch.no_grad():
        _, guess = output.topk(max(topk), 1, True, True)
        correct = guess.t().eq(target.view(1, -1).expand_as(guess.t()))
        return [correct[:k].reshape(-1).float().sum(0) * (100.0 / len(target)) for k in topk]


def train(loader, model, criterion, optimizer, epoch):
    losses, top1, clock = AverageMeter(), AverageMeter(), time.time()
    model.train()
    for i, (images, target) in enumerate(loader):
        images, target = images.cuda(non_blocking=True), target.cuda(non_blocking=True)
        output = model(images)
        loss = criterion(output, target)
        acc1, _ = accuracy(output, target)
        losses.update(loss.item(), len(images))
        top1.update(acc1.item(), len(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if i % 10 == 0:
            print(f"{epoch} {i} {losses.average:.3f} {top1.average:.2f} {time.time() - clock:.1f}s")


def validate(loader, model):
    top1 = AverageMeter()
    model.eval()
    with torch.no_grad():
        for images, target in loader:
            acc1, _ = accuracy(model(images.cuda()), target.cuda())
            top1.update(acc1.item(), len(images))
    return top1.average


def main():
    args = parser.parse_args()
    model = models.get_model(args.arch).cuda()
    criterion = nn.CrossEntropyLoss().cuda()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=30, gamma=0.1)
    made_up = [
        datasets.FakeData(size, (3, 224, 224), 1000, transforms.ToTensor())
        for size in (1281167, 1000)
    ]
    options = {"batch_size": args.batch_size, "num_workers": args.workers, "pin_memory": True}
    train_loader = torch.utils.data.DataLoader(made_up[0], shuffle=True, **options)
    val_loader = torch.utils.data.DataLoader(made_up[1], **options)
    for epoch in range(args.epochs):
        train(train_loader, model, criterion, optimizer, epoch)
        acc1 = validate(val_loader, model)
        scheduler.step()
        state = {"epoch": epoch, "state_dict": model.state_dict(), "acc1": acc1}
        torch.save(state | {"optimizer": optimizer.state_dict()}, "checkpoint.pth.tar")


if __name__ == "__main__":
    main()
