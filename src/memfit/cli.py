"""The command line: parse, call, print, exit code. No logic lives here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Env

from memfit.commands.data import data
from memfit.commands.evaluate import evaluate
from memfit.commands.explain import explain
from memfit.commands.export import export
from memfit.commands.gpus import gpus
from memfit.commands.measure import measure
from memfit.commands.model import model
from memfit.commands.noise import noise
from memfit.commands.plan import plan
from memfit.commands.predict import predict
from memfit.commands.run import run, separated
from memfit.commands.serve import serve
from memfit.commands.study import study
from memfit.commands.train import train
from memfit.commands.watch import watch
from memfit.errors import ExitCode, MemfitError
from memfit.files.names import clean
from memfit.version import __version__

__all__ = ["COMMANDS", "app", "main"]

app = App(
    name="memfit",
    help="Where every byte of GPU memory goes when you train, before anything runs on a GPU.\n\n"
    "Every option can come from the environment, such as MEMFIT_GPU for --gpu.\n\n"
    "--help-all behind a command lists also what is rarely needed.",
    version=__version__,
    config=Env("MEMFIT_", command=False),
    default_parameter=Parameter(show_env_var=False),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)

_HELP_ALL = "--help-all"

#: In the order in which people meet them.
COMMANDS = (
    plan, run, model, data, train, predict, evaluate, export, study, noise, serve, explain, watch,
    measure, gpus,
)  # fmt: skip

for command in COMMANDS:
    app.command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; the process's own when omitted.

    Returns:
        The exit code, see :class:`memfit.errors.ExitCode`.
    """
    if sys.stdout is None:  # closed by the caller: nobody reads the result
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["run"]:
        words = ["run", *separated(words[1:], app["run"].assemble_argument_collection())]
    try:
        result = app(_with_help(words), exit_on_error=False, print_error=False)
    except MemfitError as error:
        return _complain(error.message, error.hint, error.exit_code, is_of_rank=error.is_of_rank)
    except CycloptsError as error:
        return _complain(str(error), f"{_help_of(words)} lists what there is.", ExitCode.USAGE)
    except KeyboardInterrupt:
        return 130
    return int(result or ExitCode.OK)


def _with_help(words: list[str]) -> list[str]:
    """What cyclopts is asked for: ``--help`` leaves out what the table calls rare."""
    own = words[: words.index("--")] if "--" in words else words
    if _HELP_ALL in own:
        app.help_formatter = None
        return [*[word for word in own if word != _HELP_ALL][:1], "--help"]
    if "--help" in own or "-h" in own:
        from memfit.commands.shared.help import Help  # rich takes a moment

        app.help_formatter = Help()
    return words


def _help_of(words: Sequence[str]) -> str:
    """The help that belongs to what was typed."""
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
    for text in (f"error: {message}", hint):
        if text:
            print("\n".join(clean(line) for line in text.split("\n")), file=sys.stderr)
    return code
