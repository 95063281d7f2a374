"""Blocks and results of a kernel come onto the tape in the order of its scopes."""

import torch

from memfit.memory.kernels.facts import DeviceFacts
from memfit.memory.kernels.scope import Copy, Held, Result
from memfit.memory.kernels.sizes import KernelSizes
from memfit.memory.kernels.transients import KernelMemory, Transients
from memfit.memory.recording.recorder import Recorder
from memfit.memory.tape.tape import Part, Phase

A100 = DeviceFacts((8, 0), 108, torch_version=(2, 15))
aten = torch.ops.aten


def recorded(scope, run):
    """Signed bytes of what a run puts on the tape, when every kernel has this scope."""

    def transients(func, args, result, phase):
        return KernelMemory(scope, Part.TEMPORARIES, KernelSizes(str(func), (), (), A100))

    recorder = Recorder("meta", transients)
    with recorder:
        kept = run()  # noqa: F841  alive until the tape is read
        tape = recorder.tape()
    sizes = tape.sizes_bytes
    return [sizes[event] if event >= 0 else -sizes[~event] for event in tape.events]


def test_a_scope_frees_its_blocks_when_it_ends():
    scope = (1, Result(0), (2, 3), Result(1), (4,))
    events = recorded(scope, lambda: torch.ones(8, device="meta").max(dim=0))
    of_ones, of_max = events[:10], events[10:]
    assert of_ones == [1, 32, 2, 3, -3, -2, 4, -4, -1, 1]
    assert of_max == [4, 2, 3, -3, -2, 8, 4, -4, -1, -32]


def test_results_without_a_place_are_made_first():
    events = recorded((1, Result(1), 2), lambda: torch.ones((), device="meta").max(dim=0))
    assert events[5:] == [4, 1, 8, 2, -2, -1, -4]


def test_a_copy_that_is_not_made_has_no_place_but_a_block_of_no_bytes_has():
    run = lambda: torch.ones(8, device="meta")  # noqa: E731
    assert recorded((Copy(0), 0, Held("cublas", 7)), run) == [32, 0, 7, 0]


def test_a_held_workspace_is_taken_once_for_each_thread():
    transients = Transients(DeviceFacts((8, 0), 108, torch_version=(2, 13)))
    matrix = torch.ones(8, 8, device="meta")

    def holds(phase):
        memory = transients(aten.mm.default, (matrix, matrix), matrix, phase)
        return [item for item in memory.scope if isinstance(item, Held)]

    assert holds(Phase.FORWARD) == [Held("cublas", 8_519_680)]
    assert holds(Phase.FORWARD) == []
    assert holds(Phase.BACKWARD) == [Held("cublas", 8_519_680)]
    assert holds(Phase.OPTIMIZER) == []


def test_every_block_is_asked_again_for_another_batch():
    arguments = (torch.ones(4, 10, 3, device="meta").transpose(1, 2), [0], True)
    memory = Transients(A100)(aten.sum.dim_IntList, arguments, torch.ones(1, 3, 10), Phase.FORWARD)
    rules = list(memory.rules())
    rows = lambda count: [count, 3, 10, 30, 1, 3, 0, 1, 3, 10, 30, 10, 1]  # noqa: E731
    assert list(rules[0].numbers) == rows(4)
    assert [rule.size_bytes(rows(4)) for rule in rules] == [0, 0]
    assert all(rule.size_bytes(rows(1 << 16)) > 0 for rule in rules)
