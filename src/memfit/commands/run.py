"""``memfit run``: any training script, unmodified, on a GPU that is not there."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import ArgumentCollection, Parameter

from memfit.commands.shared.cards import cards_of
from memfit.commands.shared.flags import JsonFlag, Switch, Whole
from memfit.commands.shared.output import on_cards, show, show_json, staged
from memfit.commands.shared.plan_files import check_plan_files
from memfit.commands.shared.script_plans import show_script
from memfit.errors import ExitCode, UsageError
from memfit.files.names import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memfit.cards.catalogue import GPU
    from memfit.scripts.plan import ScriptPlan
    from memfit.scripts.told.job import FakeData, ScriptJob

__all__ = ["run", "separated"]

_AUTO = "auto"


def run(
    *script: Annotated[str, Parameter(allow_leading_hyphen=True)],
    module: Annotated[str | None, Parameter(name=("--module", "-m"))] = None,
    gpu: str | None = None,
    free: str | None = None,
    batch: str | None = None,
    ranks: Whole = None,
    engine: Literal["auto", "pytorch", "meta"] = "auto",
    fake_data: Switch = False,
    fake_shape: str | None = None,
    fake_classes: Whole = None,
    steps: Whole = None,
    seconds: float = 300.0,
    verbose: Switch = False,
    quick: Switch = False,
    html: Path | None = None,
    snapshot: Path | None = None,
    force: Switch = False,
    as_json: JsonFlag = False,
) -> int:
    """Run a training script as it is, on a GPU that is not there: where memory goes, what fits.

    Everything behind the script is the script's own. Nothing is computed that is not needed, and
    nothing of yours is touched: files that it writes are kept from the disk, and listed.

    Parameters
    ----------
    script:
        The file and its arguments; {batch} in them stands for the number of samples.
    module:
        Instead of a file: run a module, as python -m does.
    gpu:
        A card such as rtx-3060, a size such as 11GB, colab or kaggle; several with commas between
        them. Without it: the local GPU, else a table.
    free:
        Of the card's memory, only so much is free, such as 10GiB.
    batch:
        Samples, in place of what the arguments or the data loader say; auto finds the largest
        that fits.
    ranks:
        Be the first of so many, as torchrun would start it.
    engine:
        pytorch runs PyTorch itself (Linux, CUDA build, a compiler); meta takes the usual loop on
        tensors without memory, anywhere; auto is the first that can.
    fake_data:
        Made-up images stand in for data sets of torchvision and image folders that are not there.
    fake_shape:
        Of those images, such as 3x224x224; usual for the data set when omitted.
    fake_classes:
        How many classes they have; usual for the data set when omitted.
    steps:
        End after so many optimizer steps; when two look alike when omitted.
    seconds:
        End a run that has not ended after so long.
    verbose:
        Show what the script prints.
    quick:
        Only the script's own batch.
    html:
        Write the plan as one HTML file.
    snapshot:
        Write the run as a memory snapshot (.pickle) that PyTorch's own viewer opens.
    force:
        Overwrite what exists.
    as_json:
        Print the plan as JSON and nothing else.
    """
    cards = cards_of(gpu, free)
    check_plan_files(html, snapshot, cards=cards, force=force)
    fake = _fake_data(fake_shape, fake_classes) if fake_data or fake_shape or fake_classes else None
    job = _job(script, module, batch, ranks, steps, seconds, fake)

    from memfit.planner.planning import chosen_card

    card = chosen_card(cards[0] if cards else None)
    if batch == _AUTO and card is None:
        raise UsageError("--batch auto finds the largest batch on a card.", hint="Add --gpu NAME.")
    from memfit.cards.catalogue import gpu as find_gpu
    from memfit.planner.tracing import DEFAULT_CARD
    from memfit.scripts.plan import plan_script
    from memfit.scripts.process import chosen_engine
    from memfit.scripts.subject import Script

    def planned(card: GPU | None, told: Callable[[str], None]) -> ScriptPlan:
        played = card or find_gpu(DEFAULT_CARD)
        printed = _print if verbose else _say_nothing
        chosen, because = chosen_engine() if engine == "auto" else (engine, "")
        asked = replace(job, engine=chosen)
        ran = Script(
            asked, played, is_limited=card is not None, on_meta_because=because, told=told,
            printed=printed,
        )  # fmt: skip
        return plan_script(ran, card, is_largest=batch == _AUTO, has_more=not quick)

    if len(cards) > 1:
        return _show_on_cards(staged(lambda told: [planned(each, told) for each in cards]), as_json)
    made = staged(lambda told: planned(card, told))
    show_script(made, html, snapshot, as_json=as_json)
    return ExitCode.DOES_NOT_FIT if made.found.fits is False else ExitCode.OK


def _show_on_cards(made: list[ScriptPlan], as_json: bool) -> int:
    if as_json:
        show_json(on_cards([one.to_dict() for one in made]))
    else:
        from memfit.report.plan.script import render_script_on_cards

        show(lambda console: render_script_on_cards(made, console))
    fits = any(one.found.fits for one in made)
    return ExitCode.OK if fits else ExitCode.DOES_NOT_FIT


def separated(words: Sequence[str], options: ArgumentCollection) -> list[str]:
    """What was typed after ``memfit run``, with ``--`` before the script.

    From there on everything is the script's own, also what is called as an option of memfit.

    Args:
        words: as typed.
        options: that the command has.
    """
    taking = {name for option in options if option.token_count()[0] for name in option.names}
    index = 0
    while index < len(words) and words[index].startswith("-") and words[index] != "--":
        name, has_value, _ = words[index].partition("=")
        index += 1 if has_value or name not in taking else 2
        if name in ("-m", "--module"):
            break
    behind = words[index:] if words[index : index + 1] != ["--"] else words[index + 1 :]
    return [*words[:index], "--", *behind] if behind else list(words)


def _job(
    script: tuple[str, ...],
    module: str | None,
    batch: str | None,
    ranks: int | None,
    steps: int | None,
    seconds: float,
    fake: FakeData | None,
) -> ScriptJob:
    from memfit.scripts.told.job import ScriptJob

    name, *arguments = (module, *script) if module else (*script, "")
    if not name:
        raise UsageError("Which script?", hint="Such as memfit run --gpu rtx-3060 train.py.")
    if module is None:
        arguments = arguments[:-1]
        if not Path(name).is_file():
            raise UsageError(
                f"There is no file {shown(Path(name))}.",
                hint="Options of memfit stand before the script; -m runs a module.",
            )
    for what, number in (("--ranks", ranks), ("--steps", steps), ("--seconds", seconds)):
        if number is not None and not number > 0:
            raise UsageError(f"{what} is {number}; it must be above 0.")
    is_template = any("{batch}" in word for word in arguments)
    return ScriptJob(
        name,
        tuple(arguments),
        is_module=module is not None,
        batch=_batch(batch, is_template=is_template),
        steps=steps,
        limit_seconds=seconds,
        ranks=ranks,
        fake_data=fake,
    )


#: Where the arguments say {batch} and the largest is looked for, it is looked for from here.
_FIRST_BATCH = 8


def _batch(text: str | None, *, is_template: bool) -> int | None:
    if text == _AUTO:
        return _FIRST_BATCH if is_template else None
    if text is None:
        return None
    if not text.isdecimal() or not int(text):
        raise UsageError(f"--batch is {text!r}; it is a number of samples, or auto.")
    return int(text)


def _fake_data(shape: str | None, classes: int | None) -> FakeData:
    from memfit.recipe.fields import FIELDS
    from memfit.scripts.told.job import FakeData

    sizes = None if shape is None else FIELDS["input_shape"].kind.read(shape)
    return FakeData(sizes, classes)


def _print(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _say_nothing(_: str) -> None:
    """What a script prints is not the answer."""
