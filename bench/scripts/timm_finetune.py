# timm: a Vision Transformer with its optimizer, schedule, mixup and a moving average of weights.
import argparse

import timm
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import FakeData

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="vit_small_patch16_224")
parser.add_argument("-b", "--batch-size", type=int, default=16)
parser.add_argument("--epochs", type=int, default=10)
args = parser.parse_args()

model = timm.create_model(args.model, num_classes=100, drop_path_rate=0.1).cuda()
ema = ModelEmaV3(model, decay=0.9998)
optimizer = create_optimizer_v2(model, opt="adamw", lr=5e-4, weight_decay=0.05)
scheduler = CosineLRScheduler(optimizer, t_initial=args.epochs, warmup_t=1)
mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=100)
criterion = SoftTargetCrossEntropy()
scaler = torch.amp.GradScaler("cuda")
data = FakeData(50_000, (3, 224, 224), 100, transforms.ToTensor())
loader = DataLoader(data, args.batch_size, shuffle=True, num_workers=4, drop_last=True)

for epoch in range(args.epochs):
    model.train()
    for step, (images, target) in enumerate(loader):
        images, target = mixup(images.cuda(non_blocking=True), target.cuda(non_blocking=True))
        with torch.autocast("cuda"):
            loss = criterion(model(images), target)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        ema.update(model, step=step)
    scheduler.step(epoch + 1)
    torch.save({"model": model.state_dict(), "ema": ema.module.state_dict()}, "last.pth")
