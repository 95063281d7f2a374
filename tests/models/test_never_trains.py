"""A file of the user's defines a model: what trains, writes or asks is refused before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from memfit import models
from memfit.errors import UsageError
from memfit.models.reading import first_deed

HEAD = """
import argparse, os, sys
from pathlib import Path
import torch
from torch import nn
from torch.utils.data import DataLoader

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)
    def forward(self, x):
        return self.fc(x)

def build():
    return Net()
"""
FIRST = len(HEAD.splitlines()) + 1

#: Harmless on import, each as people write it.
HARMLESS = {
    "constants": "LR = 0.1\nSIZES = [2 ** n for n in range(4)]\nDEVICE = 'cuda'",
    "seeds": "torch.manual_seed(0)\ntorch.backends.cudnn.benchmark = True",
    "device": "device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
    "instance": "model = Net()\nmodel.train()\nmodel = model.to('cpu')",
    "table": "SIZES = {}\nfor n in (18, 34):\n    SIZES[f'net{n}'] = n\n    setattr(Net, 'a', n)",
    "guarded": "if __name__ == '__main__':\n    for x in DataLoader([]):\n        x.backward()",
    "guarded main": "def main():\n    open('a', 'w')\n    parser = argparse.ArgumentParser()\n"
    "    parser.parse_args()\nif '__main__' == __name__:\n    main()",
    "functions": "def train(model, loader, optimizer):\n    for x in loader:\n"
    "        model(x).sum().backward()\n        optimizer.step()\n    torch.save(model, 'a.pt')",
    "methods": "class Trainer:\n    def fit(self):\n        self.loss.backward()",
    "reading": "text = Path(__file__).read_text()\nwith open(__file__) as f:\n    f.read()",
    "try": "try:\n    import nothing_of_that_name\nexcept ImportError:\n    nothing = None",
    "given arguments": "args = argparse.ArgumentParser().parse_args([])",
    "a parser": "parser = argparse.ArgumentParser()\nparser.add_argument('--lr')",
    "path": "sys.path.insert(0, os.path.dirname(__file__))",
    "decorated": "@torch.no_grad()\ndef evaluate(model, loader):\n    for x in loader: model(x)",
    "lambda": "train = lambda loss: loss.backward()",
    "optimizer": "optimizer = torch.optim.SGD(Net().parameters(), lr=0.1)\noptimizer.zero_grad()",
    "a loop in a function": "def sizes(n):\n    while n > 1:\n        n //= 2\nS = sizes(8)",
    "numbers": "x = torch.linspace(0, 1, 3)\nprint(x.mean())\nassert x.sum() > 0",
}  # fmt: skip

#: Refused: code after the head, the line in it, and what it does.
REFUSED = {
    "a loop": ("model = Net()\nopt = torch.optim.SGD(model.parameters(), 0.1)\n"
               "for epoch in range(3):\n    loss = model(torch.ones(1, 4)).sum()\n"
               "    loss.backward()\n    opt.step()", 5, "trains"),
    "a loader": ("loader = DataLoader([])\nfor x, y in loader:\n    pass", 2, "runs over data"),
    "numbered": ("train_loader = DataLoader([])\nfor i, x in enumerate(train_loader):\n    pass",
                 2, "runs over data"),
    "while": ("n = 0\nwhile n < 3:\n    n += 1", 2, "runs a loop"),
    "arguments": ("parser = argparse.ArgumentParser()\nargs = parser.parse_args()", 2,
                  "parses arguments"),
    "argv": ("epochs = int(sys.argv[1])", 1, "parses arguments"),
    "known": ("args, rest = argparse.ArgumentParser().parse_known_args(sys.argv[1:])", 1,
              "parses arguments"),
    "open": ("log = open('log.txt', 'w')", 1, "writes to the disk"),
    "append": ("with open('log.txt', mode='a') as log:\n    log.write('x')", 1,
               "writes to the disk"),
    "path": ("Path('log.txt').open('w')", 1, "writes to the disk"),
    "folder": ("os.makedirs('out', exist_ok=True)", 1, "writes to the disk"),
    "save": ("torch.save(Net().state_dict(), 'net.pt')", 1, "writes to the disk"),
    "main": ("def main():\n    loss = torch.ones(1).sum()\n    loss.backward()\nmain()", 4,
             r"trains \(net\.py, line {3}\)"),
    "method": ("class Run:\n    def go(self):\n        self.loss.backward()\nRun().go()", 4,
               "trains"),
    "trainer": ("import trainers\ntrainer = trainers.Trainer(Net())\ntrainer.fit()", 3, "trains"),
    "else": ("if __name__ == '__main__':\n    pass\nelse:\n    open('a', 'w')", 4,
             "writes to the disk"),
    "in try": ("try:\n    torch.ones(1, requires_grad=True).backward()\nfinally:\n    pass", 2,
               "trains"),
    "download": ("import sets\ndata = sets.MNIST('data', download=True)", 2, "downloads data"),
    "processes": ("import torch.multiprocessing as mp\nmp.spawn(print, nprocs=2)", 2,
                  "starts processes"),
    "command": ("import click\n@click.command()\ndef main():\n    pass\nmain()", 5,
                "parses arguments"),
}  # fmt: skip


def written(folder: Path, code: str) -> Path:
    path = folder / "net.py"
    path.write_text(HEAD + code + "\n")
    return path


@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_defines_is_imported(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, HARMLESS[name])
    assert models.build(f"{path}:build").module.fc.weight.is_meta
    assert [p.name for p in tmp_path.iterdir()] == ["net.py"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_more_is_refused_before_it_runs(tmp_path: Path, name: str) -> None:
    code, line, does = REFUSED[name]
    does = does.replace("{3}", str(FIRST + 2))
    path = written(tmp_path, f"{code}\nraise ArithmeticError('it ran')")
    with pytest.raises(UsageError, match=f"line {FIRST - 1 + line}, {does}") as caught:
        models.build(f"{path}:build")
    assert caught.value.hint is not None
    assert "memfit run net.py" in caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["net.py"]


def test_modules_of_the_folder_are_read_too(tmp_path: Path) -> None:
    path = written(tmp_path, "import engine")
    engine = tmp_path / "engine.py"
    engine.write_text("def run(loss):\n    loss.backward()\n")
    assert first_deed(path, "build", (tmp_path,)) is None
    path = written(tmp_path, "from engine import run\nrun(torch.ones(1))")
    with pytest.raises(UsageError, match=rf"line {FIRST + 1}, trains \(engine\.py, line 2\)"):
        models.build(f"{path}:build")
    engine.write_text("open('log', 'w')\ndef run(loss): ...\n")
    path = written(tmp_path, "from engine import run")
    with pytest.raises(UsageError, match=r"engine\.py, line 1, writes to the disk"):
        models.build(f"{path}:build")


def test_a_builder_that_trains_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "def main():\n    build()(torch.ones(1, 4)).sum().backward()")
    with pytest.raises(UsageError, match=f"line {FIRST + 1}, trains"):
        models.build(f"{path}:main")
    assert models.build(f"{path}:build").module is not None


@pytest.mark.parametrize(
    ("code", "does"),
    [
        ("getattr(torch.ones(1, requires_grad=True), 'back' + 'ward')()", "trains"),
        ("getattr(argparse.ArgumentParser(), 'parse' + '_args')()", "parses arguments"),
        ("exec(\"open('log', 'w')\")", "writes to the disk"),
    ],
)
def test_what_the_text_does_not_show_is_stopped(tmp_path: Path, code: str, does: str) -> None:
    path = written(tmp_path, code)
    with pytest.raises(UsageError, match=does):
        models.build(f"{path}:build")
    assert [p.name for p in tmp_path.iterdir()] == ["net.py"]


def test_a_builder_in_python_may_not_train_either() -> None:
    def builder() -> nn.Module:
        model = nn.Linear(2, 2)
        torch.ones(1, requires_grad=True).backward()
        return model

    with pytest.raises(UsageError, match="trains"):
        models.build(builder)


@pytest.mark.parametrize("spec", ["{path}:build", "{path}:model", "net:build"])
def test_a_file_is_imported_once(
    tmp_path: Path, spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, "model = Net()\nprint('imported')")
    for _ in range(3):
        models.build(spec.format(path=path))
    assert capsys.readouterr().err.count("imported") == 1


def test_weights_for_training_are_drawn_from_the_seed(tmp_path: Path) -> None:
    """Also where the file was imported before, and where it makes the model itself."""
    for spec in (f"{written(tmp_path, 'model = Net()')}:{name}" for name in ("model", "build")):
        first, again, other = (
            models.build_for_training(spec, seed=seed).module.fc.weight for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "code",
    [
        "nn.Linear(4, 2).cuda()",
        "nn.Linear(4, 2).to('cuda:0')",
        "nn.Linear(4, 2).to(torch.device('cuda'))",
        "nn.Linear(4, 2, device='cuda')",
        "nn.Sequential(nn.Linear(4, 2)).cuda(0)[0]",
        "nn.Linear(4, torch.tensor([2], device='cuda').item())",
    ],
)
def test_cuda_in_a_builder_means_where_it_is_built(tmp_path: Path, code: str) -> None:
    path = written(tmp_path, f"def here():\n    return {code}\nthere = {code}")
    for name in ("here", "there"):
        built = models.build(f"{path}:{name}").module
        assert built.weight.is_meta
        assert built.weight.shape == (2, 4)
        trained = models.build_for_training(f"{path}:{name}").module
        assert trained.weight.device.type == "cpu"
        assert trained.weight.abs().sum() > 0
    assert not torch.cuda.is_initialized()
