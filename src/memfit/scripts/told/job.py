"""What to run, and how far."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from memfit.errors import UsageError
from memfit.scripts.told.knob import Knob, KnobKind, find_flag, is_template, with_batch

__all__ = ["CARD_VARIABLE", "EngineName", "FakeData", "ScriptJob"]

EngineName = Literal["pytorch", "meta"]
#: The variable in which a process with meta tensors finds its card, as JSON.
CARD_VARIABLE = "MEMFIT_META_CARD"


@dataclass(frozen=True, slots=True)
class FakeData:
    """Images that stand in for a data set that is not there.

    Args:
        shape: (channels, height, width) of an image; the data set's usual one when None.
        classes: how many; the data set's usual number when None.
        length: how many images.
    """

    shape: tuple[int, int, int] | None = None
    classes: int | None = None
    length: int = 10_000


@dataclass(frozen=True)
class ScriptJob:
    """A script with its arguments, and how far it is run.

    Args:
        script: path of a file, or a module's name.
        arguments: the script's own.
        folder: the working folder.
        is_module: run as ``python -m`` does.
        batch: samples that the knob is set to; as the script has it when None.
        loaders: numbers of the data loaders whose batch is meant, where the arguments have none.
        steps: optimizer steps after which it ends; when two look alike if None.
        most_steps: the end where no two look alike.
        evaluation_batches: after so many of one loader an evaluation has seen enough.
        limit_seconds: the end where there are no steps.
        after_seconds: what evaluation and saving may take after the last step.
        is_recorded: the tape is part of the answer.
        is_benchmark_off: ``torch.backends.cudnn.benchmark`` stays off, whatever the script says.
        ranks: how many the script is one of, as ``torchrun`` would start it; alone when None.
        fake_data: stands in for data sets that are not there; none does when None.
        protection: ``"python"`` tries no namespaces.
        engine: what plays the card: PyTorch itself behind the stubs, or meta tensors.
    """

    script: str
    arguments: tuple[str, ...] = ()
    folder: str = "."
    is_module: bool = False
    batch: int | None = None
    loaders: tuple[int, ...] = ()
    steps: int | None = None
    most_steps: int = 12
    evaluation_batches: int = 3
    limit_seconds: float = 300.0
    after_seconds: float = 20.0
    is_recorded: bool = True
    is_benchmark_off: bool = False
    ranks: int | None = None
    fake_data: FakeData | None = None
    protection: Literal["auto", "python"] = "auto"
    engine: EngineName = "pytorch"

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments that the script is given, the batch in them.

        Raises:
            UsageError: they say ``{batch}`` and no batch is given.
        """
        if self.batch is not None:
            return with_batch(self.arguments, self.batch)
        if is_template(self.arguments):
            raise UsageError("The arguments say {batch}; which batch is meant?")
        return self.arguments

    @property
    def knob_in_arguments(self) -> Knob | None:
        """What in the arguments sets the batch; None where nothing does."""
        if is_template(self.arguments):
            return Knob(KnobKind.TEMPLATE, "{batch}", self.batch)
        flag = find_flag(self.words)
        return None if flag is None else Knob(KnobKind.FLAG, flag.name, flag.batch)

    def at(self, batch: int, knob: Knob) -> ScriptJob:
        """The same at another batch.

        Args:
            batch: samples.
            knob: as the answer to a first run names it.

        Raises:
            UsageError: there is no knob.
        """
        if knob.kind is KnobKind.NONE:
            raise UsageError(
                "Nothing is known that sets the script's batch.",
                hint="Write {batch} where its arguments or options want the number.",
            )
        return replace(self, batch=batch, loaders=knob.loaders)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the process."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> ScriptJob:
        """What :meth:`to_dict` wrote."""
        fake = values["fake_data"]
        lists = {name: tuple(values[name]) for name in ("arguments", "loaders")}
        if fake is not None:
            shape = fake["shape"]
            fake = FakeData(**fake | {"shape": None if shape is None else tuple(shape)})
        return cls(**values | lists | {"fake_data": fake})
