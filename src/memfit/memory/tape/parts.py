"""How the parts of memory are shown: order, numbers, names and colours, for text, figures and page.

Everyone is taught four parts, parameters and gradients together being the first. What is named
apart follows them, so that everything adds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from memfit.memory.tape.tape import Part

__all__ = ["ALLOCATED_PARTS", "PARTS", "UNKNOWN", "PartLook"]

#: In a memory snapshot, what nothing tells the part of.
UNKNOWN = "unknown"

#: What an allocation can be: all but what the allocator and the driver keep for themselves.
ALLOCATED_PARTS: tuple[Part, ...] = tuple(p for p in Part if p not in (Part.CACHE, Part.CONTEXT))


@dataclass(frozen=True, slots=True)
class PartLook:
    """How one part is shown.

    Args:
        number: of the four parts everyone is taught, such as ``"1"``; empty for the others.
        name: in English.
        name_zh: in Chinese.
        note: what belongs to it, in a few words; may be empty.
        colour: of figures and of the page, on a light ground.
        dark_colour: of the page, on a dark ground.
        terminal_colour: a name of Rich.
        is_added: it shares the number of the part before it.
    """

    number: str
    name: str
    name_zh: str
    note: str
    colour: str
    dark_colour: str
    terminal_colour: str
    is_added: bool = False

    @property
    def row_head(self) -> tuple[str, str]:
        """Number and name at the head of a table's row: ``("", "+ gradients")``."""
        return ("", f"+ {self.name}") if self.is_added else (self.number, self.name)


#: By part, in the order in which people are taught them. The colours start from Okabe and Ito's
#: palette (2008, "Color Universal Design"); every two differ for people of every colour vision,
#: see ``tests/page/test_colours.py``.
PARTS: Mapping[str, PartLook] = {
    Part.PARAMETERS: PartLook(
        "1", "parameters", "参数", "with buffers", "#0072b2", "#3d9bdc", "blue"),
    Part.GRADIENTS: PartLook(
        "1", "gradients", "梯度", "", "#56b4e9", "#8fd0f5", "blue", is_added=True),
    Part.OPTIMIZER: PartLook(
        "2", "optimizer state", "优化器状态", "", "#cc79a7", "#e9a3c4", "magenta"),
    Part.BATCH: PartLook(
        "3", "data batch", "数据批次", "inputs and labels", "#f0e442", "#fff27a", "cyan"),
    Part.ACTIVATIONS: PartLook(
        "4", "activations", "激活值", "kept for backward", "#e69f00", "#e69f00", "green"),
    Part.TEMPORARIES: PartLook(
        "", "temporaries", "临时张量", "of the running operator", "#009e73", "#2fbf95", "yellow"),
    Part.WORKSPACES: PartLook(
        "", "workspaces", "库工作区", "cuBLAS, cuDNN", "#8c3b00", "#a33a05", "yellow"),
    UNKNOWN: PartLook("", "unknown", "未知", "", "#d55e00", "#d55e00", "red"),
    Part.CACHE: PartLook(
        "", "allocator cache", "分配器缓存", "reserved, holds nothing",
        "#b9c0c9", "#414a55", "bright_black"),
    Part.CONTEXT: PartLook(
        "", "CUDA context", "CUDA 上下文", "outside the allocator",
        "#4d5560", "#6b7686", "bright_black"),
}  # fmt: skip
