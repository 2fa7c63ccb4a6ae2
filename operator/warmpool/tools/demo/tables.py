"""Tables as kubectl prints them, taken apart and put together again. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Rows = Sequence[Sequence[str]]

GAPS: Final = (3, 2)
"""Spaces between columns: kubectl's own, and what a narrow terminal gets."""


def cells(table: str) -> list[list[str]]:
    """A table of kubectl's as cells, by the columns of its header; a cell may be empty."""
    lines = table.splitlines()
    header = lines[0]
    starts = [0, *(n for n in range(1, len(header)) if header[n - 1] == " " != header[n])]
    ends = [*starts[1:], None]
    return [[line[a:b].strip() for a, b in zip(starts, ends, strict=True)] for line in lines]


def widths(rows: Rows) -> list[int]:
    """How wide each column must be."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns of fixed widths. Those at the right that do not fit are left out whole."""

    widths: tuple[int, ...]
    gap: int

    @classmethod
    def fitting(cls, wanted: Sequence[int], room: int) -> "Layout":
        """As many of the columns as there is room for, and at least one."""
        for gap in GAPS:
            if sum(wanted) + gap * (len(wanted) - 1) <= room:
                return cls(tuple(wanted), gap)
        kept = len(wanted)
        while kept > 1 and sum(wanted[:kept]) + GAPS[-1] * (kept - 1) > room:
            kept -= 1
        return cls(tuple(wanted[:kept]), GAPS[-1])

    def line(self, row: Sequence[str]) -> str:
        """One row."""
        padded = (cell.ljust(width) for cell, width in zip(row, self.widths, strict=False))
        return (" " * self.gap).join(padded).rstrip()
