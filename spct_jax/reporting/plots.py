"""The pictures of a report, drawn from its figures. Every function returns the bytes of a PNG.

Colours are Okabe and Ito's, told apart by people with any colour vision; lines are labelled where they end.
"""

import contextlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spct_jax.evaluation import metrics
from spct_jax.reporting import results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6B6B6B"
CURVES = {
    ("sft", "loss"): "Cold start: loss",
    ("rft", "loss"): "RFT: loss",
    ("meta_rm", "loss"): "Meta RM: loss",
    ("meta_rm", "accuracy"): "Meta RM: accuracy",
    ("btrm", "loss"): "Bradley-Terry: loss",
    ("btrm", "accuracy"): "Bradley-Terry: accuracy",
    ("pairrm", "loss"): "PairRM: loss",
    ("pairrm", "accuracy"): "PairRM: accuracy",
    ("cloud", "loss"): "CLoud: loss",
    ("cloud", "accuracy"): "CLoud: accuracy",
    ("rl", "reward"): "RL: mean reward",
    ("rl", "kl"): "RL: KL to the reference",
    ("rl", "malformed"): "RL: malformed, % of samples",
    ("rl", "loss"): "RL: loss",
}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "lines.linewidth": 1.8,
}


@contextlib.contextmanager
def drawing(width: float, height: float, style: Mapping[str, Any] = STYLE) -> Iterator["Figure"]:
    """A new figure of so many inches, in a style that holds as long as it is drawn."""
    import matplotlib  # a third of a second, which a command pays when it draws and not when it begins
    from matplotlib.figure import Figure

    with matplotlib.rc_context(style):
        yield Figure(figsize=(width, height), layout="constrained")


def accuracy_by_stage(
    accuracy: Mapping[str, Mapping[str, float]], intervals: Mapping[str, Mapping[str, Sequence[float]]], chance: float
) -> bytes:
    """Greedy accuracy of each stage's model, then the last one's largest votes, with 95 % intervals."""
    bars = [(label, "greedy", "#A3A3A3") for label in accuracy if "greedy" in accuracy[label] and "@T" not in label]
    for kind, colour in (("vote", BLUE), ("meta", VERMILLION)):
        for label in accuracy:
            votes = [measure for measure in accuracy[label] if measure.startswith(f"{kind}@")]
            if votes and "@T" not in label:
                bars.append((label, max(votes, key=metrics.votes), colour))
    with drawing(1.6 + 1.05 * len(bars), 3.6) as figure:
        axes = figure.subplots()
        for position, (label, measure, colour) in enumerate(bars):
            value = 100 * accuracy[label][measure]
            low, high = (100 * bound for bound in intervals[label][measure])
            axes.bar(position, value, width=0.62, color=colour)
            axes.errorbar(
                position, value, [[value - low], [high - value]], color="#222222", capsize=3.5, linewidth=1.3, capthick=1.3
            )
            axes.annotate(f"{value:.1f}", (position, high), (0, 4), textcoords="offset points", ha="center", fontweight="bold")
        axes.axhline(100 * chance, color=GREY, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.set_xlim(-0.6, len(bars) + 0.05)
        axes.annotate("chance", (len(bars) - 0.55, 100 * chance), (0, 3), textcoords="offset points", color=GREY)
        axes.set_xticks(range(len(bars)), [f"{results.label_name(label)}\n{_measure(name)}" for label, name, _ in bars])
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, 108)
        axes.set_yticks(range(0, 101, 20))
        axes.set_ylabel("accuracy, %")
        axes.set_title("Accuracy by stage, with 95 % intervals")
        return _png(figure)


def accuracy_by_k(by_k: Mapping[str, Mapping], greedy: Mapping[str, float], temperature: float | None) -> bytes:
    """Accuracy against the number of votes, plain and meta-guided: one panel for each model and temperature.

    Args:
      by_k: for each label, `k` and, for `vote` and (if scored) `meta`, the accuracies and their `_interval`s.
      greedy: the greedy accuracy of each model that has one.
      temperature: of the labels that name none.
    """
    with drawing(0.9 + 4.1 * len(by_k), 3.7) as figure:
        panels = figure.subplots(1, len(by_k), sharey=True, squeeze=False)[0]
        names = []
        for axes, (label, curve) in zip(panels, by_k.items(), strict=True):
            lines = [("vote", "plain vote", BLUE, "o"), ("meta", "meta-guided", VERMILLION, "s")]
            drawn = [line for line in lines if line[0] in curve]
            for kind, _, colour, marker in drawn:
                low, high = 100 * np.array(curve[f"{kind}_interval"]).T
                axes.fill_between(curve["k"], low, high, color=colour, alpha=0.15, linewidth=0)
                axes.plot(curve["k"], 100 * np.array(curve[kind]), color=colour, marker=marker, markersize=4.5)
            ends = [(100 * curve[kind][-1], name, colour) for kind, name, colour, _ in drawn]
            model = label.partition("@")[0]
            if model in greedy:
                axes.axhline(100 * greedy[model], color=GREY, linestyle=(0, (4, 3)), linewidth=1.3)
                ends.append((100 * greedy[model], "greedy", GREY))
            axes.set_xscale("log", base=2)
            axes.set_xticks(curve["k"], tick_labels(curve["k"]))
            axes.minorticks_off()
            axes.set_xlim(0.9, curve["k"][-1] * 1.08)
            axes.set_xlabel("votes k (log scale)")
            own = model == label and temperature is not None
            axes.set_title(results.label_name(f"{label}@T{temperature:g}" if own else label))
            names.append(ends)
        panels[0].set_ylabel("accuracy, %")
        for axes, ends in zip(panels, names, strict=True):
            label_ends(axes, ends)
        return _png(figure)


def learning_curves(curves: Mapping[str, Sequence[Mapping]]) -> bytes | None:
    """Loss of each stage, and reward, KL and malformed rate of RL, by step; None if nothing was recorded.

    Steps are drawn faintly and their moving average over a twentieth of the stage firmly.
    """
    from matplotlib.ticker import MaxNLocator

    panels = []
    for (stage, measure), title in CURVES.items():
        points = [(row["step"], row[measure]) for row in curves.get(stage, ()) if row.get(measure) is not None]
        if points:
            scale = 100 if measure == "malformed" else 1
            panels.append((title, [step for step, _ in points], scale * np.array([value for _, value in points])))
    if not panels:
        return None
    columns = min(4, math.ceil(len(panels) / math.ceil(len(panels) / 4)))
    rows = math.ceil(len(panels) / columns)
    with drawing(2.9 * columns, 2.35 * rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, (title, steps, values) in zip(grid, panels, strict=False):
            window = max(1, len(values) // 20)
            alpha, width = (0.3, 1.0) if window > 1 else (1.0, 1.6)
            dot = "o" if len(values) == 1 else None  # no line goes through one step
            axes.plot(steps, values, color=BLUE, alpha=alpha, linewidth=width, marker=dot, markersize=4.5)
            if window > 1:
                centre = slice((window - 1) // 2, (window - 1) // 2 + len(values) - window + 1)
                axes.plot(steps[centre], np.convolve(values, np.full(window, 1 / window), "valid"), color=BLUE)
            axes.set_title(title)
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(5))
        for axes in list(figure.axes)[len(panels) :]:
            axes.remove()
        return _png(figure)


def runs_by_measure(measures: Mapping[str, Mapping[str, float]]) -> bytes:
    """Accuracy of several runs on one axis: a dot for each run, a bar at their mean.

    Args:
      measures: for each measure, in order, the accuracy of each run by the run's name.
    """
    with drawing(1.8 + 0.85 * len(measures), 3.7) as figure:
        axes = figure.subplots()
        names = list(dict.fromkeys(name for values in measures.values() for name in values))
        palette = [BLUE, VERMILLION, GREEN, PURPLE, "#E69F00", "#56B4E9"]
        offsets = np.linspace(-0.16, 0.16, len(names)) if len(names) > 1 else [0.0]
        for index, (name, offset) in enumerate(zip(names, offsets, strict=True)):
            points = [(position, values[name]) for position, values in enumerate(measures.values()) if name in values]
            axes.plot(
                [position + offset for position, _ in points],
                [100 * value for _, value in points],
                linestyle="none",
                marker="osD^vP"[index % 6],
                markersize=5.5,
                color=palette[index % 6],
                label=name,
            )
        for position, values in enumerate(measures.values()):
            mean = 100 * np.mean(list(values.values()))
            axes.hlines(mean, position - 0.3, position + 0.3, color="#222222", linewidth=1.4, zorder=1)
            axes.annotate(f"{mean:.1f}", (position + 0.3, mean), (2, 0), textcoords="offset points", va="center", size=8)
        axes.set_xlim(-0.5, len(measures) - 0.2)
        axes.set_xticks(range(len(measures)), list(measures))
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel("accuracy, %")
        axes.set_title("Every run, and the mean over runs (bar)")
        axes.legend(frameon=False, loc="best")
        return _png(figure)


def _measure(name: str) -> str:
    kind, _, k = name.partition("@")
    return f"{'meta-guided' if kind == 'meta' else kind} @ {k}" if k else kind


def tick_labels(ks: Sequence[int]) -> list[str]:
    """The ascending numbers on a logarithmic axis, empty where the text would run into that of a larger one."""
    labels, above = [], math.inf
    for k in reversed(ks):
        free = math.log(above / k) > 0.055 * math.log(ks[-1] / ks[0])
        labels.append(str(k) if free else "")
        above = k if free else above
    return labels[::-1]


def label_ends(axes: "Axes", ends: Sequence[tuple[float, str, str]]) -> None:
    """Names the lines at their right ends, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    apart = 0.055 * (high - low)
    heights = []
    for value, _, _ in sorted(ends):
        heights.append(max(value, heights[-1] + apart) if heights else value)
    for height, (value, name, colour) in zip(heights, sorted(ends), strict=True):
        axes.annotate(
            f"{name} {value:.1f}",
            (1, height),
            (5, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()
