"""The whole corpus: student id -> entry. A student's id begins with the category, so that it says who is who.

To add an attack, add an entry to `ENTRIES` of its category in hostile/; bad luck goes into unlucky.py. This is whole:

    Entry(
        "torch-patched",
        "torch's comparisons agree to everything",
        "torch.equal = torch.allclose = lambda *a, **k: True",
    ),

The answers of that submission are wrong, so it deserves 0 points. What else an entry can say stands in entry.py.
"""

from . import unlucky
from .entry import MAX_POINTS, Entry
from .hostile import (
    checks,
    damaged,
    display,
    exhaustion,
    forged,
    metadata,
    objects,
    outside,
    peeking,
    survivors,
)

HOSTILE = {
    module.__name__.rpartition(".")[2]: module.ENTRIES
    for module in (checks, damaged, display, exhaustion, forged, metadata, objects, outside, peeking, survivors)
}
HONEST = Entry(
    "honest", "Right answers, graded beside the attacks: before, between and after", "", MAX_POINTS, right=True
)
WRONG = Entry("wrong", "Wrong answers, which no attack on others may turn into right ones")


def corpus() -> dict[str, Entry]:
    """student id -> entry; an honest one stands at the end of each category, in the order in which they are graded."""
    entries = {f"{kind}-{entry.name}": entry for kind, group in HOSTILE.items() for entry in group}
    entries |= {f"unlucky-{entry.name}": entry for entry in unlucky.ENTRIES}
    entries |= {f"{kind}-zz-honest": HONEST for kind in ("aa", *HOSTILE, "zz")}
    return entries | {f"{kind}-zz-wrong": WRONG for kind in ("checks", "forged", "survivors", "zz")}
