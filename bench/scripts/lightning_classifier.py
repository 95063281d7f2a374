# Lightning: a module, a data module's loaders, mixed precision, a checkpoint of the best epoch.
import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import FakeData
from torchvision.models import resnet18


class Classifier(L.LightningModule):
    def __init__(self, lr=1e-3, classes=10):
        super().__init__()
        self.save_hyperparameters()
        self.net = resnet18(num_classes=classes)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.log("val_loss", F.cross_entropy(logits, y), prog_bar=True)
        self.log("val_acc", (logits.argmax(1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def loader(size, **options):
    data = FakeData(size, (3, 224, 224), 10, transforms.ToTensor())
    return DataLoader(data, batch_size=32, num_workers=4, persistent_workers=True, **options)


if __name__ == "__main__":
    L.seed_everything(42)
    trainer = L.Trainer(
        max_epochs=5,
        accelerator="gpu",
        devices=1,
        precision="16-mixed",
        gradient_clip_val=1.0,
        callbacks=[ModelCheckpoint(monitor="val_acc", mode="max"), LearningRateMonitor()],
    )
    trainer.fit(Classifier(), loader(50_000, shuffle=True), loader(1_000))
