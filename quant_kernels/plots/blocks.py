"""The picture of a block's bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, groupby

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from quant_kernels.formats.bit_owners import bit_owners
from quant_kernels.formats.bits import from_half_bytes
from quant_kernels.formats.block import QType
from quant_kernels.qtypes import known

from .style import COLOURS, GREY, INK, dress, new_axes, tint

A_ROW = 16  # bytes
BYTE = 9  # its width: 8 bits and a gap
HEIGHT = 0.24  # inches of a row
LEFT = -34  # where the column of names begins, in bits
PLAIN = (0.3, 0.42)  # how strong the colour is, in turns, of what belongs together
ZERO, ONE = 0.22, 0.7
KEY = "n: code of weight n    s, m: scale, minimum of a sub-block"


@dataclass(frozen=True)
class Line:
    """A row of the picture: some bytes of a field."""

    field: str
    start: int
    stop: int
    colour: str


def block_bits(qtype: str, data: torch.Tensor | None = None, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draws every bit of a block, a row or more for each field of the struct, and writes on it whose it is.

    Bytes run from left to right, and so do their bits from 7 to 0. A number is the weight whose code the bits hold; s
    and m with a number are the scale and the minimum of a sub-block.
    data: the (type_size,) uint8 bytes of one block: bits that are 1 are strong then, and fp16 fields show their value.
    Raises ValueError for an unknown format, and data of another size or type.
    """
    layout = known(qtype)
    if data is not None and (data.dtype != torch.uint8 or data.shape != (layout.type_size,)):
        raise ValueError(f"data is {data.dtype} of shape {tuple(data.shape)}, not uint8 of ({layout.type_size},)")
    lines, owners = _lines(layout), _owners(layout)
    bits = None if data is None else np.unpackbits(data.cpu().numpy())
    ax = new_axes(ax, height=0.7 + HEIGHT * len(lines))
    for y, line in enumerate(lines):
        part = slice(8 * line.start, 8 * line.stop)
        _draw_bytes(ax, y, owners[part], None if bits is None else bits[part], line.colour)
        _write(ax, -1.5, y + 0.5, line.start, "right", 7)
    _write_heads(ax, KEY if data is None else f"{KEY}    strong: 1, pale: 0")
    _name_fields(ax, layout, lines, data)
    ax.set(xlim=(LEFT, BYTE * A_ROW), ylim=(len(lines) + 0.1, -1), xticks=[], yticks=[])
    size = f"{layout.block_size} weights in {layout.type_size} bytes, {layout.bits_per_weight:g} bits per weight"
    dress(ax, title or f"{layout.name}: {size}", "", "", grid=False, frame=False)
    return ax


def _lines(layout: QType) -> list[Line]:
    lines, start = [], 0
    for (field, n_bytes), colour in zip(layout.fields.items(), cycle(COLOURS), strict=False):
        stop = start + n_bytes
        lines += [Line(field, first, min(first + A_ROW, stop), colour) for first in range(start, stop, A_ROW)]
        start = stop
    return lines


def _owners(layout: QType) -> list[str]:
    """As `bit_owners`, but for fp16 numbers, which are named beside their bits."""
    fields = [field for field, n_bytes in layout.fields.items() for _ in range(8 * n_bytes)]
    return ["" if field in layout.scales else owner for field, owner in zip(fields, bit_owners(layout), strict=True)]


def _draw_bytes(ax: Axes, y: int, owners: Sequence[str], bits: Sequence[int] | None, colour: str) -> None:
    """A row of bytes. What belongs together is parted from the rest by a gap."""
    cells, shades = [], []
    for byte in range(len(owners) // 8):
        groups = [list(group) for _, group in groupby(range(8), key=lambda bit: owners[8 * byte + bit])]
        for turn, group in enumerate(groups):
            for bit in group:
                left = BYTE * byte + bit
                cells.append(_cell(left + 0.12 * (bit == group[0]), left + 1 - 0.12 * (bit == group[-1]), y))
                shade = PLAIN[turn % 2] if bits is None else (ZERO, ONE)[bits[8 * byte + bit]]
                shades.append(tint(colour, shade))
        _name_bits(ax, BYTE * byte, y + 0.52, groups, owners[8 * byte : 8 * byte + 8])
    ax.add_collection(PolyCollection(cells, facecolors=shades, edgecolors="white", linewidths=0.15))


def _cell(left: float, right: float, y: float) -> list[tuple[float, float]]:
    return [(left, y + 0.06), (right, y + 0.06), (right, y + 0.94), (left, y + 0.94)]


def _name_bits(ax: Axes, left: float, y: float, groups: list[list[int]], owners: Sequence[str]) -> None:
    """The owners of a byte's bits: upright where two bits have to do, the first and the last where each bit has one."""
    look = {"ha": "center", "va": "center", "color": INK, "in_layout": False}
    if len(groups) == 8:
        ax.text(left + 4, y, f"{owners[0]}–{owners[7]}", fontsize=5.5, **look)
        return
    for group in groups:
        narrow = {"rotation": 90, "fontsize": 5.5} if len(group) == 2 else {"fontsize": 6}
        ax.text(left + group[0] + len(group) / 2, y, owners[group[0]], **narrow, **look)


def _write_heads(ax: Axes, key: str) -> None:
    for x, text, side in ((LEFT, "field", "left"), (-10, "bits/weight", "right"), (-1.5, "byte", "right")):
        _write(ax, x, -0.45, text, side, 7)
    for x, text, side in ((0.5, "7", "center"), (7.5, "0", "center"), (BYTE * A_ROW - 1, key, "right")):
        _write(ax, x, -0.45, text, side, 7)


def _name_fields(ax: Axes, layout: QType, lines: list[Line], data: torch.Tensor | None) -> None:
    """The name of each field, its share of the bits per weight, and what it holds if that is an fp16 number."""
    values = {} if data is None else dict(zip(layout.fields, layout.split(data[None]), strict=True))
    y = 0.0
    for field, group in groupby(lines, key=lambda line: line.field):
        rows = list(group)
        middle, n_bytes = y + len(rows) / 2, layout.fields[field]
        ax.text(LEFT, middle, field, va="center", color=rows[0].colour, fontsize=10, fontweight="bold")
        _write(ax, -10, middle, f"{8 * n_bytes / layout.block_size:.3g}", "right", 8)
        if field in layout.scales:
            value = f": {from_half_bytes(values[field]).item():.4g}" if values else ""
            _write(ax, BYTE * n_bytes + 1, middle, f"fp16{value}", "left", 8)
        y += len(rows)


def _write(ax: Axes, x: float, y: float, text: object, side: str, size: float) -> None:
    ax.text(x, y, str(text), ha=side, va="center", color=GREY, fontsize=size)
