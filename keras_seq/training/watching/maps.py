"""Pictures of what a model looks at: saliency maps and attention weights."""

import io
import math
from typing import Any

import numpy as np
import tensorflow as tf

from keras_seq.layers import recorded_attention
from keras_seq.models import LanguageModel
from keras_seq.training.watching.gradients import input_norms, log_probs, word_norms
from keras_seq.training.watching.labels import label

_TOKENS = 32  # of a passage, at most
_LOGITS = 1 << 25  # numbers that the copies of a passage may have as predictions
_HEADS = 8  # maps of one layer, at most
_LAYERS = 4  # layers, the first and the last among them
_STEPS = 128  # shown of an attention over a long sequence, its end


def drawn_maps(model: Any, x: Any, vocabulary: Any = None) -> dict[str, bytes]:
    """Pictures by name, as PNG data: `saliency`, and `attention/…` where a layer gives weights.

    Args:
        model: a model of the zoo.
        x: inputs of one batch; the first sequence is drawn.
        vocabulary: the vocabulary of the ids, or `None`.
    """
    first = tf.convert_to_tensor(x)[:1]
    if isinstance(model, LanguageModel):
        size = int(math.sqrt(_LOGITS / model.vocabulary_size))
        ids = first[:, : max(8, min(_TOKENS, size))]
        tokens = _labels(ids, vocabulary)
        with recorded_attention() as weights:
            vectors = tf.convert_to_tensor(model.embedding(ids))
            words = tf.argmax(log_probs(model, vectors)[0], axis=-1, output_type=tf.int32)
        pictures = {"saliency": _square(word_norms(model, vectors, words), tokens)}
    else:
        tokens = None
        with recorded_attention() as weights:
            model(first, training=False)
        pictures = {"saliency": _line(np.asarray(first[0], np.float32), input_norms(model, first))}
    paths = list(weights)
    if len(paths) > _LAYERS:
        paths = [paths[round(i * (len(paths) - 1) / (_LAYERS - 1))] for i in range(_LAYERS)]
    for path in paths:
        name = path.partition("/")[2] or path
        pictures[f"attention/{name}"] = _heads(_numbers(weights[path][0]), tokens)
    return pictures


def _numbers(tensor: Any) -> np.ndarray:
    return np.asarray(tf.cast(tensor, tf.float32))


def _labels(ids: Any, vocabulary: Any) -> list[str] | None:
    """The tokens of a passage, (1, t)."""
    if vocabulary is None:
        return None
    return [label(vocabulary.tokens[i]) for i in np.asarray(ids)[0]]


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=100)
    return data.getvalue()


def _square(norms: np.ndarray, tokens: list[str] | None) -> bytes:
    """Rows: predictions; columns: the words read before."""
    figure = _figure(6, 5.2)
    plot = figure.subplots()
    highest = np.maximum(norms.max(axis=1, keepdims=True), 1e-30)
    shares = np.ma.array(norms / highest, mask=np.triu(np.ones_like(norms, bool), 1))
    image = plot.imshow(shares, cmap="viridis", vmin=0, vmax=1)
    _ticks(plot, tokens)
    plot.set(xlabel="input", ylabel="last input before the prediction")
    plot.set_title("gradient norm, each row by its maximum", fontsize=10)
    figure.colorbar(image, ax=plot, shrink=0.7)
    return _png(figure)


def _ticks(plot: Any, tokens: list[str] | None) -> None:
    if tokens is not None:
        rotation = 90 if max(map(len, tokens)) > 1 else 0
        plot.set_xticks(range(len(tokens)), tokens, rotation=rotation, fontsize=7)
        plot.set_yticks(range(len(tokens)), tokens, fontsize=7)


def _line(values: np.ndarray, norms: np.ndarray) -> bytes:
    """A sequence and, below, how much its strongest output depends on each step."""
    figure = _figure(8, 3.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    if values.ndim == 2 and values.shape[1] > 4:
        upper.imshow(values.T, aspect="auto", cmap="Greys", origin="lower")
    else:
        upper.plot(values, linewidth=0.8)
    upper.set_title("input", fontsize=10)
    lower.fill_between(range(len(norms)), norms, step="mid", alpha=0.8)
    lower.set_title("norm of the strongest output's gradient", fontsize=10)
    lower.set_xlabel("step")
    return _png(figure)


def _heads(weights: np.ndarray, tokens: list[str] | None) -> bytes:
    """A map a head: (h, t, m + t), each row by its maximum; the m steps are left out."""
    steps = min(_STEPS, weights.shape[1])
    weights = weights[:_HEADS, -steps:, -steps:]
    weights = weights / np.maximum(weights.max(axis=-1, keepdims=True), 1e-30)
    columns = min(4, len(weights))
    rows = -(-len(weights) // columns)
    figure = _figure(2.9 * columns, 2.9 * rows + 0.3)
    plots = np.atleast_1d(figure.subplots(rows, columns)).reshape(-1)
    for head, plot in enumerate(plots):
        plot.axis("on" if head < len(weights) else "off")
        if head < len(weights):
            plot.imshow(weights[head], cmap="magma", vmin=0, vmax=1)
            plot.set_title(f"head {head + 1}", fontsize=9)
            _ticks(plot, tokens if columns * rows == 1 else None)
            plot.tick_params(labelsize=6)
    figure.supxlabel("looked at", fontsize=9)
    figure.supylabel("step", fontsize=9)
    return _png(figure)
