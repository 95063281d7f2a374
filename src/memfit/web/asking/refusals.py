"""Answers that say no: an HTTP status, what is wrong and what to try."""

from __future__ import annotations

from memfit.errors import MemfitError

__all__ = ["Busy", "JobFailed", "JobTooLong", "Refusal", "WorkerEnded"]


class Refusal(MemfitError):
    """A request that gets no answer.

    Args:
        status: of HTTP.
        message: what is wrong.
        hint: what to try.
    """

    def __init__(self, status: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status

    def to_dict(self) -> dict[str, dict[str, str]]:
        """As the page reads it."""
        return {"error": {"message": self.message, "hint": self.hint or ""}}


class JobFailed(Refusal):
    """The worker says what is wrong with the question."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(422, message, hint=hint)


class Busy(Refusal):
    """All workers are at work, and enough others wait."""

    def __init__(self) -> None:
        super().__init__(503, "All workers are busy.", hint="Try again in a few seconds.")


class JobTooLong(Refusal):
    """The job took longer than it may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            408,
            f"This took longer than {seconds:g} seconds and was stopped.",
            hint="Choose a smaller model or input, or start memfit serve with a longer --timeout.",
        )


class WorkerEnded(Refusal):
    """The process that worked on it ended; another one takes its place."""

    def __init__(self, exit_code: int | None) -> None:
        how = "" if exit_code is None else f" (exit code {exit_code})"
        super().__init__(
            503,
            f"The process that worked on this ended unexpectedly{how}.",
            hint="Try again; if it ends again, this machine may be out of memory.",
        )
