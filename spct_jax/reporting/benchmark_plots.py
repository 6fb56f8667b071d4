"""The pictures of a benchmark's report, drawn from its figures; for colours and style see `plots`.

Every function returns the bytes of an SVG, the same for the same figures.
"""

import io
import itertools
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from spct_jax.reporting.plots import BLUE, GREEN, GREY, PURPLE, STYLE, VERMILLION, drawing, label_ends, tick_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG = STYLE | {"svg.hashsalt": "spct_jax", "svg.fonttype": "path"}
_LINES = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "D"), (PURPLE, "^"), ("#E69F00", "v"), ("#56B4E9", "P"))
_LONGEST = 40
"""Characters of a subset's name that are drawn; half as many where some are twice as wide."""
_MOST_PLACES = 14
"""Positions, and gaps between panels of them, beside each other in a picture."""


def scaling(
    lines: Mapping[str, Mapping[int, Mapping]], greedy: float | None, chance: float | None, quantity: str = "accuracy"
) -> bytes:
    """A quantity, such as accuracy, against the number of votes, with 95 % intervals.

    Args:
      lines: for each way of voting, by k: `value` with its interval `low` to `high`, in [0, 1].
      greedy: that of greedy verdicts, if there are any.
      chance: that of a judge that guesses, if it is known.
      quantity: its name.
    """
    with drawing(6.4, 3.9, _SVG) as figure:
        axes = figure.subplots()
        ends = []
        for (name, points), (colour, marker) in zip(lines.items(), itertools.cycle(_LINES), strict=False):
            ks = sorted(points)
            low, high = ([100 * points[k][bound] for k in ks] for bound in ("low", "high"))
            axes.fill_between(ks, low, high, color=colour, alpha=0.13, linewidth=0)
            axes.plot(ks, [100 * points[k]["value"] for k in ks], color=colour, marker=marker, markersize=4.5)
            ends.append((100 * points[ks[-1]]["value"], name, colour))
        for level, name, dash in ((greedy, "greedy", (0, (5, 2))), (chance, "chance", (0, (1, 2)))):
            if level is not None:
                axes.axhline(100 * level, color=GREY, linestyle=dash, linewidth=1.3)
                ends.append((100 * level, name, GREY))
        ks = sorted({k for points in lines.values() for k in points})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, tick_labels(ks))
        axes.minorticks_off()
        axes.set_xlim(ks[0] / 1.12, ks[-1] * 1.12)
        axes.set_xlabel("votes k (log scale)")
        axes.set_ylabel(f"{quantity}, %")
        axes.set_title(f"{capitalised(quantity)} by votes, a tie counting by its chance")
        label_ends(axes, ends)
        return _svg(figure)


def subsets(bars: Mapping[str, Mapping[str, Mapping]]) -> bytes:
    """Accuracy by subset: a bar with its 95 % interval for each way of judging.

    Args:
      bars: for each way of judging, two at most, by subset: `value` with its interval `low` to `high`, in [0, 1].
    """
    names = list(next(iter(bars.values())))
    with drawing(6.8, 1.1 + (0.16 + 0.2 * len(bars)) * len(names), _SVG) as figure:
        axes = figure.subplots()
        width = 0.8 / len(bars)
        colours = ("#A3A3A3", BLUE) if len(bars) > 1 else (BLUE,)
        for index, ((measure, values), colour) in enumerate(zip(bars.items(), colours, strict=True)):
            heights = np.arange(len(names)) + (index - (len(bars) - 1) / 2) * width
            shown = [100 * values[name]["value"] for name in names]
            axes.barh(heights, shown, width * 0.92, color=colour, label=measure)
            for height, value, name in zip(heights, shown, names, strict=True):
                low, high = (100 * values[name][bound] for bound in ("low", "high"))
                axes.plot([low, high], [height, height], color="#222222", linewidth=1.1)
                axes.annotate(
                    f"{value:.1f}", (max(value, high), height), (4, 0), textcoords="offset points", va="center", fontsize=8
                )
        axes.set_yticks(range(len(names)), [_shortened(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 112)
        axes.set_xticks(range(0, 101, 20))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("accuracy, %")
        axes.set_title("By subset, with 95 % intervals")
        if len(bars) > 1:
            figure.legend(loc="outside lower right", ncols=len(bars), frameon=False)
        return _svg(figure)


def positions(shares: Mapping[int, Sequence[float]]) -> bytes:
    """How often the response at each position is named, by the number of responses; the dashed line is a judge without bias."""
    rows: list[list[int]] = []
    for n in shares:
        if rows and sum(rows[-1]) + len(rows[-1]) + n <= _MOST_PLACES:
            rows[-1].append(n)
        else:
            rows.append([n])
    widest = max(sum(row) + len(row) - 1 for row in rows)
    highest = 1.15 * 100 * max(max(values) for values in shares.values())
    with drawing(1.1 + 0.62 * widest, 0.2 + 2.6 * len(rows), _SVG) as figure:
        grid = figure.add_gridspec(len(rows), widest)
        for line, n in [(line, n) for line, row in enumerate(rows) for n in row]:
            start = sum(other + 1 for other in rows[line] if other < n)
            axes, values, places = figure.add_subplot(grid[line, start : start + n]), shares[n], range(1, n + 1)
            axes.bar(places, [100 * value for value in values], width=0.66, color=BLUE)
            for place, value in zip(places, values, strict=True):
                # White behind it, since the line of a judge without bias is where most of the numbers stand.
                behind = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                at = (place, 100 * value), (0, 4)
                axes.annotate(f"{100 * value:.1f}", *at, textcoords="offset points", ha="center", size=8, bbox=behind)
            axes.axhline(100 / n, color=GREY, linestyle=(0, (4, 3)), linewidth=1.3)
            axes.set_xlim(0.4, n + 0.6)
            axes.set_xticks(places)
            axes.tick_params(axis="x", length=0)
            axes.grid(axis="x", visible=False)
            axes.set_xlabel("position")
            axes.set_title(f"{n} responses")
            axes.set_ylim(0, highest)
            axes.set_ylabel("" if start else "named best, % of samples")
            axes.tick_params(axis="y", labelleft=not start)
        return _svg(figure)


def capitalised(text: str) -> str:
    """With a capital first letter; the others stay as they are."""
    return text[:1].upper() + text[1:]


def _shortened(name: str) -> str:
    """A name on one line, without what no picture can hold or what would be read as a formula."""
    name = re.sub("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", " ".join(name.split()))
    longest = _LONGEST // 2 if any(unicodedata.east_asian_width(character) in "WF" for character in name) else _LONGEST
    if len(name) > longest:  # names of files in a tree differ at their ends, and at their beginnings
        name = f"{name[: longest // 3]}…{name[1 + longest // 3 - longest :]}"
    return name.replace("$", r"\$")


def _svg(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")  # a box stands for it
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
