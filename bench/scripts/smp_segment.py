# segmentation_models_pytorch: a U-Net with a ResNet-34 encoder, Dice loss, IoU after each epoch.
import segmentation_models_pytorch as smp
import torch
from torch.utils.data import DataLoader, Dataset

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Pictures(Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        return torch.rand(3, 256, 256), torch.randint(2, (1, 256, 256)).float()


model = smp.Unet("resnet34", encoder_weights=None, in_channels=3, classes=1).to(DEVICE)
criterion = smp.losses.DiceLoss(mode="binary", from_logits=True)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
train_loader = DataLoader(Pictures(4_000), batch_size=8, shuffle=True, num_workers=4)
valid_loader = DataLoader(Pictures(64), batch_size=4, num_workers=2)

best = 0.0
for epoch in range(10):
    model.train()
    for image, mask in train_loader:
        image, mask = image.to(DEVICE), mask.to(DEVICE)
        optimizer.zero_grad()
        loss = criterion(model(image), mask)
        loss.backward()
        optimizer.step()
    model.eval()
    scores = []
    with torch.no_grad():
        for image, mask in valid_loader:
            guess = model(image.to(DEVICE)).sigmoid()
            counts = smp.metrics.get_stats(guess, mask.to(DEVICE).long(), "binary", threshold=0.5)
            scores.append(smp.metrics.iou_score(*counts, reduction="micro").item())
    score = sum(scores) / len(scores)
    print(f"epoch {epoch}: IoU {score:.3f}")
    if score > best:
        best = score
        torch.save(model.state_dict(), "best.pth")
