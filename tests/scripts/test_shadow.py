"""Without namespaces: what a script sees is what it would see on the disk, which stays as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

INSIDE = """
import json, sys
from pathlib import Path
if sys.argv[1]:
    from memfit.scripts.shelter.shadow import Shadow
    Shadow(Path(sys.argv[1])).install()
"""
SEE = """
def see():
    import os
    found = {}
    for parent, folders, files in os.walk("."):
        folders.sort()
        for name in files:
            path = os.path.join(parent, name)
            with open(path) as file:
                found[path] = [file.read(), os.path.getsize(path), Path(path).is_file()]
        found[parent] = sorted(folders + files)
    found["glob"] = sorted(map(str, Path(".").glob("**/*")))
    return found
"""
ACTS = {
    "write": "open('a.txt', 'w').write('new')",
    "append": "open('a.txt', 'a').write(' more')",
    "update": "f = open('a.txt', 'r+'); f.seek(2); f.write('X'); f.close()",
    "exclusive": "open('b.txt', 'x').write('b')",
    "is there": "try: open('a.txt', 'x')\nexcept FileExistsError: open('c', 'w').write('as it is')",
    "remove": "import os; os.remove('a.txt')",
    "remove and write": "import os; os.remove('a.txt'); open('a.txt', 'w').write('again')",
    "remove twice": (
        "import os; os.unlink('a.txt')\n"
        "try: os.remove('a.txt')\nexcept FileNotFoundError: open('gone', 'w').write('yes')"
    ),
    "rename": "import os; os.rename('a.txt', 'd/e.txt')",
    "rename new": "Path('n').write_text('n'); Path('n').rename('a.txt')",
    "move folder": "import shutil; shutil.move('d', 'moved')",
    "make folders": "Path('x/y/z').mkdir(parents=True); Path('x/y/z/f').write_text('deep')",
    "make again": "Path('d').mkdir(exist_ok=True); Path('d/new').touch()",
    "no parent": (
        "try: open('no/f', 'w')\nexcept FileNotFoundError: open('refused', 'w').write('yes')"
    ),
    "rmtree": "import shutil; shutil.rmtree('d')",
    "rmtree and make": (
        "import shutil; shutil.rmtree('d'); Path('d').mkdir(); Path('d/only').write_text('1')"
    ),
    "rmtree new": "import shutil; Path('t/u').mkdir(parents=True); shutil.rmtree('t')",
    "copy": "import shutil; shutil.copy('a.txt', 'copy.txt'); shutil.copytree('d', 'd2')",
    "chdir": "import os; os.chdir('d'); open('here', 'w').write('h'); os.chdir('..')",
    "new chdir": "import os; os.mkdir('q'); os.chdir('q'); open('h', 'w'); os.chdir('..')",
    "os.open": "import os; n = os.open('o', os.O_CREAT | os.O_WRONLY); os.write(n, b'o')",
    "temporary": (
        "import tempfile; f = tempfile.NamedTemporaryFile('w+', dir='.', delete=False)\n"
        "f.write('t'); f.close(); Path(f.name).rename('t')"
    ),
    "truncate": "import os; os.truncate('a.txt', 2)",
    "chmod": "import os; os.chmod('a.txt', 0o600)",
    "symlink": "import os; os.symlink('a.txt', 'l'); open('l', 'a').write('!')",
    "symlink in a folder": "import os; os.symlink('old', 'd/l'); open('d/l', 'w').write('!')",
    "symlink to a new folder": (
        "import os; os.mkdir('r'); open('r/f', 'w').write('f'); os.symlink('r', 'last')\n"
        "open('last/g', 'w').write('g')"
    ),
    "hard link": "import os; os.link('a.txt', 'l'); open('l', 'a').write('!')",
    "numpy": "import numpy; numpy.save('n.npy', [1, 2])\n"
    "Path('s').write_text(str(numpy.load('n.npy')))\n"
    "Path('n.npy').unlink()",
    "zip": "import zipfile; z = zipfile.ZipFile('z', 'w'); z.writestr('a', 'b'); z.close()\n"
    "Path('l').write_text(str(zipfile.ZipFile('z').namelist())); Path('z').unlink()",
}


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def make(folder: Path) -> Path:
    (folder / "d" / "deeper").mkdir(parents=True)
    (folder / "a.txt").write_text("as it was")
    (folder / "d" / "old").write_text("old")
    (folder / "d" / "deeper" / "file").write_text("f")
    return folder


def seen_in(folder: Path, act: str, shadow: str) -> dict[str, object]:
    code = f"{INSIDE}{SEE}{act}\nprint(json.dumps(see()))\n"
    done = subprocess.run(
        [sys.executable, "-c", code, shadow],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", ACTS)
def test_reads_back_like_the_disk(tmp_path: Path, name: str) -> None:
    real, kept = make(tmp_path / "real"), make(tmp_path / "kept")
    before = content(kept)
    expected = seen_in(real, ACTS[name], "")
    seen = seen_in(kept, ACTS[name], str(tmp_path / "layers" / "%2F" / "upper"))
    assert seen == expected
    assert content(kept) == before
