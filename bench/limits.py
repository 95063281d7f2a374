"""The largest batches by the rule against trying every batch, for ten models on three cards.

``python bench/limits.py`` writes bench/results/limits.json; names of models try only those. "Every
batch" is every one up to twice the largest that runs; from 2,000 on every 8th is tried, from 16,000
on every 64th.
"""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import memfit
from memfit.cards.catalogue import gpu

RESULTS = Path(__file__).parent / "results" / "limits.json"
CARDS = ("4GiB", "rtx-3060", "a100-40gb")
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"input_shape": (1, 28, 28), "optimizer": "adam"},
    "cnn": {"input_shape": (3, 32, 32)},
    "torchvision:resnet18": {"input_shape": (3, 224, 224)},
    "torchvision:resnet50": {"precision": "amp-fp16", "optimizer": "adamw"},
    "torchvision:vgg16": {},
    "torchvision:mobilenet_v3_small": {"optimizer": "adam"},
    "torchvision:convnext_tiny": {"precision": "amp-bf16", "optimizer": "adamw"},
    "torchvision:densenet121": {"memory_format": "nhwc", "precision": "amp-fp16"},
    "timm:vit_tiny_patch16_224": {"optimizer": "adamw"},
    "torchvision:swin_t": {"precision": "amp-bf16", "optimizer": "adamw"},
}


def compared(plan: memfit.Plan, card: str) -> dict[str, Any]:
    """The rule's answers, and what trying every batch finds."""
    target = gpu(card)
    found = plan.limits.on(target)
    end = 2 * max(8, found.largest_that_runs)
    step = 1 if end <= 2_000 else 8 if end <= 16_000 else 64
    runs = [b for b in range(step, end + 1, step) if plan.limits.runs_on(target, b)]
    tried = range(step, found.max_batch_size + 1, step)
    return {
        "max_batch_size": found.max_batch_size,
        "largest_that_runs": found.largest_that_runs,
        "recommended_batch_size": found.recommended_batch_size,
        "every": step,
        "last_that_runs": max(runs, default=0),
        "promised_but_fail": sorted(set(tried) - set(runs)),
    }


def main() -> int:
    """Compare, print, write."""
    rows: dict[str, dict[str, Any]] = {}
    for name in sys.argv[1:] or MODELS:
        rows[name] = {}
        for card in CARDS:
            plan = memfit.plan(name, gpu=card, verify=False, **MODELS[name])
            rows[name][card] = row = compared(plan, card)
            broken = len(row["promised_but_fail"])
            print(
                f"{name:32s} {card:10s} promised {row['max_batch_size']:>9,} ({broken} fail), "
                f"single to {row['largest_that_runs']:>9,} of {row['last_that_runs']:>9,}, "
                f"recommended {row['recommended_batch_size']:>9,}",
                flush=True,
            )
    RESULTS.write_text(json.dumps({"date": date.today().isoformat(), "models": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
