"""The command line: parse, call, print, exit code. No logic lives here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Env

from memfit import __version__
from memfit.errors import ExitCode, MemfitError, UsageError
from memfit.flags import JsonFlag, MemoryFlags, TrainingFlags, Whole, recipe_of
from memfit.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from memfit.recipe import Recipe
    from memfit.study.listener import StudyListener
    from memfit.trainer.listener import Listener


app = App(
    name="memfit",
    help="Where every byte of GPU memory goes when you train, before anything runs on a GPU.\n\n"
    "Every option can come from the environment, such as MEMFIT_GPU for --gpu.",
    version=__version__,
    config=Env("MEMFIT_", command=False),
    default_parameter=Parameter(show_env_var=False),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)


T = TypeVar("T")


@app.command
def plan(
    model: str,
    *,
    flags: MemoryFlags | None = None,
    gpu: str | None = None,
    quick: Annotated[bool, Parameter(negative=())] = False,
    strict: Annotated[bool, Parameter(negative=())] = False,
    as_json: JsonFlag = False,
) -> int:
    """Where memory goes, the batch that fits, and how to fit more.

    Parameters
    ----------
    model:
        torchvision:NAME, timm:NAME, transformers:NAME, mlp, cnn, path/to/file.py:build,
        package.module:build, or a recipe file ending in .toml.
    gpu:
        A card such as rtx-3060, or a size such as 11GiB. Without it: the local GPU, else a table.
    quick:
        Leave out the ways to fit more.
    strict:
        Exit with 4 when an operator could not be accounted for.
    as_json:
        Print the plan as JSON and nothing else.
    """
    from memfit.api import plan as make_plan
    from memfit.planner.options import ways_to_fit_more

    recipe = recipe_of(model, (flags or MemoryFlags()).given())
    made = _working("planning", lambda: make_plan(recipe, gpu=gpu))
    options = None if quick or made.gpu is None else _working(
        "planning ways to fit more", lambda: ways_to_fit_more(made)
    )  # fmt: skip
    if as_json:
        from dataclasses import asdict

        _print_json(made.to_dict() | {"options": [asdict(option) for option in options or ()]})
    else:
        from memfit.report.text import render_plan

        _print(lambda console: render_plan(made, options, console))
    if made.fits is False:
        return ExitCode.DOES_NOT_FIT
    return ExitCode.INCOMPLETE if strict and made.unsupported else ExitCode.OK


@app.command
def model(
    model: str,
    *,
    depth: int = 2,
    batch_size: Whole = None,
    input_shape: str | None = None,
    input_ids: Whole = None,
    num_classes: Whole = None,
    precision: str | None = None,
    optimizer: str | None = None,
    as_json: JsonFlag = False,
) -> int:
    """Layers, shapes, parameters, bytes kept for backward and multiply-adds.

    Parameters
    ----------
    model:
        As for memfit plan.
    depth:
        Levels of modules to show.
    batch_size:
        The micro-batch; 1 when omitted.
    input_shape:
        Of one sample, such as 3x224x224.
    input_ids:
        Tokens in one sample, for language models.
    num_classes:
        Of the model's head.
    precision:
        fp32, tf32, amp-fp16, amp-bf16, fp16 or bf16.
    optimizer:
        A name, with options after commas; decides the peak.
    as_json:
        Print the table as JSON and nothing else.
    """
    from memfit.api import plan_recipe
    from memfit.planner.layers import summarise_layers

    if depth < 0:
        raise UsageError(f"--depth is {depth}; it must be 0 or more.")
    flags = MemoryFlags(
        input_shape=input_shape,
        input_ids=input_ids,
        num_classes=num_classes,
        batch_size=1 if batch_size is None else batch_size,
        precision=precision,
        optimizer=optimizer,
    )
    recipe = recipe_of(model, flags.given())
    made = _working("tracing", lambda: plan_recipe(recipe, None, verify=False))
    table = summarise_layers(made, depth=depth)
    if as_json:
        _print_json(table.to_dict())
    else:
        from memfit.report.layers import render_layers

        _print(lambda console: render_layers(table, console))
    return ExitCode.OK


@app.command
def data(
    source: str,
    *,
    root: Path | None = None,
    download: Annotated[bool, Parameter(negative=())] = False,
    batch_size: Whole = None,
    max_pixels: Whole = None,
    figure: Path | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    preview: Annotated[bool, Parameter(negative_bool=("no-",))] = True,
    strict: Annotated[bool, Parameter(negative=())] = False,
    as_json: JsonFlag = False,
) -> int:
    """What these images really are, what the loader will deliver, and the numbers to use.

    Parameters
    ----------
    source:
        mnist, fashion-mnist, cifar10, cifar100, shapes (or shapes,size=48,channels=1,classes=6,
        train=4000,test=1000,seed=0), or a path: a folder of images (a folder
        per class, with or without train and test), a CSV or Parquet file of paths and labels,
        IDX files, CIFAR pickles, an .npz, or one image.
    root:
        Where the named sets are.
    download:
        Fetch a named set that is not there.
    batch_size:
        Of the batch whose bytes are shown; 64 when omitted.
    max_pixels:
        Larger images count as unreadable; 89,478,485 when omitted.
    figure:
        Write a sheet of samples, channels and histograms: a .png, .pdf or .svg file.
    force:
        Overwrite the figure.
    preview:
        Show a few samples in the terminal, where it has colours.
    strict:
        Exit with 4 when anything cannot be read or is wrong with the source.
    as_json:
        Print everything as JSON and nothing else.
    """
    from memfit.data.decode import MAX_PIXELS
    from memfit.data.inspection import inspect_dataset
    from memfit.data.opening import open_dataset

    for name, number in (("--batch-size", batch_size), ("--max-pixels", max_pixels)):
        if number is not None and number < 1:
            raise UsageError(f"{name} is {number}; it must be 1 or more.")
    limit, size = max_pixels or MAX_PIXELS, batch_size or 64
    if figure is not None:
        from memfit.report.figures import check_figure_path, samples_figure

        check_figure_path(figure, force=force)
    opened = open_dataset(source, root=root, download=download)
    if figure is not None and figure.exists() and opened.holds(figure):
        raise UsageError(f"{figure} is one of the images: it is not overwritten.")
    found = _counting(
        "images", lambda step: inspect_dataset(opened, max_pixels=limit, progress=step)
    )
    if figure is not None:
        samples_figure(opened, found, figure, force=force, max_pixels=limit)
        print(f"wrote {figure}", file=sys.stderr)
    if as_json:
        _print_json(found.to_dict(size))
    else:
        from memfit.report.data import render_inspection
        from memfit.report.preview import preview as preview_of

        _print(
            lambda console: render_inspection(
                found,
                console,
                batch_size=size,
                preview=preview_of(opened, console, max_pixels=limit) if preview else None,
                memory_bytes=_physical_memory_bytes(),
            )
        )
    if not found.overall.readable:
        return ExitCode.ERROR
    return ExitCode.INCOMPLETE if strict and not found.is_complete else ExitCode.OK


@app.command
def train(
    model: str | None = None,
    *,
    memory_flags: MemoryFlags | None = None,
    training_flags: TrainingFlags | None = None,
    name: str | None = None,
    runs: Path = Path("runs"),
    resume: Path | None = None,
    device: str = "auto",
    memory: str | None = None,
    tensorboard: Annotated[bool, Parameter(negative=())] = False,
    as_json: JsonFlag = False,
) -> int:
    """Train with the planned batch; out of memory never ends it, and it resumes to the bit.

    Without arguments: the built-in cnn on the generated shapes. The first SIGINT or SIGTERM
    finishes the step and writes a checkpoint. On several devices:
    torchrun --nproc-per-node N -m memfit train ...

    Parameters
    ----------
    model:
        As for memfit plan; or a recipe file ending in .toml.
    name:
        Of the run's folder; made of date, model and data when omitted.
    runs:
        The folder of all runs.
    resume:
        Go on with a run: its folder. Everything else is as it was.
    device:
        auto (a GPU where there is one), cpu, cuda or cuda:1.
    memory:
        Play a smaller device, such as 8GiB: a share of the GPU, or a virtual budget on the CPU.
    tensorboard:
        Write TensorBoard events into the run's folder.
    as_json:
        Print JSON lines and nothing else.
    """
    from memfit.trainer.run import train as train_recipe

    changes = {
        **(memory_flags or MemoryFlags()).given(), **(training_flags or TrainingFlags()).given()
    }  # fmt: skip
    given = changes.keys() - {"shard"}
    if resume is not None and (model is not None or given or name is not None):
        raise UsageError(
            "--resume goes on with a run as it began.",
            hint="Give only --resume, --shard, --device and --memory; or start a new run.",
        )
    recipe = None if resume is not None else _training_recipe(model, changes)
    reporter = _reporter(as_json)
    if tensorboard:
        from memfit.trainer.listener import Listeners
        from memfit.trainer.tensorboard import TensorBoardWriter

        reporter = Listeners([reporter, TensorBoardWriter()])
    try:
        with redirect_stdout(sys.stderr):  # what a user's own model prints
            result = train_recipe(
                recipe,
                name=name,
                runs=runs,
                resume=resume,
                device=device,
                memory_bytes=None if memory is None else parse_bytes(memory),
                listener=reporter,
                command=sys.argv,
                **(changes if resume is not None else {}),
            )
    finally:
        reporter.ended()
    if int(os.environ.get("RANK", "0")) != 0:
        return ExitCode.OK
    if as_json:
        from memfit.trainer.metrics_file import to_json

        ended = {"event": "ended", "status": result.status, "run": str(result.path)}
        _write(to_json(ended | {"summary": result.summary}) + "\n")
    else:
        from memfit.report.run import render_run

        _print(lambda console: render_run(result, console))
    return ExitCode.OK


@app.command
def predict(
    run: Path,
    images: list[Path],
    /,
    *,
    top: int = 3,
    device: str = "auto",
    as_json: JsonFlag = False,
) -> int:
    """The likeliest classes of images, by a trained run.

    Parameters
    ----------
    run:
        A run's folder.
    images:
        Image files.
    top:
        Classes for each image.
    device:
        auto, cpu or cuda.
    as_json:
        Print JSON and nothing else.
    """
    from memfit.trainer.trained import open_trained

    found = _working("predicting", lambda: open_trained(run, device=device).predict(images, top))
    if as_json:
        rows = [
            {"image": name, "classes": [{"class": c, "probability": p} for c, p in answers]}
            for name, answers in found
        ]
        _print_json({"schema_version": 1, "predictions": rows})
    else:
        from memfit.report.run import render_predictions

        _print(lambda console: render_predictions(found, console))
    return ExitCode.OK


@app.command
def evaluate(
    run: Path,
    *,
    split: str | None = None,
    figure: Path | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    device: str = "auto",
    as_json: JsonFlag = False,
) -> int:
    """How good a trained run is: accuracy, by class, and who is taken for whom.

    Parameters
    ----------
    run:
        A run's folder.
    split:
        Of the run's data; test when omitted.
    figure:
        Write the confusion matrix: a .png, .pdf or .svg file.
    force:
        Overwrite the figure.
    device:
        auto, cpu or cuda.
    as_json:
        Print JSON and nothing else.
    """
    from memfit.trainer.trained import open_trained

    if figure is not None:
        from memfit.report.figures import check_figure_path

        check_figure_path(figure, force=force)
    found = _working("evaluating", lambda: open_trained(run, device=device).evaluate(split))
    if figure is not None:
        from memfit.report.confusion import confusion_figure

        confusion_figure(found, figure, force=force)
    if as_json:
        _print_json(found.to_dict())
    else:
        from memfit.report.run import render_evaluation

        _print(lambda console: render_evaluation(found, str(run), console))
    return ExitCode.OK


@app.command
def export(
    run: Path,
    target: Path,
    /,
    *,
    which: Literal["best", "last"] = "best",
    average: Annotated[bool, Parameter(negative_bool=("no-",))] = True,
    force: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Write a run's weights, and nothing else, to a .safetensors or .pt file.

    Parameters
    ----------
    run:
        A run's folder.
    target:
        Ends in .safetensors or .pt.
    which:
        Checkpoint: best or last.
    average:
        The moving average of the weights, where the run kept one.
    force:
        Overwrite.
    """
    from memfit.trainer.export import export_weights
    from memfit.trainer.run_folder import RunFolder

    done = export_weights(RunFolder.open(run), target, force, which=which, average=average)
    kind = "averaged weights" if done.averaged else "weights"
    _write(f"{done.path}: {kind}, {done.tensors} tensors, {format_bytes(done.size_bytes)}\n")
    return ExitCode.OK


@app.command
def gpus(*, as_json: JsonFlag = False) -> int:
    """The catalogue of cards.

    Parameters
    ----------
    as_json:
        Print the catalogue as JSON and nothing else.
    """
    from memfit.catalogue import gpus as catalogue

    if as_json:
        from dataclasses import asdict

        _print_json({"schema_version": 1, "gpus": [asdict(card) for card in catalogue().values()]})
    else:
        from memfit.report.cards import render_gpus

        _print(lambda console: render_gpus(catalogue().values(), console))
    return ExitCode.OK


@app.command
def noise(
    model: str | None = None,
    *,
    memory_flags: MemoryFlags | None = None,
    training_flags: TrainingFlags | None = None,
    micro_batch: Whole = None,
    micro_batches: Whole = None,
    every: int = 1,
    by_layer: Annotated[bool, Parameter(negative=())] = False,
    figure: Path | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    device: str = "auto",
    as_json: JsonFlag = False,
) -> int:
    """The gradient noise scale B_simple of a recipe, from one short training.

    --steps is the length of this training, 200 when omitted; the learning rate follows the
    schedule of the recipe's own.

    Parameters
    ----------
    model:
        As for memfit plan; or a recipe file ending in .toml.
    micro_batch:
        Samples behind each small gradient; an eighth of the global batch when omitted.
    micro_batches:
        How many make the large gradient, which is one optimizer step; 8 when omitted.
    every:
        Measure one of so many steps.
    by_layer:
        Also for each top-level module.
    figure:
        Write the noise scale over the training: a .png, .pdf or .svg file.
    force:
        Overwrite the figure.
    device:
        auto (a GPU where there is one), cpu, cuda or cuda:1.
    as_json:
        Print JSON and nothing else.
    """
    from memfit.study.noise import measure_noise, micro_batches_of

    if figure is not None:
        from memfit.report.figures import check_figure_path

        check_figure_path(figure, force=force)
    changes = {
        **(memory_flags or MemoryFlags()).given(), **(training_flags or TrainingFlags()).given()
    }  # fmt: skip
    steps = changes.pop("steps", 200)
    recipe = _training_recipe(model, changes)
    small, number = micro_batches_of(recipe, micro_batch, micro_batches)
    with redirect_stdout(sys.stderr):  # what a user's own model prints
        measured = _counting("steps", lambda step: measure_noise(
            recipe, steps=steps, micro_batch=small, micro_batches=number, every=every,
            device=device, by_layer=by_layer, progress=step,
        ))  # fmt: skip
    if int(os.environ.get("RANK", "0")) != 0:
        return ExitCode.OK
    content = measured.to_dict()
    if figure is not None:
        from memfit.report.noise import noise_figure

        noise_figure(content, figure, force=force)
        print(f"wrote {figure}", file=sys.stderr)
    if as_json:
        _print_json(content)
    else:
        from memfit.report.noise import render_noise

        _print(lambda console: render_noise(content, console))
    return ExitCode.OK


@app.command
def study(
    model: str | None = None,
    *,
    memory_flags: MemoryFlags | None = None,
    training_flags: TrainingFlags | None = None,
    batch_sizes: str | None = None,
    seeds: int = 3,
    budget: str | None = None,
    goal: str | None = None,
    folder: Path | None = None,
    gpu: str | None = None,
    by_layer: Annotated[bool, Parameter(negative=())] = False,
    demo: Annotated[bool, Parameter(negative=())] = False,
    ray: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=(0, 1))] = None,
    device: str = "auto",
    as_json: JsonFlag = False,
) -> int:
    """What batch size changes here: speed, memory, noise, steps to a goal, learning rate.

    Ends in one recommendation. Every trial is an ordinary run in the study's folder: interrupted,
    the same command goes on; with more batch sizes it reuses what is there.

    Parameters
    ----------
    model:
        As for memfit plan; or a recipe file ending in .toml.
    batch_sizes:
        Global ones, such as 16,64,256 or 16,32,...,1024.
    seeds:
        Whole trials of each batch size.
    budget:
        Time for everything, such as 5m; trials become shorter than the recipe's epochs.
    goal:
        accuracy=0.95 or loss=0.3, on the test images; what all sizes reach when omitted.
    folder:
        Of the study; studies/MODEL-DATA when omitted.
    gpu:
        The card whose memory is the ceiling; the local one when omitted.
    by_layer:
        Measure the gradient noise of each top-level module, too.
    demo:
        A small network on the generated shapes, in about two minutes.
    ray:
        Run the trials on Ray: a local one, or the cluster at this address.
    device:
        auto (a GPU where there is one), cpu, cuda or cuda:1.
    as_json:
        Print the study as JSON and nothing else.
    """
    from memfit.study.command import study_asked, study_folder, write_reports
    from memfit.study.study import run_study

    changes = {
        **(memory_flags or MemoryFlags()).given(), **(training_flags or TrainingFlags()).given()
    }  # fmt: skip
    asked = study_asked(
        None if model is None and demo else _training_recipe(model, changes),
        batch_sizes, seeds=seeds, budget=budget, goal=goal, demo=demo, has_flags=bool(changes),
    )  # fmt: skip
    listener = _study_listener()
    try:
        with redirect_stdout(sys.stderr):  # what a user's own model prints
            found = run_study(
                **asked,
                folder=folder or study_folder(asked["recipe"], demo=demo),
                device=device,
                gpu=gpu,
                by_layer=by_layer,
                ray=False if ray is None else (ray[0] if ray else True),
                listener=listener,
            )
            write_reports(found)
    except KeyboardInterrupt:
        listener.note("Stopped; what ran is kept. The same command goes on.")
        raise
    finally:
        listener.ended()
    if as_json:
        from memfit.trainer.metrics_file import to_json

        _write(to_json(found.to_dict(), indent=2) + "\n")
    else:
        from memfit.study.reports.text import render_study

        _print(lambda console: render_study(found, console))
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; the process's own when omitted.

    Returns:
        The exit code, see :class:`memfit.errors.ExitCode`.
    """
    if sys.stdout is None:  # closed by the caller: nobody reads the result
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    try:
        result = app(arguments, exit_on_error=False, print_error=False)
    except MemfitError as error:
        return _complain(error.message, error.hint, error.exit_code, is_of_rank=error.is_of_rank)
    except CycloptsError as error:
        return _complain(str(error), f"{_help_of(arguments)} lists what there is.", ExitCode.USAGE)
    except KeyboardInterrupt:
        return 130
    return int(result or ExitCode.OK)


def _training_recipe(model: str | None, changes: dict[str, Any]) -> Recipe:
    """The recipe to train; what is not said at all is the built-in example."""
    from memfit.recipe import example_recipe

    if model is None:
        return example_recipe(**changes)
    recipe = recipe_of(model, changes)
    return recipe if recipe.data is not None else recipe.but(data="shapes")


def _reporter(as_json: bool) -> Listener:
    from memfit.report.progress import BarReporter, JsonReporter, LineReporter

    if as_json:
        return JsonReporter()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console

        return BarReporter(Console(stderr=True))
    return LineReporter()


def _study_listener() -> StudyListener:
    from memfit.study.reports.progress import StudyBar, StudyLines

    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console

        return StudyBar(Console(stderr=True))
    return StudyLines()


def _working(words: str, work: Callable[[], T]) -> T:
    """Do something that takes a second or two; say so on a terminal's stderr.

    What a user's own model prints meanwhile is a message, too: stdout is for the result.
    """
    with redirect_stdout(sys.stderr):
        if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            return work()
        from rich.console import Console

        with Console(stderr=True).status(f"{words} ..."):
            return work()


def _counting(things: str, work: Callable[[Callable[[int, int], None] | None], T]) -> T:
    """Do something that counts as it goes; draw its progress on a terminal's stderr."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return work(None)
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    speed = TextColumn("{task.fields[speed]}")
    columns = (TextColumn(things), BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(things, total=None, speed="")

        def step(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            words = f"{speed:,.0f} {things}/s" if speed else ""
            bar.update(task, completed=done, total=total, speed=words)

        return work(step)


def _physical_memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on every system
        return None


def _print(render: Callable[[Console], RenderableType]) -> None:
    from rich.console import Console

    from memfit.report.terminal import as_text

    columns = os.environ.get("COLUMNS", "")
    piped_width = None if sys.stdout.isatty() or columns.isdigit() else 100
    console = Console(highlight=False, emoji=False, markup=False, width=piped_width)
    try:
        text = as_text(console, _working("drawing", lambda: render(console)))
    except BrokenPipeError:
        return
    except OSError as error:
        raise _unwritten(error) from None
    _write(text)


def _print_json(content: dict[str, Any]) -> None:
    _write(json.dumps(content, indent=2) + "\n")


def _write(text: str) -> None:
    """To stdout; a reader that went away (``| head``) changes no exit code."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise _unwritten(error) from None


def _unwritten(error: OSError) -> MemfitError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor at the end
    return MemfitError(f"The result cannot be written: {error.strerror}.")


def _help_of(arguments: Sequence[str] | None) -> str:
    """The help that belongs to what was typed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = f" {words[0]}" if words and words[0] in app else ""
    return f"memfit{command} --help"


def _complain(message: str, hint: str | None, code: int, *, is_of_rank: bool | None = None) -> int:
    """Say what is wrong; of torchrun's processes only one does.

    Before they meet, all on a machine fail in the same way, and the first one speaks.
    """
    if is_of_rank is None:
        is_of_rank = os.environ.get("LOCAL_RANK", "0") == "0"
    if not is_of_rank:
        return code
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(hint, file=sys.stderr)
    return code
