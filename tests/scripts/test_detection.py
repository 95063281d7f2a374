"""Detection models with boxes: PyTorch itself runs them, because values decide sizes."""

from __future__ import annotations

import json
from typing import Any

import pytest

import memfit
from memfit import cli
from memfit.errors import ExitCode, NoStubs, UsageError
from memfit.models import build
from memfit.virtual_cuda.stubs import build_stubs

SMALL = "torchvision:ssdlite320_mobilenet_v3_large"


@pytest.fixture(scope="module", autouse=True)
def stubs() -> None:
    try:
        build_stubs()
    except NoStubs as error:
        pytest.skip(f"PyTorch itself does not run here without a GPU: {error.message}")


def planned(capsys: Any, *words: str) -> tuple[int, dict[str, Any]]:
    code = cli.main(["plan", *words, "--gpu", "rtx-3090", "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_detector_trains_on_boxes(capsys: Any) -> None:
    words = ("--boxes", "4", "--input-shape", "3x320x320", "--optimizer", "adam")
    code, found = planned(capsys, SMALL, *words, "--batch-size", "2")
    assert code == ExitCode.OK
    weights = sum(p.numel() for p in build(SMALL).module.parameters())
    assert found["model"] == {"name": SMALL, "parameters": weights}
    most = found["at"]["parts_most"]
    assert most["gradients"] == 4 * weights
    assert most["optimizer"] == 2 * 4 * weights
    assert most["activations"] > most["gradients"]
    assert found["script"]["proof"]["fits"]
    assert found["micro_batch"] == 2


def test_what_takes_no_boxes_says_so(capsys: Any) -> None:
    code = cli.main(["plan", "torchvision:resnet18", "--boxes", "4", "--gpu", "rtx-3090"])
    assert code not in (ExitCode.OK, ExitCode.DOES_NOT_FIT)
    assert "takes no boxes; leave out --boxes" in capsys.readouterr().err


def test_without_boxes_a_detector_is_asked_for_them() -> None:
    with pytest.raises(UsageError, match="values decide sizes") as caught:
        memfit.plan(SMALL, input_shape=(3, 320, 320))
    assert "--boxes 8" in (caught.value.hint or "")
