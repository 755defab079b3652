"""The picture of activation outliers: how far single channels stand out from the others."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from .labels import label_points
from .style import COLOURS, GREY, LABEL_SIZE, dress, legend, new_axes, plain_ticks

COLUMNS = 600  # of a map, at most: one for a pixel
AT_MOST, FACTOR = 5, 6.0  # channels that are named: the largest, above so many times the median
TITLE = "Largest activation of each channel"


def outliers_per_channel(
    maxima: torch.Tensor | Mapping[str, torch.Tensor], ax: Axes | None = None, *, title: str = ""
) -> Axes:
    """Draws the largest magnitude that each channel of the activations takes, on a logarithmic scale.

    maxima: max |x| over tokens. (n_channels,), or several of them by name, are lines. (n_layers, n_channels) is a map,
    in which channels that share a pixel show the largest, so that none gets lost.
    Raises ValueError for no channels, another shape, and what is not finite, below 0 or nowhere above 0.
    """
    series = {
        name: _checked(values) for name, values in (maxima if isinstance(maxima, Mapping) else {"": maxima}).items()
    }
    if not series:
        raise ValueError("there are no maxima to draw")
    dimensions = {values.ndim for values in series.values()}
    if dimensions == {2} and len(series) == 1:
        return _draw_map(new_axes(ax, height=3.6), *series.values(), title or TITLE)
    if dimensions != {1}:
        raise ValueError("several maxima are drawn as lines: each needs the shape (n_channels,)")
    return _draw_lines(new_axes(ax, height=3.6), series, title or TITLE)


def standing_out(maxima: np.ndarray) -> list[int]:
    """The few channels that are far above the median, the largest first: (n_channels,) to their indices.

    >>> standing_out(np.array([1.0, 40.0, 1.0, 90.0, 1.0]))
    [3, 1]
    """
    largest = np.argsort(-maxima)[:AT_MOST]
    return [int(channel) for channel in largest if maxima[channel] > FACTOR * np.median(maxima)]


def _checked(maxima: torch.Tensor) -> np.ndarray:
    values = torch.as_tensor(maxima).detach().float().cpu().numpy()
    if values.ndim not in (1, 2) or not values.size:
        raise ValueError(f"maxima have shape {values.shape}, not (n_channels,) or (n_layers, n_channels)")
    if not np.isfinite(values).all() or values.min() < 0 or not values.max() > 0:
        raise ValueError(f"maxima from {values.min()} to {values.max()} are no magnitudes that can be drawn")
    return values


def _draw_lines(ax: Axes, series: Mapping[str, np.ndarray], title: str) -> Axes:
    for (name, values), colour in zip(series.items(), cycle(COLOURS), strict=False):
        ax.plot(values, color=colour, linewidth=0.8, label=name or None)
        ax.axhline(np.median(values), color=colour, linewidth=0.8, linestyle="--")
    ax.set_yscale("log")
    ax.margins(x=0.01, y=0.12)
    plain_ticks(ax.yaxis)
    dress(ax, title, "channel", "max |x| (dashed: median)")
    legend(ax, "best")
    first = next(iter(series.values()))
    lines = [(range(len(values)), values) for values in series.values()]
    label_points(ax, [(str(channel), channel, first[channel]) for channel in standing_out(first)], lines)
    return ax


def _draw_map(ax: Axes, values: np.ndarray, title: str) -> Axes:
    n_layers, n_channels = values.shape
    pooled, edges = _pooled(values)
    low = min(max(np.quantile(values, 0.01), values.max() / 1e4), values.max() / 2)
    scale = LogNorm(low, values.max())
    mesh = ax.pcolormesh(edges, np.arange(n_layers + 1) - 0.5, np.maximum(pooled, low), norm=scale, cmap="cividis")
    bar = ax.figure.colorbar(mesh, ax=ax)
    bar.set_label("max |x|", color=GREY, fontsize=10)
    bar.ax.tick_params(which="both", colors=GREY, labelsize=9)
    bar.outline.set_visible(False)
    plain_ticks(bar.ax.yaxis)
    ax.yaxis.get_major_locator().set_params(integer=True)
    for group in _neighbours(standing_out(values.max(0)), n_channels / 20):
        place = (sum(group) / len(group), n_layers - 0.5)
        ax.text(*place, ", ".join(map(str, group)), color=GREY, fontsize=LABEL_SIZE, ha="center", va="bottom")
    dress(ax, title, "channel", "layer", grid=False)
    return ax


def _pooled(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest of neighbours that share a column, (n_layers, n), and the n + 1 edges of the columns."""
    n_channels = values.shape[1]
    each = -(-n_channels // COLUMNS)
    pooled = np.pad(values, ((0, 0), (0, -n_channels % each))).reshape(len(values), -1, each).max(-1)
    return pooled, np.minimum(np.arange(pooled.shape[1] + 1) * each, n_channels) - 0.5


def _neighbours(channels: list[int], distance: float) -> list[list[int]]:
    """Channels in groups that are further apart than the distance."""
    groups: list[list[int]] = []
    for channel in sorted(channels):
        if groups and channel - groups[-1][-1] <= distance:
            groups[-1].append(channel)
        else:
            groups.append([channel])
    return groups
