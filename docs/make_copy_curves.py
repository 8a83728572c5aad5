"""The baselines of the copy-memory task, and the picture of all curves.

    python docs/make_copy_curves.py TCN 200        # trains it for 200 steps, into docs/runs
    python docs/make_copy_curves.py                # draws what is there

The curve of the DEQ-Transformer is the `metrics.csv` of its own run.
"""

import csv
import itertools
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent
DELAY, BATCH, WIDTH, EVERY = 400, 8, 10, 10
GUESSING = 10 * 2.0794415 / (DELAY + 20)  # log 8 at ten steps of each sequence
ORDER = ("DEQ-Transformer", "DEQ-TrellisNet", "TrellisNet", "TCN", "LSTM")


def core(name: str):
    """A core with about 14,000 parameters, embedding and classes included."""
    from keras_seq import layers, zoo

    if name == "TCN":  # sees 883 steps
        return layers.TCN(11, levels=6, kernel_size=8)
    if name == "LSTM":
        return layers.LSTM(52)
    if name == "TrellisNet":  # sees 1,024 steps
        dilations = [2**level for level in range(10)]
        return layers.TrellisNet(
            units=24, output_units=14, levels=10, dilation_rate=dilations, weight_normalization=True
        )
    if name == "DEQ-TrellisNet":
        return zoo.deq_trellisnet_copy_memory().core
    raise ValueError(f"The name must be one of {ORDER[1:]}. Received: {name!r}.")


def train(name: str, steps: int) -> None:
    """Trains a baseline and writes its losses, each the mean of ten steps."""
    import keras
    import numpy as np

    from keras_seq import models, optimizers, pipelines

    keras.utils.set_random_seed(1111)
    data = pipelines.load("copy_memory", batch_size=BATCH, delay=DELAY, n_train=800)
    model = models.SequenceClassifier(
        core(name), 10, vocabulary_size=10, embedding_dim=WIDTH, return_sequences=True
    )
    model.compile(optimizers.Adam(5e-3, global_clipnorm=0.5))
    path = ROOT / "runs" / f"copy_memory-{name}.csv"
    losses: list[float] = []
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "loss"])
        batches = (batch for epoch in itertools.count() for batch in data.epoch(epoch))
        for x, y in itertools.islice(batches, steps):
            losses.append(float(model.train_on_batch(x, y, return_dict=True)["loss"]))
            model.reset_metrics()
            if len(losses) % EVERY == 0:
                rows.writerow([len(losses), np.mean(losses[-EVERY:])])
                file.flush()
    print(name, model.count_params(), "parameters", losses[-1])


def draw() -> Path:
    """The loss over the steps of every run in docs/runs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    for index, name in enumerate(ORDER):
        path = ROOT / "runs" / f"copy_memory-{name}.csv"
        if not path.is_file():
            continue
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        steps = [int(row["step"]) for row in rows]
        losses = [float(row.get("val_loss") or row["loss"]) for row in rows]
        axes.semilogy(steps, losses, "o-", markersize=3, color=f"C{index}", label=name)
    axes.axhline(GUESSING, color="black", linestyle=":", label="guessing among eight digits")
    axes.axhline(3.5e-6, color="C0", linestyle=":", label="DEQ-Transformer in the paper")
    axes.set(xlabel="step, of 8 sequences", ylabel="mean loss of a step of the sequence (nats)")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    target = ROOT / "images" / "curves_copy_memory.png"
    figure.savefig(target, dpi=110)
    return target


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(sys.argv[1], int(sys.argv[2]))
    else:
        print(draw())
