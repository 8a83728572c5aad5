"""Draws the learning curves of recorded runs: `python docs/make_curves.py`.

A recorded run is its `metrics.csv`, kept in docs/runs as PICTURE-LABEL.csv. All runs of a picture
are drawn into docs/images/curves_PICTURE.png, training dashed and validation solid.
"""

import csv
import pathlib

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

HERE = pathlib.Path(__file__).parent
# Picture -> (metric, its name on the axis, paper's figures by label).
PICTURES = {
    "nottingham": (
        "nll_per_frame",
        "negative log-likelihood a frame (nats)",
        {"R-Transformer": 2.37, "TCN": 3.07, "LSTM": 3.29},
    ),
}


def read(path: pathlib.Path, column: str) -> list[float]:
    with path.open(newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def draw(picture: str) -> pathlib.Path:
    metric, title, reported = PICTURES[picture]
    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    for index, path in enumerate(sorted((HERE / "runs").glob(f"{picture}-*.csv"))):
        label, color = path.stem.partition("-")[2], f"C{index}"
        validation = read(path, f"val_{metric}")
        epochs = range(1, len(validation) + 1)
        axes.plot(epochs, validation, color=color, label=f"{label}, validation")
        axes.plot(epochs, read(path, metric), color=color, linestyle="--", linewidth=0.9)
        if label in reported:
            axes.axhline(reported[label], color=color, linestyle=":", linewidth=1.2)
    axes.set(xlabel="epoch", ylabel=title, ylim=(1.7, 5.5))
    axes.plot([], [], color="black", linestyle="--", linewidth=0.9, label="training")
    axes.plot([], [], color="black", linestyle=":", label="test, as the paper reports it")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    target = HERE / "images" / f"curves_{picture}.png"
    figure.savefig(target, dpi=110)
    return target


if __name__ == "__main__":
    for name in PICTURES:
        print(draw(name))
