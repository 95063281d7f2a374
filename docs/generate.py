"""Write the documentation that comes from commands; with ``--check`` only say whether it is stale.

- ``docs/commands.md``: the help of every command;
- ``README.md``, between its ``accuracy`` marks: the table of ``bench/results/accuracy.json``;
- ``docs/plan.svg``: the picture in the README (not checked: it holds this torch's figures).
"""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

from rich.console import Console

from memfit.cli import COMMANDS as CALLED
from memfit.cli import app

COMMANDS_IN_ORDER = ([], *([command.__name__] for command in CALLED))
ROOT = Path(__file__).parent.parent
COMMANDS = ROOT / "docs" / "commands.md"
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "plan.svg"
RESULTS = ROOT / "bench" / "results" / "accuracy.json"
START, END = "<!-- accuracy: from bench/accuracy.py -->", "<!-- end of accuracy -->"


def commands() -> str:
    """Every command's help as one page."""
    pages = [
        "# Commands\n\n`memfit COMMAND --help-all`, written by `make docs`; `--help` is shorter.\n"
    ]
    for words in COMMANDS_IN_ORDER:
        console = Console(width=90, file=io.StringIO(), force_terminal=False, color_system=None)
        app(
            [*words, "--help"], console=console, exit_on_error=False, result_action="return_value"
        )  # fmt: skip
        text = "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]
        pages.append(f"## memfit {' '.join(words)}".rstrip() + f"\n\n```\n{text.strip()}\n```\n")
    return "\n".join(pages)


def accuracy() -> str:
    """The accuracy table of the README, from the last record."""
    record = json.loads(RESULTS.read_text())
    rows = ["| table | rows | median error | 90th percentile |", "|---|---|---|---|"]
    names = {
        "gpumemnet": "GPUMemNet: 84 timm models on an A100 40 GB",
        "schedtune": "SchedTune: 12 torchvision models on 5 GPUs",
    }
    for key, name in names.items():
        summary = record[key]["summary"]
        rows.append(
            f"| {name} | {record[key]['predicted']} of {record[key]['rows']} "
            f"| {summary['median']:.1%} | {summary['p90']:.1%} |"
        )
    machine = f"Predicted without a GPU on {record['date']} with torch {record['torch']}."
    return "\n".join([*rows, "", machine])


def readme() -> str:
    """The README with its table renewed."""
    text = README.read_text()
    before, rest = text.split(START)
    return f"{before}{START}\n{accuracy()}\n{END}{rest.split(END)[1]}"


def picture() -> None:
    """Plan ResNet-50 and draw what the terminal shows."""
    import memfit
    from memfit.planner.options import ways_to_fit_more
    from memfit.planner.overview import overview
    from memfit.report.plan.text import render_plan

    recipe = {"input_shape": (3, 224, 224), "optimizer": "adamw", "precision": "amp-fp16"}
    plan = memfit.plan("torchvision:resnet50", gpu="rtx-3060", **recipe)
    console = Console(record=True, width=100, file=io.StringIO(), highlight=False, markup=False)
    console.print(render_plan(overview(plan, ways_to_fit_more(plan)), console))
    title = "memfit plan torchvision:resnet50 --optimizer adamw --precision amp-fp16 --gpu rtx-3060"
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.DOTALL)
    PICTURE.write_text(svg)  # without fonts from elsewhere


def main() -> int:
    """Write the pages, or compare them."""
    pages = {COMMANDS: commands(), README: readme()}
    if "--check" not in sys.argv[1:]:
        for path, text in pages.items():
            path.write_text(text)
        picture()
        return 0
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} is stale: run `make docs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
