"""Draws docs/architecture.png: `python docs/draw_architecture.py`."""

import pathlib

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

LAYERS = [
    [("errors, config.py", "what is said of a wrong\ninput; fields, ranges", 1.2),
     ("runtime", "processes, slices,\nmemory, compiling", 1.4),
     ("storage", "files and locks,\nhere and in buckets", 1.4)],
    [("data", "comparisons; layouts of public data sets,\nformats of files; tokens, batches", 2),
     ("sharding", "which device holds what", 2)],
    [("grm", "prompts, parsing, rewards, votes, orders", 2), ("models", "the decoder, as one trunk and many branches", 2)],
    [("toy", "the world of the\ntiny experiment", 1), ("checkpoints", "models on disk,\none file per family", 1),
     ("sampling", "one kernel, one engine", 2)],
    [("reward_models", "numbers for responses and critiques", 4)],
    [("judging", "k critiques of a comparison become a verdict", 4)],
    [("training", "sft, rejection, rft, rl, meta_rm, the baselines: one file each", 4)],
    [("evaluation", "benchmarks, one file each; accuracy, intervals", 4)],
    [("reporting", "what people read", 2), ("planning", "what a TPU\nslice would need", 1),
     ("launching", "from a laptop\nto slices", 1)],
    [("pipeline", "all stages in order", 4)],
    [(name, "", 4 / 6) for name in ("data", "train", "judge", "evaluate", "convert", "plan")],
]  # fmt: skip
"""From the bottom up; each box with what it is and its width. A box imports boxes below it, never above."""
COLOURS = (
    "#eceff1",
    "#e3f2fd",
    "#e3f2fd",
    "#e8eaf6",
    "#ede7f6",
    "#ede7f6",
    "#fff3e0",
    "#fff3e0",
    "#e8f5e9",
    "#e8f5e9",
    "#fffde7",
)


def main() -> None:
    """Draws the layers and saves the picture beside this file."""
    figure, axes = plt.subplots(figsize=(9, 9.5))
    for level, (layer, colour) in enumerate(zip(LAYERS, COLOURS, strict=True)):
        left = 0.0
        for name, about, width in layer:
            box = FancyBboxPatch((left + 0.03, level + 0.08), width - 0.06, 0.84, "round,pad=0,rounding_size=0.06")
            box.set(facecolor=colour, edgecolor="#607d8b", linewidth=0.8)
            axes.add_patch(box)
            height = 0.5 if not about else 0.7
            axes.text(left + width / 2, level + height, name, ha="center", va="center", fontsize=10, fontweight="bold")
            axes.text(left + width / 2, level + 0.32, about, ha="center", va="center", fontsize=8, color="#37474f")
            left += width
    axes.annotate("", (4.2, len(LAYERS) - 0.1), (4.2, 0.1), arrowprops={"arrowstyle": "<-", "color": "#607d8b"})
    axes.text(4.28, len(LAYERS) / 2, "imports point down", rotation=90, va="center", fontsize=8, color="#607d8b")
    axes.set(xlim=(0, 4.5), ylim=(0, len(LAYERS)))
    axes.axis("off")
    figure.savefig(pathlib.Path(__file__).with_suffix("").with_name("architecture.png"), dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
