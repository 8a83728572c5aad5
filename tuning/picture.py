"""`results.png`: a line a trial through all its parameters to the value of the objective."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_seq import _files
from keras_seq.tuning.objectives import Objective

AXES = 10  # parameters that are drawn at most: those with which the objective goes most closely


def draw_trials(
    path: Path, rows: Sequence[dict[str, Any]], names: Sequence[str], goal: Objective
) -> bool:
    """Draws parallel coordinates.

    Args:
        path: the picture.
        rows: the completed trials.
        names: the parameters that differ between them.
        goal: the objective; it is the last axis, and the colour.

    Returns:
        Whether it was drawn; `False` without matplotlib, and for fewer than two trials.
    """
    if len(rows) < 2 or not names:
        return False
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    scores = np.array([row["value"] for row in rows], float)
    axes = [_Axis(name, [row["values"].get(name) for row in rows]) for name in names]
    axes = [axis for axis in axes if len(axis.labels) > 1]
    axes = sorted(axes, key=lambda axis: -axis.relation(scores))[:AXES]
    axes = [*axes, _Axis(goal.name, list(scores))]
    figure = Figure(figsize=(2.0 + 1.3 * len(axes), 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    plot = figure.subplots()
    order = np.array([goal.order(score) for score in scores])
    ranks = np.argsort(np.argsort(order)) / max(1, len(order) - 1)
    for index in np.argsort(-order):  # the best on top
        heights = [axis.places[index] for axis in axes]
        plot.plot(
            range(len(axes)),
            heights,
            color=colormaps["viridis_r"](float(1 - ranks[index])),
            linewidth=3.0 if ranks[index] == 0 else 1.2,
            alpha=1.0 if ranks[index] == 0 else 0.6,
        )
    for position, axis in enumerate(axes):
        plot.axvline(position, color="0.75", linewidth=1, zorder=0)
        for height, label in axis.labels:
            plot.text(
                position, height, label, fontsize=7, ha="center", va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )  # fmt: skip
    labels = [axis.name.removeprefix("model.").replace(".", ".\n") for axis in axes]
    plot.set_xticks(range(len(axes)), labels, fontsize=8, rotation=30, ha="right")
    plot.set_yticks([])
    plot.set_xlim(-0.5, len(axes) - 0.5)
    plot.spines[:].set_visible(False)
    plot.set_title(f"{len(rows)} trials; thick: the best, {goal.name} {rows[0]['value']:.4g}")
    with _files.atomic(path, suffix=".png") as temporary:
        figure.savefig(temporary, dpi=110)
    return True


class _Axis:
    """One parameter's places between 0 and 1, and what is written at some of them.

    A trial that has no such parameter lies below the others.
    """

    def __init__(self, name: str, values: Sequence[Any]):
        self.name = name
        present = [value for value in values if value is not None]
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in present)
        distinct = sorted(set(present), key=lambda v: v if numeric else str(v))
        measured = numeric and any(isinstance(value, float) for value in distinct)
        if len(distinct) > 1 and (measured or (numeric and len(distinct) > 6)):
            low, high = float(distinct[0]), float(distinct[-1])
            log = low > 0 and high / low > 20

            def place(value: Any) -> float:
                if log:
                    return float(np.log(value / low) / np.log(high / low))
                return (float(value) - low) / (high - low)

            shown = [distinct[0], distinct[len(distinct) // 2], distinct[-1]]
        else:

            def place(value: Any) -> float:
                return distinct.index(value) / max(1, len(distinct) - 1)

            shown = distinct
        self.places = [-0.12 if value is None else place(value) for value in values]
        self.labels = [(place(value), _text(value)) for value in shown]
        if len(present) < len(values):
            self.labels.append((-0.12, "none"))

    def relation(self, scores: np.ndarray) -> float:
        """How closely the order of the scores goes with the places (rank correlation)."""
        ranks = [np.argsort(np.argsort(x)) for x in (np.array(self.places), scores)]
        deviations = [float(np.std(x)) for x in ranks]
        if not all(deviations):
            return 0.0
        return abs(float(np.corrcoef(ranks[0], ranks[1])[0, 1]))


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
