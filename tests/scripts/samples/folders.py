# In the style of trainings on a folder of photographs: crops, DataParallel, a checkpoint an epoch.
import os
import sys

import torch
import torchvision.transforms as T
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18

root = sys.argv[1]
crop = T.Compose([T.RandomResizedCrop(64), T.RandomHorizontalFlip(), T.ToTensor()])
train = ImageFolder(os.path.join(root, "train"), crop)
val = ImageFolder(
    os.path.join(root, "val"), T.Compose([T.Resize(80), T.CenterCrop(64), T.ToTensor()])
)
loader = torch.utils.data.DataLoader(
    train, batch_size=8, shuffle=True, num_workers=4, pin_memory=True
)
val_loader = torch.utils.data.DataLoader(val, batch_size=16, num_workers=4)
model = nn.DataParallel(resnet18(num_classes=len(train.classes))).cuda()
criterion = nn.CrossEntropyLoss().cuda()
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
torch.backends.cudnn.benchmark = True
for epoch in range(90):
    model.train()
    for images, target in loader:
        images, target = images.cuda(non_blocking=True), target.cuda(non_blocking=True)
        loss = criterion(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for images, target in val_loader:
            criterion(model(images.cuda()), target.cuda()).item()
    os.makedirs("checkpoints", exist_ok=True)
    torch.save(model.module.state_dict(), "checkpoints/last.pth")
    os.replace("checkpoints/last.pth", "checkpoints/best.pth")
