# In the style of reference trainings with --amp: label smoothing, weight decay by kind of
# parameter, gradient scaling, warm-up, an averaged model, evaluation of both.
import argparse
import datetime
import time

import torch
import torchvision
from torch import nn
from torchvision.transforms import v2


def get_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="efficientnet_b0")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("-b", "--batch-size", default=32, type=int)
    parser.add_argument("--epochs", default=90, type=int)
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--model-ema", action="store_true")
    parser.add_argument("--clip-grad-norm", default=1.0, type=float)
    return parser.parse_args()


def parameter_groups(model):
    norms = (nn.BatchNorm2d, nn.LayerNorm)
    plain, without_decay = [], []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_free = isinstance(module, norms) or name == "bias"
            (without_decay if is_free else plain).append(parameter)
    return [
        {"params": plain, "weight_decay": 2e-5},
        {"params": without_decay, "weight_decay": 0.0},
    ]


def train_one_epoch(model, ema, criterion, optimizer, loader, device, args, scaler):
    model.train()
    for i, (image, target) in enumerate(loader):
        start = time.time()
        image, target = image.to(device), target.to(device)
        with torch.amp.autocast("cuda", enabled=scaler is not None):
            output = model(image)
            loss = criterion(output, target)
        optimizer.zero_grad()
        if scaler is not None:
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), args.clip_grad_norm)
            scaler.step(optimizer)
            scaler.update()
        else:
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), args.clip_grad_norm)
            optimizer.step()
        if ema is not None and i % 32 == 0:
            ema.update_parameters(model)
        rate = len(image) / (time.time() - start)
        print(
            f"{i}: loss {loss.item():.4f}, lr {optimizer.param_groups[0]['lr']:.4f}, {rate:.1f}/s"
        )


def evaluate(model, criterion, loader, device):
    model.eval()
    total = 0.0
    with torch.inference_mode():
        for image, target in loader:
            image = image.to(device, non_blocking=True)
            output = model(image)
            total += criterion(output, target.to(device)).item()
    print(f"test loss {total:.3f}")


def main(args):
    device = torch.device(args.device)
    torch.backends.cudnn.benchmark = False
    size = (3, 224, 224)
    transform = v2.Compose(
        [v2.ToImage(), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, True)]
    )
    train_set = torchvision.datasets.FakeData(100_000, size, 1000, transform)
    test_set = torchvision.datasets.FakeData(256, size, 1000, transform)
    loader = torch.utils.data.DataLoader(train_set, args.batch_size, num_workers=8, pin_memory=True)
    test_loader = torch.utils.data.DataLoader(test_set, args.batch_size, num_workers=8)
    model = torchvision.models.get_model(args.model, weights=None, num_classes=1000).to(device)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.SGD(parameter_groups(model), lr=0.5, momentum=0.9, nesterov=True)
    scaler = torch.amp.GradScaler("cuda") if args.amp else None
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=5)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs - 5)
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[5])
    ema = None
    if args.model_ema:
        average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9999)
        ema = torch.optim.swa_utils.AveragedModel(model, device, average, use_buffers=True)
    start = time.time()
    for epoch in range(args.epochs):
        train_one_epoch(model, ema, criterion, optimizer, loader, device, args, scaler)
        scheduler.step()
        evaluate(model, criterion, test_loader, device)
        if ema is not None:
            evaluate(ema, criterion, test_loader, device)
        torch.save({"model": model.state_dict(), "epoch": epoch}, "checkpoint.pth")
    print(f"training time {datetime.timedelta(seconds=int(time.time() - start))}")


if __name__ == "__main__":
    main(get_args())
