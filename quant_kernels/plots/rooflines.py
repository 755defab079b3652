"""The picture of a device's roofline, and of the steps beneath it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib.axes import Axes

from quant_kernels.hardware import GIGA, TERA, Hardware
from quant_kernels.roofline import Bound

from .labels import Line, label_points
from .style import COLOURS, GREY, LABEL_SIZE, MARKERS, dress, legend, new_axes, plain_ticks

SIDES = (120, 300)  # degrees: above the slope, and below it


def roofline(
    device: Hardware,
    series: Mapping[str, Sequence[Bound]] | None = None,
    ax: Axes | None = None,
    *,
    formats: Sequence[str] = (),
    title: str = "",
) -> Axes:
    """Draws what a device attains at an arithmetic intensity, a roof for each number format, and steps beneath them.

    series: name to bounds, as `roofline.decode` gives them; each is a marker with its number of tokens, its batch.
    formats: the number formats whose roofs are drawn; all of the device's, unless given.
    Raises ValueError for a device or formats without peaks, and for series without steps.
    """
    roofs = {name: device.peak(name) for name in formats or device.formats()}
    if not roofs:
        raise ValueError(f"no peak of {device.name} is known: there is no roof to draw")
    steps = [step for bounds in (series or {}).values() for step in bounds]
    if series is not None and not steps:
        raise ValueError("there are no steps to draw in the series")
    ax = new_axes(ax, height=4.6)
    lines = _draw_roofs(ax, device, roofs, [step.intensity for step in steps])
    labels, sides = [], []
    for (name, bounds), *look, side in zip(
        (series or {}).items(), cycle(MARKERS), cycle(COLOURS), cycle(SIDES), strict=False
    ):
        x, y = [step.intensity for step in bounds], [step.operations_per_second / TERA for step in bounds]
        ax.plot(x, y, look[0], color=look[1], label=name)
        labels += [(str(step.tokens), *place) for step, *place in zip(bounds, x, y, strict=True)]
        sides += [side] * len(bounds)
    speed = f"{device.bandwidth / TERA:.3g} TB/s" if device.bandwidth >= TERA else f"{device.bandwidth / GIGA:.3g} GB/s"
    dress(ax, title or f"Roofline of {device.name}, {speed}", "operations per byte", "operations per second (T/s)")
    legend(ax, "upper left", "numbers: tokens of a step")
    label_points(ax, labels, lines, sides)
    return ax


def _draw_roofs(ax: Axes, device: Hardware, roofs: Mapping[str, float], intensities: Sequence[float]) -> list[Line]:
    """The slope that memory allows, the roofs that arithmetic allows, and the ridges where they meet."""
    ridges = {peak: peak / device.bandwidth for peak in roofs.values()}
    left = min(intensities, default=min(ridges.values()) / 10) / 2
    right = max(*ridges.values(), *intensities, 0) * 8
    end, highest = max(ridges.values()), max(ridges) / TERA
    lines = [((left, end), (left * device.bandwidth / TERA, highest))]
    ax.set(xscale="log", yscale="log", xlim=(left, right), ylim=(left * device.bandwidth / TERA, 2 * highest))
    plain_ticks(ax.xaxis)
    plain_ticks(ax.yaxis)
    look = {"ha": "right", "va": "bottom", "color": GREY, "fontsize": LABEL_SIZE}
    for peak, ridge in ridges.items():
        names = " = ".join(name for name, value in roofs.items() if value == peak)
        lines.append(((ridge, right), (peak / TERA, peak / TERA)))
        ax.vlines(ridge, 0, peak / TERA, color=GREY, linewidth=0.8, linestyle=":")
        ax.text(right, 1.04 * peak / TERA, f"{names} {peak / TERA:g}", **look)
        ax.text(ridge, 0.02, f"ridge {ridge:,.0f} ", rotation=90, transform=ax.get_xaxis_transform(), **look)
    for line in lines:
        ax.plot(*line, color=GREY)
    return lines
