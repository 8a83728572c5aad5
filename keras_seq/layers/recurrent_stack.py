"""Several recurrent layers on top of each other, with dropout between them."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_seq._arguments import check_rate
from keras_seq._export import export
from keras_seq._random import DrawnSeed, bernoulli_mask, draw_seed
from keras_seq.layers.causal_layer import CausalLayer, check_exact
from keras_seq.layers.plain_layer import causal
from keras_seq.ops.lost_steps import only
from keras_seq.ops.packing import lengths_of


@export("keras_seq.layers.RecurrentStack")
class RecurrentStack(CausalLayer):
    """A stack of causal layers of the state contract, such as `PRU` and `LSTM`, as one layer.

    It is the core of a language model of several recurrent layers. Dropout between the layers is
    *variational* (one mask for all steps of a sequence: Gal and Ghahramani, 2016) or *standard* (a
    fresh mask for each step).

    A `LanguageModel` has variational dropout before and after its core. Where standard dropout is
    wanted there, give the rates here and none to the model. The temporal activation regulariser,
    which acts on the outputs before dropout, then belongs here as well.

    Args:
        layers: the layers, the first one below; each a `CausalLayer`, or any Keras layer with
            `call(x, initial_state, return_state)`, `get_initial_state` and `output_units`.
        dropout: rate between each two layers.
        input_dropout: rate before the first layer.
        output_dropout: rate after the last layer.
        variational: whether one mask serves all steps of a sequence, in all three places.
        temporal_activation_regularization: weight of the mean squared difference of successive
            outputs before dropout (Merity et al., 2018, section 4.6), a loss of this layer in
            training.
        seed: of the dropout masks.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, d).
        initial_state: a list with the state of each layer, or `None` for zeros.
        return_state: also return the final state, as the last element.
        training: whether to draw dropout masks.
        masks: what `get_masks` returned, to use whatever `training` is; `{}` for no dropout.
        mask: (b, t), true at valid steps, see `CausalLayer`.

    Output shape:
        (b, t, u) with u the width of the last layer.

    Raises:
        ValueError: if there is no layer, or a rate is not in [0, 1).

    Example:

    >>> layers = [keras_seq.layers.PRU(12, groups=2), keras_seq.layers.PRU(8, groups=2)]
    >>> core = keras_seq.layers.RecurrentStack(layers, dropout=0.4)
    >>> model = keras_seq.models.LanguageModel(50, embedding_dim=8, core=core)
    >>> tuple(model(np.zeros((2, 5), "int32")).shape)
    (2, 5, 50)
    """

    given_parts = ("layers",)

    def __init__(
        self,
        layers: Sequence[keras.layers.Layer],
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        variational: bool = True,
        temporal_activation_regularization: float = 0.0,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not layers:
            raise ValueError(f"`layers` must hold at least one layer. Received: layers={layers!r}.")
        for layer in layers:
            causal(layer, "layers")  # refuses what is none
        self.layers = list(layers)
        self.dropout = check_rate(dropout)
        self.input_dropout = check_rate(input_dropout, "input_dropout")
        self.output_dropout = check_rate(output_dropout, "output_dropout")
        self.variational = bool(variational)
        self.temporal_activation_regularization = temporal_activation_regularization
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def output_units(self) -> int:
        """Width of the output."""
        return causal(self.layers[-1]).output_units

    @property
    def output_dtype(self) -> str:
        """Type of the output, that of the last layer."""
        last = self.layers[-1]
        return getattr(last, "output_dtype", last.compute_dtype)

    def build(self, input_shape):
        super().build(input_shape)
        for layer in self.layers:
            if not layer.built:
                layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.built = True

    @property
    def _rates(self) -> list[float]:
        """The rate before each layer, and after the last one."""
        inner = [self.dropout] * (len(self.layers) - 1)
        return [self.input_dropout, *inner, self.output_dropout]

    def get_initial_state(self, batch_size, kind: str | None = None) -> list:
        """The states of all layers before the first step: zeros.

        Args:
            batch_size: b, an integer or a scalar tensor.
            kind: `"exact"` or `None`; there is one kind.
        """
        check_exact(kind)
        return [causal(layer).get_initial_state(batch_size) for layer in self.layers]

    def get_masks(self, batch_size) -> dict:
        """Draws the dropout of one call.

        Args:
            batch_size: b, an integer or a scalar tensor.

        Returns:
            A dictionary: `layer_<i>` (the layer's own masks) and, for each place with a rate,
            `dropout_<i>` before layer i, or after the last one: a mask (b, 1, width), or, for
            standard dropout, whose masks are as long as the sequence, the seed of the mask.
        """
        masks = {}
        widths = [self.input_features, *(layer.output_units for layer in self.layers)]
        for index, (rate, width) in enumerate(zip(self._rates, widths, strict=True)):
            if rate:
                seed = draw_seed(self.seed_generator)
                masks[f"dropout_{index}"] = (
                    bernoulli_mask((batch_size, 1, width), rate, seed)
                    if self.variational
                    else seed.next()
                )
        for index, layer in enumerate(self.layers):
            own = causal(layer).get_masks(batch_size)
            if own:
                masks[f"layer_{index}"] = own
        return masks

    def call(self, x, initial_state=None, return_state=False, training=None, masks=None, mask=None):
        masks = self.masks_of(x, training, masks)
        states = initial_state or [None] * len(self.layers)
        final = []
        for index, (layer, state) in enumerate(zip(self.layers, states, strict=True)):
            x = self._drop(x, index, masks)
            x = causal(layer)(
                x,
                initial_state=state,
                return_state=return_state,
                training=training,
                masks=masks.get(f"layer_{index}", {}),
                mask=mask,
            )
            if return_state:
                x, state = x
                final.append(state)
        if training and self.temporal_activation_regularization:
            change = ops.cast(x[:, 1:] - x[:, :-1], "float32")
            count = ops.size(change)
            if mask is not None:
                change = only(mask[:, 1:], change)
                count = ops.sum(lengths_of(mask[:, 1:])) * change.shape[-1]
            size = ops.cast(ops.maximum(count, 1), "float32")
            penalty = ops.sum(ops.square(change)) / size
            self.add_loss(self.temporal_activation_regularization * penalty)
        x = self._drop(x, len(self.layers), masks)
        return (x, final) if return_state else x

    def _drop(self, x, index: int, masks):
        mask = masks.get(f"dropout_{index}")
        if mask is None:
            return x
        if not self.variational:
            mask = bernoulli_mask(ops.shape(x), self._rates[index], DrawnSeed(mask), x.dtype)
        return x * ops.cast(mask, x.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "layers": [keras.saving.serialize_keras_object(layer) for layer in self.layers],
            "dropout": self.dropout,
            "input_dropout": self.input_dropout,
            "output_dropout": self.output_dropout,
            "variational": self.variational,
            "temporal_activation_regularization": self.temporal_activation_regularization,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["layers"] = [
            keras.saving.deserialize_keras_object(layer, custom_objects=custom_objects)
            for layer in config["layers"]
        ]
        return super().from_config(config)
