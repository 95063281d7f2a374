from __future__ import annotations

from dataclasses import replace

import pytest

from memfit.study.science.recommendation import Candidate, recommend, sample_efficiency

SPEED = {16: 1000.0, 32: 1800.0, 64: 3000.0, 128: 4000.0, 256: 4200.0, 512: 4300.0}


def candidates(micro: int | None = None) -> list[Candidate]:
    return [
        Candidate(b, s, (0.99 * s, s, 1.01 * s), 0.1, b if micro is None else min(b, micro))
        for b, s in SPEED.items()
    ]


def test_goodput_is_progress_per_second() -> None:
    """Samples/s times sample efficiency, and steps/s times step efficiency, differ by B_crit."""
    critical = 100.0
    found = recommend(candidates(), (critical, 90.0, 110.0), "a fit", knee=256)
    assert found is not None
    for batch, goodput in found.goodput.items():
        steps_per_second, step_efficiency = SPEED[batch] / batch, 1 / (1 + critical / batch)
        assert goodput == pytest.approx(critical * steps_per_second * step_efficiency)
    assert found.global_batch == min(
        b for b, g in found.goodput.items() if g >= 0.95 * max(found.goodput.values())
    )
    assert found.sureness == "clear"


def test_a_large_critical_batch_makes_large_batches_good() -> None:
    small = recommend(candidates(), (2.0, 1.9, 2.1), "", knee=256)
    large = recommend(candidates(), (1e5, 9e4, 1.1e5), "", knee=256)
    assert small is not None
    assert large is not None
    assert small.global_batch < large.global_batch
    assert any("smallest batch that was tried" in change for change in small.changes)
    assert large.global_batch == 256  # within 5 % of 512, and smaller
    assert sample_efficiency(1, 1e9) == pytest.approx(1)


def test_memory_is_a_ceiling_of_the_micro_batch_only() -> None:
    found = recommend(candidates(micro=32), (1e5, 9e4, 1.1e5), "", knee=256)
    assert found is not None
    assert (found.global_batch, found.micro_batch, found.accumulation) == (256, 32, 8)


def test_a_wide_interval_cannot_tell() -> None:
    found = recommend(candidates(), (100.0, 2.0, 5000.0), "", knee=256)
    assert found is not None
    assert found.sureness == "cannot tell"
    assert found.changes


def test_what_slows_all_sizes_alike_changes_nothing() -> None:
    slowed = [replace(c, rounds=(c.rounds[0], 0.3 * c.rounds[1])) for c in candidates()]
    steady = [replace(c, rounds=c.rounds[:1] * 2) for c in candidates()]
    critical = (100.0, 90.0, 110.0)
    shares = [recommend(some, critical, "", knee=256) for some in (slowed, steady)]
    assert shares[0] is not None
    assert shares[1] is not None
    assert shares[0].share == pytest.approx(shares[1].share, abs=0.05)


def test_theory_alone_is_never_clear() -> None:
    critical = (100.0, 99.0, 101.0)
    measured, told = (
        recommend(candidates(), critical, "", is_direct=direct, knee=256)
        for direct in (True, False)
    )
    assert measured is not None
    assert told is not None
    assert (measured.sureness, told.sureness) == ("clear", "likely")


def test_without_a_critical_batch_the_data_cannot_tell() -> None:
    found = recommend(candidates(), None, "nothing", knee=128)
    assert found is not None
    assert (found.sureness, found.global_batch, found.goodput) == ("cannot tell", 128, {})
    assert "cannot tell" in found.reasons[0]
    timed = [replace(c, seconds_to_goal=1000.0 / c.batch_size) for c in candidates()]
    found = recommend(timed, None, "nothing", knee=128)
    assert found is not None
    assert found.global_batch == 512


def test_what_failed_is_left_out_and_named() -> None:
    some = [replace(c, learning_rate=None) for c in candidates()[:2]]
    some += [replace(c, micro_batch=None) for c in candidates()[2:3]]
    some += [replace(c, is_able=False) for c in candidates()[3:4]]
    found = recommend([*some, *candidates()[4:]], (100.0, 90.0, 110.0), "", knee=256)
    assert found is not None
    assert found.global_batch == 256
    text = " ".join(found.reasons)
    assert "Batch 16 trained at no" in text
    assert "Batch 64 does not fit" in text
    assert "Batch 128 did not reach" in text
    assert recommend(some, (100.0, 90.0, 110.0), "", knee=None) is None
