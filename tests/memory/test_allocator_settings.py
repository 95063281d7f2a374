from __future__ import annotations

import pytest

from memfit.errors import UnknownName, UsageError
from memfit.memory.allocator.settings import WITHOUT_EFFECT, AllocatorSettings

MIB = 1024**2


def test_all_options() -> None:
    text = (
        "expandable_segments:True,max_split_size_mb:128,max_non_split_rounding_mb:64,"
        "roundup_power2_divisions:[256:1,512:2,>:4],garbage_collection_threshold:0.8,"
        "large_segment_size_mb:32,per_process_memory_fraction:0.9"
    )
    assert AllocatorSettings.parse(text) == AllocatorSettings(
        expandable_segments=True,
        max_split_size_bytes=128 * MIB,
        roundup_power2_divisions=((256, 1), (512, 2), (None, 4)),
        garbage_collection_threshold=0.8,
        large_segment_size_bytes=32 * MIB,
        per_process_memory_fraction=0.9,
        max_non_split_rounding_bytes=64 * MIB,
    )


@pytest.mark.parametrize("text", ["", " ", "backend:native", "throw_on_cudamalloc_oom:False"])
def test_defaults(text: str) -> None:
    assert AllocatorSettings.parse(text) == AllocatorSettings()


def test_options_without_effect_are_accepted_and_dropped() -> None:
    text = ",".join(f"{name}:1" for name in sorted(WITHOUT_EFFECT))
    assert AllocatorSettings.parse(text) == AllocatorSettings()


@pytest.mark.parametrize(
    "text",
    [
        " max_split_size_mb : 64 , expandable_segments : True ",
        "expandable_segments:True,max_split_size_mb:64,",  # torch takes a last comma
        "max_split_size_mb:32,max_split_size_mb:64,expandable_segments:True",  # the last one wins
    ],
)
def test_what_torch_reads_the_same(text: str) -> None:
    expected = AllocatorSettings(expandable_segments=True, max_split_size_bytes=64 * MIB)
    assert AllocatorSettings.parse(text) == expected


def test_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        AllocatorSettings.parse("expandable_segment:True")
    assert "expandable_segments" in caught.value.nearest
    assert "expandable_segments" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "expandable_segments",
        "expandable_segments:",
        ",expandable_segments:True",
        "max_split_size_mb:64,,expandable_segments:True",
        "expandable_segments:true",
        "expandable_segments:True;max_split_size_mb:64",
        "max_split_size_mb:19",
        "max_split_size_mb:20,large_segment_size_mb:64",
        "max_split_size_mb:64MB",
        "max_split_size_mb:-64",
        "max_non_split_rounding_mb:19",
        "large_segment_size_mb:10",
        "garbage_collection_threshold:0",
        "garbage_collection_threshold:1",
        "garbage_collection_threshold:x",
        "per_process_memory_fraction:1.5",
        "per_process_memory_fraction:nan",
        "roundup_power2_divisions:0",
        "roundup_power2_divisions:3",
        "roundup_power2_divisions:[256:3]",
        "roundup_power2_divisions:[255:4]",
        "roundup_power2_divisions:[256]",
        "roundup_power2_divisions:[256:4",
        "backend:cudaMallocAsync",
        "throw_on_cudamalloc_oom:True",
        "expandable_segments_reserve:0.5",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(UsageError):
        AllocatorSettings.parse(text)


def test_a_refusal_says_what_to_write() -> None:
    with pytest.raises(UsageError) as caught:
        AllocatorSettings.parse("max_split_size_mb:64MB")
    assert "max_split_size_mb" in caught.value.message
    assert "'64MB'" in caught.value.message
    assert caught.value.hint == "Write a whole number of MiB, such as 128."


@pytest.mark.parametrize("field", ["max_split_size_bytes", "large_segment_size_bytes"])
def test_sizes_are_whole_mebibytes(field: str) -> None:
    with pytest.raises(UsageError, match="whole"):
        AllocatorSettings(**{field: 64 * MIB + 512})


@pytest.mark.parametrize(
    ("text", "divisions"),
    [
        # Expected values of allocator_config_test in pytorch's
        # c10/test/core/AllocatorConfig_test.cpp, by the logarithm of the size in MiB.
        (
            "[64:8,128:2,256:4,512:2,1024:4,>:1]",
            {5: 8, 6: 8, 7: 2, 8: 4, 9: 2, 10: 4, 11: 1, 12: 1, 13: 1},
        ),
        ("[128:8,256:16,512:1,2048:8,>:2]", {6: 8, 7: 8, 8: 16, 9: 1, 10: 0, 11: 8, 12: 2}),
        ("4", {6: 4, 8: 4, 11: 4}),
        ("[>:2]", {0: 0, 1: 2, 15: 2}),
        ("[1048576:4]", {14: 4, 15: 4}),
        ("[]", {0: 0, 15: 0}),
    ],
)
def test_divisions_by_interval(text: str, divisions: dict[int, int]) -> None:
    table = AllocatorSettings.parse(f"roundup_power2_divisions:{text}").divisions_by_interval()
    assert table is not None
    assert {interval: table[interval] for interval in divisions} == divisions


def test_no_divisions() -> None:
    assert AllocatorSettings().divisions_by_interval() is None
