# ultralytics: YOLOv8 from its description, trained on pictures with one rectangle each.
from pathlib import Path

import numpy as np
from PIL import Image
from ultralytics import YOLO

root = Path("shapes").resolve()
for part, size in (("train", 64), ("val", 16)):
    (root / "images" / part).mkdir(parents=True, exist_ok=True)
    (root / "labels" / part).mkdir(parents=True, exist_ok=True)
    for i in range(size):
        pixels = np.random.randint(0, 100, (320, 320, 3), dtype=np.uint8)
        pixels[80:240, 80:240] = 200
        Image.fromarray(pixels).save(root / "images" / part / f"{i}.jpg")
        (root / "labels" / part / f"{i}.txt").write_text(f"{i % 2} 0.5 0.5 0.5 0.5\n")
(root / "data.yaml").write_text(
    f"path: {root}\ntrain: images/train\nval: images/val\nnames: {{0: square, 1: box}}\n"
)

YOLO("yolov8n.yaml").train(data=str(root / "data.yaml"), imgsz=320, batch=8, epochs=3, workers=2)
