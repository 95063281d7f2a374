from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memfit.measure.limit import largest_batch

bounds = st.integers(0, 1 << 24)


@given(st.integers(0, 1 << 24), bounds, st.integers(-5, 1 << 25))
def test_it_is_the_largest_that_holds(limit: int, bound: int, guess: int) -> None:
    asked: list[int] = []

    def holds(batch: int) -> bool:
        asked.append(batch)
        return batch <= limit

    assert largest_batch(holds, bound, guess) == min(limit, bound)
    assert all(1 <= batch <= bound for batch in asked)
    assert len(asked) <= 2 * 24 + 2


@given(st.integers(64, 10**6), st.floats(-0.02, 0.02))
def test_a_close_guess_needs_few_questions(limit: int, off: float) -> None:
    def questions(guess: int) -> int:
        asked: list[int] = []
        largest_batch(lambda batch: asked.append(batch) or batch <= limit, 1 << 24, guess)  # type: ignore[func-returns-value]
        return len(asked)

    assert questions(round(limit * (1 + off))) < questions(1)


def test_nothing_fits() -> None:
    assert largest_batch(lambda _: False, 1000) == 0
    assert largest_batch(lambda _: True, 0) == 0
