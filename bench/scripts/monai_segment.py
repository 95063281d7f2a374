# MONAI: a three-dimensional U-Net on crops of a volume, evaluated by a sliding window.
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, decollate_batch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.networks.nets import UNet
from monai.transforms import (
    Activations,
    AsDiscrete,
    Compose,
    EnsureChannelFirstd,
    RandCropByPosNegLabeld,
    RandFlipd,
    ScaleIntensityd,
)

device = torch.device("cuda:0")
keys = ["image", "label"]
volumes = [
    {
        "image": np.random.rand(96, 96, 96).astype("float32"),
        "label": (np.random.rand(96, 96, 96) > 0.5).astype("float32"),
    }
    for _ in range(12)
]
prepare = [EnsureChannelFirstd(keys, channel_dim="no_channel"), ScaleIntensityd("image")]
augment = [
    RandCropByPosNegLabeld(keys, "label", (64, 64, 64), num_samples=2),
    RandFlipd(keys, prob=0.5, spatial_axis=0),
]
train_set = CacheDataset(volumes[:10], Compose(prepare + augment), progress=False)
val_set = CacheDataset(volumes[10:], Compose(prepare), progress=False)
train_loader = DataLoader(train_set, batch_size=2, shuffle=True, num_workers=2)
val_loader = DataLoader(val_set, batch_size=1, num_workers=1)

model = UNet(
    spatial_dims=3,
    in_channels=1,
    out_channels=1,
    channels=(16, 32, 64, 128),
    strides=(2, 2, 2),
    num_res_units=2,
).to(device)
loss_function = DiceCELoss(sigmoid=True)
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
metric = DiceMetric(include_background=True)
post = Compose([Activations(sigmoid=True), AsDiscrete(threshold=0.5)])
scaler = torch.amp.GradScaler("cuda")

for epoch in range(20):
    model.train()
    for batch in train_loader:
        image, label = batch["image"].to(device), batch["label"].to(device)
        optimizer.zero_grad()
        with torch.autocast("cuda"):
            loss = loss_function(model(image), label)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    model.eval()
    with torch.no_grad():
        for batch in val_loader:
            logits = sliding_window_inference(batch["image"].to(device), (64, 64, 64), 4, model)
            guesses = [post(one) for one in decollate_batch(logits)]
            metric(y_pred=guesses, y=decollate_batch(batch["label"].to(device)))
    print(f"epoch {epoch}: loss {loss.item():.4f}, Dice {metric.aggregate().item():.4f}")
    metric.reset()
    torch.save(model.state_dict(), "unet.pth")
