"""The bits of a block: as many cells as bits, texts that fit into them, and the values of real blocks."""

import pytest
import torch
from matplotlib import pyplot as plt

from quant_kernels import QTYPES, quantize
from quant_kernels.plots import block_bits
from quant_kernels.plots.style import INK


def texts(ax):
    return [text.get_text() for text in ax.texts]


def cells(ax):
    """The boxes and colours of all bits, row by row."""
    boxes = [path.get_extents() for rows in ax.collections for path in rows.get_paths()]
    return boxes, [tuple(colour[:3]) for rows in ax.collections for colour in rows.get_facecolors()]


@pytest.mark.parametrize("name", ["Q4_0", "Q8_0", "Q3_K", "IQ1_S", "IQ2_XXS", "NVFP4", "TQ1_0"])
def test_every_bit_is_drawn_once(name):
    layout = QTYPES[name]
    ax = block_bits(name)
    boxes, _ = cells(ax)
    assert len(boxes) == 8 * layout.type_size
    assert len({(box.x0, box.y0) for box in boxes}) == len(boxes)
    assert ax.get_title(loc="left").startswith(f"{name}: {layout.block_size} weights in {layout.type_size} bytes")
    assert [text for text in texts(ax) if text in layout.fields] == list(layout.fields)


def test_the_super_block_of_q4_k(dressed):
    ax = block_bits("Q4_K")
    dressed(ax, "", "", "Q4_K: 256 weights in 144 bytes, 4.5 bits per weight")
    shown = texts(ax)
    assert [shown[shown.index(field) + 1] for field in ("d", "dmin", "scales", "qs")] == [
        "0.0625",
        "0.0625",
        "0.375",
        "4",
    ]
    named = [text.get_text() for text in ax.texts if text.get_color() == INK and text.get_text()]
    assert named[:4] == ["s4", "s0", "s5", "s1"]  # the upper bits of scale 4 are in the byte of scale 0
    assert named[24:28] == ["32", "0", "33", "1"]  # the high nibble is 32 weights further on
    assert sorted(map(int, named[24:])) == list(range(256))


def test_numbers_stay_within_their_cells():
    ax = block_bits("Q4_K")
    ax.figure.draw_without_rendering()
    nibble = 4 / 178 * ax.bbox.width
    wide = [text.get_window_extent().width for text in ax.texts if text.get_color() == INK]
    assert max(wide) <= nibble + 1


def test_bits_and_scales_of_a_block():
    data = quantize(torch.linspace(-8, 7, 32), "Q4_0")  # d = 1
    ax = block_bits("Q4_0", data)
    assert "fp16: 1" in texts(ax) and any("strong: 1, pale: 0" in text for text in texts(ax))
    _, colours = cells(ax)
    for byte, value in enumerate(data.tolist()):
        brightness = [sum(colour) for colour in colours[8 * byte : 8 * byte + 8]]
        assert [int(b == min(brightness)) for b in brightness] == [int(bit) for bit in f"{value:08b}"] or value in (
            0,
            255,
        )


def test_one_bit_an_owner_is_named_from_the_first_to_the_last():
    assert "224–0" in texts(block_bits("Q3_K")) and "7–0" in texts(block_bits("Q5_0"))


def test_what_is_refused():
    with pytest.raises(ValueError, match="unknown qtype 'Q4_K_M'"):
        block_bits("Q4_K_M")
    with pytest.raises(ValueError, match=r"data is torch\.uint8 of shape \(17,\), not uint8 of \(18,\)"):
        block_bits("Q4_0", torch.zeros(17, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"data is torch\.int8 of shape \(18,\), not uint8"):
        block_bits("Q4_0", torch.zeros(18, dtype=torch.int8))
    assert plt.get_fignums() == []
