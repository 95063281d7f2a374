"""Reading anyone's snapshot: plain values only, whole, and in bounds."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from memfit.errors import DataError
from memfit.memory.snapshot import pickle_machine as snapshot_pickle
from memfit.memory.snapshot.reader import open_snapshot, read_snapshot
from memfit.memory.snapshot.snapshot import Action, SnapshotContent

FRAMES = [{"name": f"f{i}", "filename": f"a{i}.py", "line": i} for i in range(400)]


def sample(events: int = 60) -> dict[str, Any]:
    """As ``_snapshot()`` returns it: frames and empty lists are shared objects."""
    trace = [
        {
            "action": "alloc", "addr": 0x7F1234560000 + 512 * i, "size": 512, "stream": 0,
            "time_us": 1_700_000_000_000_000 + i, "compile_context": "N/A", "user_metadata": "",
            "pool_id": (0, 0), "frames": FRAMES[i % 300 : i % 300 + 80],
        }
        for i in range(events)
    ]  # fmt: skip
    block = {"size": 512, "requested_size": 400, "address": 0x7F1234560000,
             "state": "active_allocated", "frames": trace[0]["frames"]}  # fmt: skip
    segment = {
        "device": 0, "address": 0x7F1234560000, "total_size": 2 << 20, "stream": 0,
        "segment_type": "small", "segment_pool_id": (0, 0), "is_expandable": False,
        "frames": trace[0]["frames"], "blocks": [block],
    }  # fmt: skip
    return {
        "segments": [segment], "device_traces": [trace, []],
        "allocator_settings": {"max_split_size": -1, "roundup_power2_divisions": {"1": 0}},
        "external_annotations": [],
    }  # fmt: skip


def read(raw: bytes) -> SnapshotContent:
    return read_snapshot(io.BytesIO(raw), len(raw))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("writer", [pickle.dumps, pickle._dumps])  # type: ignore[attr-defined]
def test_every_protocol_gives_what_was_written(protocol: int, writer: Any) -> None:
    value = sample(1500)
    content = read(writer(value, protocol))
    trace = content.traces[0]
    wanted = value["device_traces"][0]
    assert list(trace.address) == [entry["addr"] for entry in wanted]
    assert list(trace.time_us) == [entry["time_us"] for entry in wanted]
    assert set(trace.action) == {Action.ALLOC}
    for number, entry in zip(trace.stack, wanted, strict=True):
        names = [frame.name for frame in content.stacks[number]]
        assert names == [frame["name"] for frame in entry["frames"]]
    (segment,) = content.segments
    assert segment.blocks[0].requested_bytes == 400
    assert segment.blocks[0].stack == trace.stack[0]
    assert content.settings["max_split_size"] == -1
    assert [len(t) for t in content.traces] == [1500, 0]


def test_pieces_of_the_file_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = pickle.dumps(sample(300))
    whole = read(raw)
    monkeypatch.setattr(snapshot_pickle, "_PIECE_BYTES", 61)
    assert read(raw) == whole


def test_events_of_pinned_memory_are_not_the_devices() -> None:
    host = [{"action": "alloc", "addr": 64, "size": 8, "stream": 0}]
    value = {"host_traces": host, **sample(5), "host_segments": []}
    assert read(pickle.dumps(value)).traces[0].address[0] == 0x7F1234560000


class Boom:
    def __reduce__(self) -> Any:
        return (os.system, ("touch /tmp/memfit-was-here",))


def reduced(value: object, protocol: int = 4) -> bytes:
    return pickle.dumps({"segments": [], "device_traces": value}, protocol)


#: What a file may ask for, written by hand (opcodes of ``pickletools``).
HOSTILE = {
    "GLOBAL": b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00id\x85R.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
    "REDUCE": b"\x80\x02]X\x02\x00\x00\x00id\x85R.",
    "BUILD": b"\x80\x02}}b.",
    "INST": b"\x80\x02(X\x02\x00\x00\x00idios\nsystem\n.",
    "OBJ": b"\x80\x02(X\x02\x00\x00\x00ido.",
    "NEWOBJ": b"\x80\x02])\x81.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": b"\x80\x02Pabc\n.",
    "BINPERSID": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "a call inside": reduced([Boom()]),
    "a call inside, protocol 2": reduced([Boom()], 2),
    "a set": reduced({1, 2}),
    "bytes": reduced(b"abc"),
    "a numpy array": reduced(__import__("numpy").zeros(3)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_asks_for_more_than_plain_values_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"asks for .*plain values only \(byte [\d,]+\)") as error:
        read(HOSTILE[name])
    assert not Path("/tmp/memfit-was-here").exists()
    if "GLOBAL" in name or name.startswith("a call"):
        assert "system" in error.value.message
    assert "Nothing was run" in str(error.value.hint)


def test_every_opcode_is_read_or_refused() -> None:
    for opcode in pickletools.opcodes:
        for arguments in (b"", b"\x00" * 12):
            with pytest.raises(DataError):
                read(b"\x80\x04" + opcode.code.encode("latin-1") + arguments)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PK\x03\x04", "torch.save"),
        (b"\x80\x02\x8a\nl\xfc\x9cF", "torch.save"),
        (b'{"a": 1}', "JSON"),
        (b"hello", "no pickle"),
        (b"\x80\x09N.", "protocol 9"),
        (b"\x80\x04N.", "no dict"),
        (b"\x80\x04}.", "neither segments"),
        (b"\x80\x04\x8c\xffab", "claims 255 bytes and has 2"),
        (b"\x80\x04X\xff\xff\xff\xffab", "text of 4,294,967,295"),
        (b"\x80\x04h\x07.", "before that exists"),
        (b"\x80\x04" + b"(" * 200, "nests deeper"),
        (b"\x80\x04\x8a\x20" + b"\x01" * 32, "number of 32 bytes"),
        (pickle.dumps({"segments": [3], "device_traces": []}), "no segment"),
        (pickle.dumps({"segments": [], "device_traces": [[3]]}), "no event"),
    ],
)
def test_what_is_no_snapshot_says_why(raw: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(raw)


def test_numbers_out_of_range_are_refused() -> None:
    for key, number in (("size", -1), ("size", 1 << 63), ("addr", 1 << 64), ("size", "x")):
        value = sample(1)
        value["device_traces"][0][0][key] = number
        with pytest.raises(DataError):
            read(pickle.dumps(value))


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_truncated_file_is_refused_wherever_it_ends(protocol: int) -> None:
    raw = pickle.dumps(sample(30), protocol)
    for end in range(0, len(raw) - 1, 97):
        with pytest.raises(DataError):
            read(raw[:end])


def test_a_damaged_file_is_an_error_and_nothing_else() -> None:
    raw = pickle.dumps(sample(8))
    for at in range(3, len(raw), 13):
        for value in (0, 0x80, 0xFF, ord("("), ord("e")):
            try:
                read(raw[:at] + bytes([value]) + raw[at + 1 :])
            except DataError:
                continue


def test_a_list_cannot_be_named_twice() -> None:
    inner: list[Any] = [1]
    for _ in range(40):
        inner = [inner, inner]
    with pytest.raises(DataError, match="two places"):
        read(pickle.dumps({"segments": inner, "device_traces": []}))
    value = sample(3)
    value["segments"] *= 2
    with pytest.raises(DataError, match="two places"):
        read(pickle.dumps(value))
    value = sample(3)
    value["device_traces"][0] *= 2
    with pytest.raises(DataError, match="two places"):
        read(pickle.dumps(value))


def test_tuples_cannot_be_doubled() -> None:
    pair: Any = (1,)
    for _ in range(60):
        pair = (pair, pair)
    with pytest.raises(DataError, match="tuple"):
        read(pickle.dumps({"segments": pair}))


@pytest.mark.parametrize(
    ("limit", "body"),
    [
        ("MAX_HELD_CONTAINERS", b"]" * 5000),
        ("MAX_STACK", b"N" * 5000),
        ("MAX_MEMO", b"N" + b"\x94" * 5000),
        ("MAX_HELD_ITEMS", b"]" + b"(" + b"N" * 3000 + b"e" + b"(" + b"N" * 3000 + b"e"),
        ("MAX_TEXT_BYTES", b"".join(b"\x8c\x02" + struct.pack("<H", i) for i in range(2000))),
    ],
)
def test_a_file_can_make_it_hold_only_so_much(
    limit: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_pickle, limit, 4000)
    with pytest.raises(DataError, match=r"than any snapshot|too many values"):
        read(b"\x80\x04" + body + b".")


def test_deep_nesting_is_an_error() -> None:
    raw = b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b"."
    with pytest.raises(DataError):
        read(raw)


def test_progress_counts_up_and_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.pickle"
    path.write_bytes(pickle.dumps(sample(20)))
    told: list[tuple[int, int]] = []
    open_snapshot(path, lambda done, total: told.append((done, total)))
    assert told
    assert all(0 <= done <= total for done, total in told)
    with pytest.raises(DataError, match=r"none\.pickle cannot be read"):
        open_snapshot(tmp_path / "none.pickle")
    with pytest.raises(DataError, match="cannot be read"):
        open_snapshot(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes of POSIX")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="no file on a disk"):
        open_snapshot(tmp_path / "pipe")
