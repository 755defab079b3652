"""Which bit of a block speaks of which weight: found out by flipping it, so that no layout is written down twice."""

import torch

from .block import QType

ONE = (0x00, 0x3C)  # fp16, the low byte first
N_BLOCKS = 16  # a flip can go unseen in one block: of a sign of 0, of a scale that is multiplied by 0


def bit_owners(layout: QType) -> list[str]:
    """Whose each bit is, byte by byte and from bit 7 down to bit 0: 8 * type_size names.

    "17" is the code of weight 17, "s3" the scale of sub-block 3 and "m3" its minimum, or what else is added there. A
    bit of several has no name: a scale of the whole block, an index into a grid, a base-3 digit.

    >>> from quant_kernels import QTYPES
    >>> bit_owners(QTYPES["Q4_0"])[16:24]  # byte 2, the first of qs
    ['16', '16', '16', '16', '0', '0', '0', '0']
    """
    n_bits = 8 * layout.type_size
    blocks = _some_blocks(layout)  # (n_blocks, type_size)
    flipped = blocks[:, None].repeat(1, n_bits, 1)  # (n_blocks, n_bits, type_size)
    bits = torch.arange(n_bits)
    flipped[:, bits, bits // 8] ^= (0x80 >> bits % 8).to(torch.uint8)
    before, after = _parts(layout, blocks), _parts(layout, flipped.flatten(0, 1))
    changed = {
        letter: (after[letter].unflatten(0, (-1, n_bits)) != values[:, None]).any(0)  # (n_bits, weights or sub-blocks)
        for letter, values in before.items()
    }
    return [_name({letter: of_bit[bit] for letter, of_bit in changed.items()}) for bit in range(n_bits)]


def _some_blocks(layout: QType) -> torch.Tensor:
    """Random bytes with fp16 scales of 1, without those whose steps are no numbers: (n_blocks, type_size) uint8."""
    blocks = torch.randint(256, (N_BLOCKS, layout.type_size), generator=torch.Generator().manual_seed(0))
    for field, part in zip(layout.fields, layout.split(blocks), strict=True):
        if field in layout.scales:
            part.copy_(torch.tensor(ONE))
    blocks = blocks.to(torch.uint8)
    return blocks[layout.steps(blocks)[0].isfinite().all(-1)]


def _parts(layout: QType, blocks: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the bytes of a block say: codes, scales, and what is added, (n_blocks, weights or sub-blocks) each."""
    step, offset = layout.steps(blocks)
    parts = {"": layout.codes(blocks).flatten(1), "s": step}
    return parts if offset is None else parts | {"m": offset}


def _name(changed: dict[str, torch.Tensor]) -> str:
    owners = [f"{letter}{index}" for letter, of in changed.items() for index in of.nonzero().flatten().tolist()]
    return owners[0] if len(owners) == 1 else ""
