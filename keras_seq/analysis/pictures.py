"""The pictures of an analysis; they need matplotlib (`pip install "keras-seq[plots]"`)."""

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_seq import _files

MISSING = (
    'Pictures need matplotlib (pip install "keras-seq[plots]"). The numbers alone do not: give '
    "--json."
)


def available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw(numbers: Mapping[str, Any]) -> dict[str, bytes]:
    """PNG pictures by name, from the numbers of `analyze`.

    Raises:
        RuntimeError: without matplotlib.
    """
    if not available():
        raise RuntimeError(MISSING)
    title = str(numbers["model"])
    return {
        "entropy": _entropy(numbers["entropy"], title),
        "saliency": _saliency(numbers["saliency"], title),
        "embeddings": _embeddings(numbers["embeddings"], title),
    }


def log_images(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Writes pictures as images for TensorBoard.

    Args:
        folder: the folder of the event file.
        pictures: PNG data by name.
    """
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    values = []
    for name, data in pictures.items():
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
        image = summary_pb2.Summary.Image(
            width=width, height=height, colorspace=4, encoded_image_string=data
        )
        values.append(summary_pb2.Summary.Value(tag=f"analysis/{name}", image=image))
    writer = EventFileWriter(str(folder))
    summary = summary_pb2.Summary(value=values)
    writer.add_event(event_pb2.Event(wall_time=time.time(), step=0, summary=summary))
    writer.close()


def write(path: Path, data: bytes) -> None:
    """Replaces a picture file."""
    with _files.atomic(path) as temporary:
        temporary.write_bytes(data)


def shown(token: str) -> str:
    """A token as a label: spaces and line ends made visible."""
    return {" ": "␣", "\n": "↵", "\t": "⇥"}.get(token, token)


def _figure(width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()


def _entropy(numbers: Mapping[str, Any], title: str) -> bytes:
    figure = _figure(7, 4)
    plot = figure.subplots()
    edges, counts = np.array(numbers["edges"]), np.array(numbers["counts"])
    plot.bar(edges[:-1], counts / numbers["tokens"], np.diff(edges), align="edge", alpha=0.8)
    label = f"mean {numbers['mean']:.3f}"
    plot.axvline(numbers["mean"], color="C1", label=label)
    plot.axvline(numbers["loss"], color="C3", linestyle="--", label=f"loss {numbers['loss']:.3f}")
    plot.set(xlabel="entropy of the prediction, nats", ylabel="share of the tokens")
    plot.set_title(f"{title}: {numbers['tokens']:,} predictions")
    plot.legend()
    return _png(figure)


def _saliency(numbers: Mapping[str, Any], title: str) -> bytes:
    norms = np.array(numbers["norms"])
    tokens = [shown(token) for token in numbers["tokens"]]
    size = len(tokens)
    side = min(2.5 + 0.22 * size, 14)
    figure = _figure(side + 2.5, side)
    plot = figure.subplots()
    highest = np.maximum(norms.max(axis=1, keepdims=True), 1e-30)
    future = np.triu(np.ones_like(norms, bool), 1)
    shares = np.ma.array(norms / highest, mask=future)
    image = plot.imshow(shares, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    turned = max(map(len, tokens)) > 1
    plot.set_xticks(range(size), tokens, rotation=90 if turned else 0, fontsize=8)
    labels = [
        f"{token}  →  " + "  ".join(shown(word) for word, _ in row["top"])
        for token, row in zip(tokens, numbers["predictions"], strict=True)
    ]
    plot.set_yticks(range(size), labels, fontsize=8)
    plot.set(xlabel="input", ylabel="last input  →  likeliest next, best first")
    plot.set_title(f"{title}: gradient norm, each row by its maximum", fontsize=10)
    figure.colorbar(image, ax=plot, shrink=0.6)
    return _png(figure)


def _embeddings(numbers: Mapping[str, Any], title: str) -> bytes:
    tags = numbers.get("tags") or []
    figure = _figure(7 if not tags else 12, 4)
    plots = np.atleast_1d(figure.subplots(1, 2 if tags else 1))
    bands = numbers["bands"]
    _bars(
        plots[0],
        [f"{band['first']}-{band['last']}" for band in bands],
        [band["variance"] for band in bands],
        numbers["variance"],
    )
    plots[0].set(xlabel="rank by frequency", ylabel="variance of the embeddings")
    plots[0].set_title(title)
    if tags:
        tags = tags[:20]
        names, values = [row["tag"] for row in tags], [row["variance"] for row in tags]
        _bars(plots[1], names, values, numbers["variance"])
        plots[1].set_xlabel("tag, that of the most words first")
    return _png(figure)


def _bars(plot, names: list[str], values: list[float], whole: float) -> None:
    plot.bar(range(len(names)), values, alpha=0.8)
    plot.axhline(whole, color="C1", label="all words")
    plot.set_xticks(range(len(names)), names, rotation=30 if len(names) > 4 else 0)
    plot.legend()
