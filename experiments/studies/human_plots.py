"""Pictures of the experiment with a pretrained model. Every function returns the bytes of a PNG."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from human_credits import GRM, Way
from matplotlib.figure import Figure

from spct_jax.evaluation import bootstrap
from spct_jax.reporting.plots import BLUE, GREY, STYLE, VERMILLION

PANELS = 4


def intervals(ways: Sequence[Way], chance: Way, masks: Mapping[str, np.ndarray]) -> bytes:
    """Accuracy of every way of judging with its interval, a row each: a panel for all problems, and for the largest sources."""
    shown = list(masks.items())[:PANELS]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.2 + 2.3 * len(shown), 1.0 + 0.24 * len(ways)), layout="constrained")
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, (name, mask) in zip(panels, shown, strict=True):
            for row, way in enumerate(ways):
                known = way.credit[mask & ~np.isnan(way.credit)]
                if len(known):
                    low, high = bootstrap.interval(known)
                    colour = BLUE if way.system == GRM else VERMILLION if way.system else GREY
                    axes.plot([100 * low, 100 * high], [row, row], color=colour, linewidth=1.4)
                    axes.plot(100 * known.mean(), row, "o", color=colour, markersize=4)
            axes.axvline(100 * chance.credit[mask].mean(), color=GREY, linestyle=(0, (4, 3)), linewidth=1.0)
            axes.set_title(f"{name} ({int(mask.sum()):,})")
            axes.set_xlabel("accuracy, %")
        panels[0].set_yticks(range(len(ways)), [way.name for way in ways])
        panels[0].invert_yaxis()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
        return buffer.getvalue()
