"""Write the figures and the numbers of ``docs/batch-size.md``: about two minutes.

    python docs/batch_size.py [FOLDER OF A FINISHED STUDY]

Without a folder it runs ``memfit study --demo`` first.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from PIL import Image

from memfit.cli import main as memfit

TARGET = Path(__file__).parent / "batch-size"


def main() -> int:
    """Run the study where none is given; copy what the page shows."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary) / "demo"
        if len(sys.argv) < 2 and (code := memfit(["study", "--demo", "--folder", str(folder)])):
            return code
        TARGET.mkdir(exist_ok=True)
        content = json.loads((folder / "study.json").read_text()) | {"folder": "studies/demo"}
        (TARGET / "study.json").write_text(json.dumps(content, indent=1) + "\n")
        for path in sorted((folder / "figures").glob("*.png")):
            with Image.open(path) as picture:  # few colours: a third of the bytes
                small = picture.convert("RGB").quantize(64, dither=Image.Dither.NONE)
                small.save(TARGET / path.name, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
