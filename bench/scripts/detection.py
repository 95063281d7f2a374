# In the style of detection tutorials: a Faster R-CNN, targets as dictionaries, a sum of losses.
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import fasterrcnn_resnet50_fpn

device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


class Boxes(Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        boxes = torch.tensor([[10.0, 20.0, 150.0, 200.0], [60.0, 40.0, 300.0, 260.0]])
        target = {"boxes": boxes, "labels": torch.tensor([1, 2]), "image_id": i}
        return torch.rand(3, 320, 320), target


def collate_fn(batch):
    return tuple(zip(*batch))


loader = DataLoader(Boxes(1000), batch_size=2, shuffle=True, num_workers=4, collate_fn=collate_fn)
test_loader = DataLoader(Boxes(8), batch_size=1, collate_fn=collate_fn)
model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3).to(device)
params = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.SGD(params, lr=0.005, momentum=0.9, weight_decay=0.0005)

for epoch in range(10):
    model.train()
    for images, targets in loader:
        images = [image.to(device) for image in images]
        targets = [
            {k: v.to(device) if torch.is_tensor(v) else v for k, v in t.items()} for t in targets
        ]
        losses = model(images, targets)
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print({name: round(value.item(), 3) for name, value in losses.items()})
    model.eval()
    with torch.no_grad():
        for images, _ in test_loader:
            found = model([image.to(device) for image in images])
            print(len(found[0]["boxes"]))
    torch.save(model.state_dict(), f"model_{epoch}.pth")
