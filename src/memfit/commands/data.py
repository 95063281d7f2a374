"""``memfit data``: what images really are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from memfit.commands.shared.flags import DataFlags, JsonFlag, OnOff, Switch, Whole
from memfit.commands.shared.output import counting, show, show_json
from memfit.errors import ExitCode, UsageError
from memfit.files.output_path import check_figure_path
from memfit.recipe.fields import FIELDS

__all__ = ["data"]


def data(
    source: str,
    *,
    root: Path | None = None,
    flags: DataFlags | None = None,
    download: Switch = False,
    batch_size: Whole = None,
    max_pixels: Whole = None,
    figure: Path | None = None,
    force: Switch = False,
    preview: OnOff = True,
    strict: Switch = False,
    as_json: JsonFlag = False,
) -> int:
    """What these images really are, what the loader will deliver, and the numbers to use.

    Parameters
    ----------
    source:
        mnist, fashion-mnist, cifar10, cifar100, shapes (or shapes,size=48,channels=1,classes=6,
        train=4000,test=1000,seed=0), or a path: a folder or an archive (.zip, .tar) of images, of a
        folder for each class (with or without train and test) or of images beside masks; a table
        (.csv, .jsonl, .parquet) of paths or pixels and labels; IDX files, CIFAR pickles, an .npz,
        or one image; or a Dataset of your own: my_data.py:make.
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
    for name, number in (("--batch-size", batch_size), ("--max-pixels", max_pixels)):
        if number is not None and number < 1:
            raise UsageError(f"{name} is {number}; it must be 1 or more.")
    if figure is not None:
        check_figure_path(figure, force=force)

    from memfit.data.facts.inspection import inspect_dataset
    from memfit.data.images.decode import MAX_PIXELS
    from memfit.data.sets.opening import open_dataset

    limit, size = max_pixels or MAX_PIXELS, batch_size or 64
    given = (flags or DataFlags()).given()
    reading = {name: FIELDS[name].checked(value) for name, value in given.items()}
    opened = open_dataset(source, root=root, download=download, **reading)
    if figure is not None and figure.exists() and opened.holds(figure):
        raise UsageError(f"{figure} is one of the images: it is not overwritten.")
    found = counting(
        "images", lambda step: inspect_dataset(opened, max_pixels=limit, progress=step)
    )
    if figure is not None:
        from memfit.report.figures import samples_figure

        samples_figure(opened, found, figure, force=force, max_pixels=limit)
        print(f"wrote {figure}", file=sys.stderr)
    if as_json:
        show_json(found.to_dict(size))
    else:
        from memfit.report.data.inspection import render_inspection
        from memfit.report.data.preview import preview as preview_of

        show(
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


def _physical_memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on every system
        return None
