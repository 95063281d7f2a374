"""How fast the page is: a tape of 100,000 events in headless Chromium, and ResNet-50's slider.

``python bench/page.py`` prints each figure with the machine and writes bench/results/page.json.
It needs Playwright and a Chromium. Nothing is loaded from a network.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import statistics
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from memfit.page.documents.plan import plan_document
from memfit.page.html import single_file

RESULTS = Path(__file__).parent / "results" / "page.json"
EVENTS = 100_000
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip

#: Since the navigation began: when the timeline had been drawn for the first time.
FIRST_DRAW = """new Promise((done) => {
  const look = () => {
    const canvas = document.querySelector(".timeline-frame canvas");
    if (canvas?.dataset.drawn) requestAnimationFrame(() => done(performance.now()));
    else requestAnimationFrame(look);
  };
  look();
})"""

#: Drag the timeline by a little in every frame: how often it was drawn in a second, and the
#: longest that no frame came.
PAN = """async (seconds) => {
  const canvas = document.querySelector('[data-test="timeline-canvas"]');
  const drawn = document.querySelector(".timeline-frame canvas");
  const box = canvas.getBoundingClientRect();
  let x = box.left + box.width / 2;
  const send = (type, buttons) => canvas.dispatchEvent(new PointerEvent(type, {
    bubbles: true, pointerId: 1, clientX: x, clientY: box.top + 150, buttons, isPrimary: true }));
  canvas.setPointerCapture = () => {};
  send("pointerdown", 1);
  const before = Number(drawn.dataset.drawn);
  const started = performance.now();
  let last = started;
  let slowest = 0;
  for (let frame = 0; last - started < 1000 * seconds; frame += 1) {
    x += frame % 60 < 30 ? 9 : -9;
    send("pointermove", 1);
    await new Promise(requestAnimationFrame);
    slowest = Math.max(slowest, performance.now() - last);
    last = performance.now();
  }
  send("pointerup", 0);
  const count = Number(drawn.dataset.drawn) - before;
  return { rate: (1000 * count) / (last - started), slowest };
}"""

#: Set the slider to other batches; milliseconds until the verdict says the new one.
SLIDE = """async (count) => {
  const slider = document.querySelector('[data-test="batch-slider"]');
  const sentence = document.querySelector('[data-test="verdict-sentence"]');
  const times = [];
  for (let step = 0; step < count; step += 1) {
    const before = sentence.textContent;
    const started = performance.now();
    slider.value = String(500 + step * 17.3);
    slider.dispatchEvent(new InputEvent("input", { bubbles: true }));
    while (sentence.textContent === before) await new Promise((next) => {
      const channel = new MessageChannel();
      channel.port1.onmessage = next;
      channel.port2.postMessage(null);
    });
    times.push(performance.now() - started);
    await new Promise((next) => setTimeout(next, 120));
  }
  return times;
}"""


def long_document(document: dict[str, Any]) -> dict[str, Any]:
    """A plan whose tape has 100,000 events: activations that come and go over three steps."""
    dice = random.Random(0)
    part, phase, step, constant, slope = [], [], [], [], []
    events: list[int] = []
    marks = []
    for number in range(3):
        pending: list[int] = []
        for kind, count in (("data", 500), ("forward", 20_000), ("backward", 12_000)):
            marks.append([len(events), number, ("data", "forward", "backward").index(kind)])
            for _ in range(count):
                if kind == "backward" and pending:
                    events.append(~pending.pop())
                    continue
                events.append(len(constant))
                part.append(4 if kind == "forward" else 5)
                phase.append(1 if kind == "forward" else 0)
                step.append(number)
                constant.append(dice.randrange(512, 65536))
                slope.append(dice.randrange(0, 8192))
                if kind == "forward" and dice.random() < 0.65:
                    pending.append(events[-1])
                else:
                    events.append(~events[-1])
        marks.append([len(events), number, 3])
        events += [~left for left in reversed(pending)]
    size = len(constant)
    tape = document["tape"] | {
        "part": part, "phase": phase, "step": step, "constant": constant, "slope": slope,
        "operator": [0] * size, "module": [n % 100 for n in range(size)], "dtype": [0] * size,
        "shape": [0] * size, "events": events, "marks": marks,
        "strings": [f"layer{n // 10}.{n % 10}" for n in range(100)], "shapes": [[[1, 0], [0, 1]]],
        "ruled": {"batches": [], "entries": []},
    }  # fmt: skip
    assert len(events) >= EVENTS
    return document | {"tape": tape, "traced": {}, "batch_size": 32}


def measured(page: Any, path: Path) -> dict[str, float]:
    """Of one file: the first drawing, frames while panning, answers of the slider."""
    page.goto(path.as_uri())
    first = page.evaluate(FIRST_DRAW)
    page.wait_for_timeout(3000)  # curve and modules are worked out meanwhile
    page.click('[data-test="zoom-in"]')
    panned = page.evaluate(PAN, 3)
    times = page.evaluate(SLIDE, 25)
    return {
        "first draw, s": first / 1000,
        "panning, frames a second": panned["rate"],
        "slowest frame while panning, ms": panned["slowest"],
        "slider answers (median), ms": statistics.median(times),
        "slider answers (slowest), ms": max(times),
    }


def figures() -> dict[str, float]:
    """Everything, in one browser."""
    from playwright.sync_api import sync_playwright

    import memfit

    plan = memfit.plan(
        "torchvision:resnet50", optimizer="adamw", precision="amp-fp16", gpu="rtx-3060"
    )
    document = plan_document(plan)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        resnet, long = Path(folder) / "resnet50.html", Path(folder) / "long.html"
        resnet.write_text(single_file({"plan": document}), encoding="utf-8")
        made = long_document(document)
        long.write_text(single_file({"plan": made}), encoding="utf-8")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ARGUMENTS
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        found["events of the long tape"] = len(made["tape"]["events"])
        found |= {f"long tape: {name}": value for name, value in measured(page, long).items()}
        found |= {f"ResNet-50: {name}": value for name, value in measured(page, resnet).items()}
        found["ResNet-50: one file, MB"] = resnet.stat().st_size / 1e6
        browser.close()
    return found


def main() -> int:
    """Measure, print, write."""
    found = figures()
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:{width}}  {value:10,.2f}")
    record = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, "
        "headless Chromium without a GPU",
        "figures": {name: round(value, 3) for name, value in found.items()},
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
