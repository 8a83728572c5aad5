"""Draws the learning curves of recorded runs: `python docs/make_curves.py`.

A recorded run is its `metrics.csv`, kept in docs/runs as PICTURE-LABEL.csv. All runs of a picture
are drawn into docs/images/curves_PICTURE.png, training dashed and validation solid.
"""

import csv
import pathlib
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot, ticker

HERE = pathlib.Path(__file__).parent


class Picture(NamedTuple):
    """What a picture shows."""

    metric: str
    title: str  # of the metric's axis
    limits: tuple[float, float] | None = None  # of that axis
    reported: dict[str, float] = {}  # the paper's figures by label
    scale: str = "linear"  # of that axis


PICTURES = {
    "deq_jacobian": Picture(
        "equilibrium_residual", "relative residual of the solves", (5e-3, 3.0), scale="log"
    ),
    "nottingham": Picture(
        "nll_per_frame",
        "negative log-likelihood a frame (nats)",
        (1.7, 5.5),
        reported={"R-Transformer": 2.37, "TCN": 3.07, "LSTM": 3.29},
    ),
    "ptb_char_pair": Picture("bits", "bits per character", (1.7, 2.5)),
    "ptb_word_single": Picture("perplexity", "perplexity", (100, 450)),
    "seq_mnist": Picture("accuracy", "accuracy", (0.6, 1.0), reported={"R-Transformer": 0.991}),
}


def read(path: pathlib.Path, column: str) -> list[float]:
    with path.open(newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def draw(picture: str) -> pathlib.Path:
    metric, title, limits, reported, scale = PICTURES[picture]
    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    for index, path in enumerate(sorted((HERE / "runs").glob(f"{picture}-*.csv"))):
        label, color = path.stem.partition("-")[2].replace("_", " "), f"C{index}"
        epochs = range(1, len(read(path, metric)) + 1)
        axes.plot(epochs, read(path, f"val_{metric}"), color=color, label=f"{label}, validation")
        axes.plot(epochs, read(path, metric), color=color, linestyle="--", linewidth=0.9)
        if label in reported:
            axes.axhline(reported[label], color=color, linestyle=":", linewidth=1.2)
    axes.set(xlabel="epoch", ylabel=title, ylim=limits, yscale=scale)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.plot([], [], color="black", linestyle="--", linewidth=0.9, label="training")
    if reported:
        axes.plot([], [], color="black", linestyle=":", label="test, as the paper reports it")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    target = HERE / "images" / f"curves_{picture}.png"
    figure.savefig(target, dpi=110)
    return target


if __name__ == "__main__":
    for name in PICTURES:
        if any((HERE / "runs").glob(f"{name}-*.csv")):
            print(draw(name))
