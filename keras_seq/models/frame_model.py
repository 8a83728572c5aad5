"""A model of polyphonic music: which notes sound in the next frame."""

from typing import Any

import keras
from keras import ops

from keras_seq._dtypes import float32_at_least
from keras_seq._export import export
from keras_seq.models.monitoring import lower_is_better
from keras_seq.models.sample_weights import blank
from keras_seq.models.sequence_classifier import SequenceReader, update_mean
from keras_seq.models.sequence_model import LossTerms


@export("keras_seq.models.FrameModel")
class FrameModel(SequenceReader):
    """Predicts each next frame of binary notes: causal core → dense → a logit for each note.

    The notes of a frame are independent given the past (Boulanger-Lewandowski et al., 2012; Table 2
    of the R-Transformer paper), so that a frame y with logits a has the negative log-likelihood

        Σₖ softplus(aₖ) - yₖ aₖ

    computed from the logits. `fit` takes (x, y) or (x, y, weights), with y the frames that follow
    and weights of shape (b, t), such as zeros on padding at the end: a causal core gives the
    frames before it the same outputs with and without it. A mask or lengths with x leave padding
    out wherever it stands.

    The metric `nll_per_frame` is the sum over the notes, averaged over the frames that count.

    Args:
        core: a causal layer (b, t, notes) → (b, t, o).
        notes: width of a frame.
        sum_over_time: minimise the mean over tunes of the sum over their frames, as the
            R-Transformer release does; otherwise the mean over frames.
        input_dropout: rate of variational dropout before the core.
        output_dropout: rate of variational dropout between core and dense layer.
        seed: seed of the dropout masks.
        **kwargs: of `keras.Model`.

    Call arguments:
        inputs: (b, t, notes) frames; or a dictionary of them as `"inputs"` with `"lengths"` (b,) or
            `"mask"` (b, t).
        initial_state: a state from `get_initial_state` or an earlier call.
        return_state: also return the final state.
        training: whether dropout is on.
        mask: (b, t), true at valid frames; `None` for that of Keras that they carry, or none.

    Output shape:
        (b, t, notes) logits in float32; with `return_state`, a pair with the state.

    Raises:
        ValueError: if `notes` is not positive.

    Example:

    >>> core = keras_seq.layers.RTransformer(units=8, levels=1, window=3, heads=2)
    >>> model = keras_seq.models.FrameModel(core, notes=5)
    >>> model.compile("adam")
    >>> tunes = np.random.randint(0, 2, (4, 9, 5)).astype("float32")
    >>> history = model.fit(tunes[:, :-1], tunes[:, 1:], verbose=0)
    >>> sorted(history.history)
    ['loss', 'nll_per_frame']
    """

    reads_both_ways = False

    def __init__(
        self,
        core: keras.layers.Layer,
        notes: int = 88,
        sum_over_time: bool = False,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs,
    ):
        if notes < 1:
            raise ValueError(f"`notes` must be positive. Received: notes={notes}.")
        super().__init__(
            core,
            notes,
            return_sequences=True,
            input_dropout=input_dropout,
            output_dropout=output_dropout,
            seed=seed,
            **kwargs,
        )
        self.notes = notes
        self.sum_over_time = sum_over_time
        self._nll_per_frame = lower_is_better("nll_per_frame")

    def predict_from(self, hidden):
        return ops.cast(self.dense(hidden), float32_at_least(self.compute_dtype))

    def element_losses(self, y, predictions):
        """(b, t) negative log-likelihoods of the frames, summed over the notes."""
        y = ops.cast(y, predictions.dtype)
        return ops.sum(ops.softplus(predictions) - y * predictions, axis=-1)

    def targets_in_words(self) -> tuple[str, str]:
        return "the frame that follows each frame", (
            "Set `notes` to the width of a frame; for frames give frames[:, :-1] and frames[:, 1:]."
        )

    def loss_terms(self, x, y, sample_weight=None, initial_state=None, training=None) -> LossTerms:
        terms = super().loss_terms(x, y, sample_weight, initial_state, training)
        if not self.sum_over_time:
            return terms
        weights = ops.ones_like(terms.report) if terms.weights is None else terms.weights
        # Tunes without a frame fill a batch up; they count as no tune.
        losses = blank(terms.report, terms.weights) * weights
        objective = ops.sum(losses, axis=1, keepdims=True)
        tunes = ops.cast(ops.any(weights > 0, axis=1, keepdims=True), weights.dtype)
        return terms._replace(objective=objective, weights=tunes, report_weights=weights)

    def update_metrics(self, terms: LossTerms) -> None:
        update_mean(self._nll_per_frame, terms)

    def own_metrics(self) -> list[keras.metrics.Metric]:
        return [self._nll_per_frame]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        unknown = ("vocabulary_size", "embedding_dim", "return_sequences", "auxiliary_weight")
        unknown = (*unknown, "pooling", "mask_zero")
        kept = {name: value for name, value in config.items() if name not in unknown}
        return {"notes": self.notes, "sum_over_time": self.sum_over_time, **kept}
