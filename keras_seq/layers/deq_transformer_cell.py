"""The cell of a deep equilibrium transformer."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_integer, check_norm_order, check_rate
from keras_seq._export import export
from keras_seq._random import bernoulli_mask, draw_seed
from keras_seq.layers.causal_layer import check_exact
from keras_seq.layers.equilibrium_cell import EquilibriumCell
from keras_seq.layers.outline import Part, Residual
from keras_seq.layers.relative_attention import (
    RelativeAttention,
    add_kernel,
    default_initializer,
    normalized,
)
from keras_seq.ops.packing import last_steps

EPSILON = 1e-5


@export("keras_seq.layers.DEQTransformerCell")
class DEQTransformerCell(EquilibriumCell):
    """One transformer layer with relative attention, as the cell of a `DeepEquilibrium`.

    Bai, Kolter and Koltun, *Deep Equilibrium Models* (NeurIPS 2019), section 3.2 and appendix. The
    input enters as an injection u = W x + b that is added to queries, keys and values:

        a = LN(z + attention(z; u)),    f = LN(a + W₂ relu(W₁ a + b₁) + b₂)

    With `norm_order="pre"`, after the released code: a = z + attention(LN(z); u) and
    f = n + W₂ relu(W₁ n + b₁) + b₂ with n = LN(a). The second sum takes n, not a, which sets it
    apart from a usual pre-norm layer. The layer norms have no weights.

    Injection, keys and values of the memory, projected positions, normalised kernels and dropout
    masks are made once a call.

    **State.** The memory: the last equilibria ("hidden"), their injections ("injected") and which
    of them exist ("valid"). It is always as long as the longer of the two memory lengths, and
    each phase looks at the newest steps that it may. Chunks equal the whole sequence, to the
    solver's tolerance, while nothing that a step would see has left the memory: for sequences no
    longer than it, and for all sequences if it holds `span - 1` steps.

    Args:
        units: d, the width of z.
        heads: number of heads; it must divide d.
        inner_units: width of the feed-forward part.
        memory_length: steps of the memory in training.
        inference_memory_length: steps of the memory outside of training; as in training if `None`.
        span: how many steps a step sees, itself included; `None` for all.
        norm_order: `"pre"` or `"post"`.
        weight_normalization: normalise each output channel of all kernels but the injection's.
        hidden_dropout: rate of the masks on the attention's output, on the inner and on the outer
            output of the feed-forward part, each constant over time.
        attention_dropout: rate of the dropout of the attention probabilities.
        position_dropout: rate of a mask on the features of the sinusoids.
        inject: whether the cell owns W and b; else x is u itself, (b, t, 3d).
        kernel_initializer: of the kernels; uniform within ± 1 / √fan-in by default.
        injection_initializer: of W; the same default.
        position_initializer: of the kernel of the positions; `kernel_initializer` if not given.
        seed: of the masks.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        z: (b, t, d).
        x: (b, t, e).
        training: whether to draw masks.
        initial_state: the memory; none if not given.

    Output shape:
        The shape of z.

    Raises:
        ValueError: on sizes that do not fit.

    Example:

    >>> cell = keras_seq.layers.DEQTransformerCell(8, heads=2, inner_units=16, memory_length=4)
    >>> layer = keras_seq.layers.DeepEquilibrium(cell)
    >>> z, state = layer(ops.ones((2, 5, 6)), return_state=True)
    >>> tuple(z.shape), tuple(state["hidden"].shape)
    ((2, 5, 8), (2, 4, 8))
    """

    facts = ("span", "memory_length")

    def __init__(
        self,
        units: int,
        heads: int,
        inner_units: int,
        memory_length: int = 0,
        inference_memory_length: int | None = None,
        span: int | None = None,
        norm_order: str = "post",
        weight_normalization: bool = False,
        hidden_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        position_dropout: float = 0.0,
        inject: bool = True,
        kernel_initializer: Any = None,
        injection_initializer: Any = None,
        position_initializer: Any = None,
        seed: int | None = None,
        **kwargs,
    ):
        norm_order = check_norm_order(norm_order, kwargs)
        super().__init__(**kwargs)
        self.units = check_integer("units", units)
        self.inner_units = check_integer("inner_units", inner_units)
        if units % check_integer("heads", heads) or units % 2:
            raise ValueError(
                "`units` must be even and divisible by `heads`. "
                f"Received: units={units}, heads={heads}."
            )
        self.memory_length = check_integer("memory_length", memory_length, 0)
        self.inference_memory_length = (
            None
            if inference_memory_length is None
            else check_integer("inference_memory_length", inference_memory_length, 0)
        )
        self.norm_order = norm_order
        self.weight_normalization = weight_normalization
        self.hidden_dropout = check_rate(hidden_dropout, "hidden_dropout")
        self.position_dropout = check_rate(position_dropout, "position_dropout")
        self.inject = inject
        if kernel_initializer is None:
            # Small kernels make f nearly the identity on normalised vectors: no one equilibrium.
            kernel_initializer = default_initializer(True)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        if injection_initializer is None:
            injection_initializer = default_initializer(True)
        self.injection_initializer = keras.initializers.get(injection_initializer)
        if position_initializer is None:
            position_initializer = self.kernel_initializer.clone()
        self.position_initializer = keras.initializers.get(position_initializer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.attention = RelativeAttention(
            heads,
            span=span,
            dropout=attention_dropout,
            weight_normalization=weight_normalization,
            kernel_initializer=self.kernel_initializer.clone(),
            position_initializer=self.position_initializer.clone(),
            dtype=self.dtype_policy,
            name="attention",
        )

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.attention.heads

    @property
    def span(self) -> int | None:
        """How many steps a step sees."""
        return self.attention.span

    @property
    def state_units(self) -> int:
        """Width of z, `units`."""
        return self.units

    @property
    def output_units(self) -> int:
        """Width of the output, `units`."""
        return self.units

    @property
    def _pre(self) -> bool:
        return self.norm_order == "pre"

    def build(self, z_shape, x_shape):
        super().build(x_shape)
        if not self.attention.built:
            self.attention.build((None, None, self.units))
        if self.inject:
            self.injection_kernel = self._weight(
                "injection_kernel", (x_shape[-1], 3 * self.units), self.injection_initializer
            )
            self.injection_bias = self._weight("injection_bias", (3 * self.units,), "zeros")
        elif x_shape[-1] != 3 * self.units:
            raise ValueError(
                "With `inject=False` x must be the injection of width 3 * units. "
                f"Received: units={self.units}, x of shape {tuple(x_shape)}."
            )
        for name, shape in (
            ("inner", (self.units, self.inner_units)),
            ("outer", (self.inner_units, self.units)),
        ):
            kernel, gain = add_kernel(
                self, f"{name}_kernel", shape, self.kernel_initializer, self.weight_normalization
            )
            setattr(self, f"{name}_kernel", kernel)
            setattr(self, f"{name}_gain", gain)
            setattr(self, f"{name}_bias", self._weight(f"{name}_bias", shape[1:], "zeros"))

    def _weight(self, name, shape, initializer):
        return self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)

    # State

    @property
    def _kept(self) -> int:
        """Steps of the state."""
        return max(self.memory_length, self.inference_memory_length or 0)

    def get_initial_state(self, batch_size, kind=None):
        """An empty memory.

        Args:
            batch_size: b, an integer or a scalar tensor.
            kind: `"exact"` or `None`; there is one kind.
        """
        check_exact(kind)
        steps = self._kept
        return {
            "hidden": ops.zeros((batch_size, steps, self.units), self.compute_dtype),
            "injected": ops.zeros((batch_size, steps, 3 * self.units), self.compute_dtype),
            "valid": ops.zeros((batch_size, steps), self.compute_dtype),
        }

    def next_state(self, z, x, initial_state, mask=None):
        """The memory after a piece: the newest steps of the old one and of the piece.

        Args:
            z: the piece's equilibrium, (b, t, d).
            x: its input, (b, t, e).
            initial_state: the memory before it.
            mask: (b, t), true at the first steps of each row, which count; `None` where all do.
        """
        steps = ops.shape(initial_state["hidden"])[1]
        news = {"hidden": z, "injected": self.injection(x), "valid": ops.ones_like(z[:, :, 0])}
        state = {}
        for name, new in news.items():
            old = initial_state[name]
            both = ops.concatenate([old, ops.cast(new, old.dtype)], axis=1)
            if mask is None:
                state[name] = both[:, ops.shape(both)[1] - steps :]
            else:
                state[name] = last_steps(both, mask, steps)
        return state

    def injection(self, x):
        """u of an input, (b, t, 3d)."""
        if not self.inject:
            return x
        kernel = ops.cast(ops.convert_to_tensor(self.injection_kernel), self.compute_dtype)
        bias = ops.cast(ops.convert_to_tensor(self.injection_bias), self.compute_dtype)
        return ops.matmul(x, kernel) + bias

    # Prepare, then iterate

    def get_masks(self, batch_size):
        """Draws the dropout masks of one call.

        Args:
            batch_size: b, an integer or a scalar tensor.

        Returns:
            A dict: `attention_output` and `outer` (b, 1, d), `inner` (b, 1, inner_units),
            `position` (d,), and `attention_seed` (2,), from which the masks of the probabilities
            are drawn; rates of zero have no entry.
        """
        masks = {}
        if self.hidden_dropout:
            for name, width in (
                ("attention_output", self.units),
                ("inner", self.inner_units),
                ("outer", self.units),
            ):
                masks[name] = self._mask((batch_size, 1, width), self.hidden_dropout)
        if self.position_dropout:
            masks["position"] = self._mask((self.units,), self.position_dropout)
        if self.attention.dropout:
            masks["attention_seed"] = draw_seed(self.seed_generator).value
        return masks

    def _mask(self, shape, rate):
        return bernoulli_mask(shape, rate, draw_seed(self.seed_generator), self.compute_dtype)

    def prepare(self, x, training=None, initial_state=None, masks=None):
        """What stays the same in all steps of a solve.

        Args:
            x: (b, t, e).
            training: chooses the memory's length, and whether masks are drawn.
            initial_state: the memory, or `None`.
            masks: of `get_masks`; drawn in training if not given.
        """
        length = ops.shape(x)[1]
        if masks is None:
            masks = self.get_masks(ops.shape(x)[0]) if training else {}
        injected, memory, valid = self.injection(x), None, None
        steps = self.memory_length
        if not training and self.inference_memory_length is not None:
            steps = self.inference_memory_length
        if initial_state is not None and steps:
            memory, old, valid = (
                initial_state[name][:, self._kept - steps :]
                for name in ("hidden", "injected", "valid")
            )
            injected = ops.concatenate([ops.cast(old, injected.dtype), injected], axis=1)
            if self._pre:
                memory = layer_norm(memory)
        context = {
            "attention": self.attention.prepare(
                length,
                memory,
                valid,
                injected,
                position_mask=masks.get("position"),
                dropout_seed=masks.get("attention_seed"),
            )
        }
        for name in ("inner", "outer"):
            kernel = normalized(getattr(self, f"{name}_kernel"), getattr(self, f"{name}_gain"))
            bias = ops.convert_to_tensor(getattr(self, f"{name}_bias"))
            context[f"{name}_kernel"] = ops.cast(kernel, self.compute_dtype)
            context[f"{name}_bias"] = ops.cast(bias, self.compute_dtype)
        for name in ("attention_output", "inner", "outer"):
            if name in masks:
                context[f"{name}_mask"] = ops.cast(masks[name], self.compute_dtype)
        return context

    def iterate(self, z, context):
        """One application of f."""
        return self.feed_forward(self.attend(z, context), context)

    def attend(self, z, context):
        """The half of attention: a."""
        x = layer_norm(z) if self._pre else z
        attended = self.attention.iterate(x, context["attention"])
        if "attention_output_mask" in context:
            attended = attended * context["attention_output_mask"]
        return z + attended if self._pre else layer_norm(z + attended)

    def feed_forward(self, a, context):
        """The feed-forward half: f from a."""
        a = layer_norm(a) if self._pre else a
        shape = ops.shape(a)
        rows = ops.matmul(ops.reshape(a, (-1, self.units)), context["inner_kernel"])
        inner = ops.relu(rows + context["inner_bias"])
        if "inner_mask" in context:
            inner = ops.reshape(inner, (*shape[:-1], self.inner_units)) * context["inner_mask"]
            inner = ops.reshape(inner, (-1, self.inner_units))
        rows = ops.matmul(inner, context["outer_kernel"]) + context["outer_bias"]
        outer = ops.reshape(rows, shape)
        if "outer_mask" in context:
            outer = outer * context["outer_mask"]
        return a + outer if self._pre else layer_norm(a + outer)

    def outline(self):
        """The parts in order, with their residual connections, for diagrams."""
        norm = Part("layer norm")
        gains = [gain for gain in (self.inner_gain, self.outer_gain) if gain is not None]
        feed_forward = Part(
            "feed-forward",
            (self.inner_kernel, self.inner_bias, self.outer_kernel, self.outer_bias, *gains),
            (f"inner units {self.inner_units}", "activation relu"),
        )
        if self._pre:
            return Residual((norm, self.attention)), norm, Residual((feed_forward,))
        return Residual((self.attention,)), norm, Residual((feed_forward,)), norm

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "heads": self.heads,
            "inner_units": self.inner_units,
            "memory_length": self.memory_length,
            "inference_memory_length": self.inference_memory_length,
            "span": self.span,
            "norm_order": self.norm_order,
            "weight_normalization": self.weight_normalization,
            "hidden_dropout": self.hidden_dropout,
            "attention_dropout": self.attention.dropout,
            "position_dropout": self.position_dropout,
            "inject": self.inject,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "injection_initializer": keras.initializers.serialize(self.injection_initializer),
            "position_initializer": keras.initializers.serialize(self.position_initializer),
            "seed": self.seed,
        }


def layer_norm(x):
    """Zero mean and unit variance over the last axis; no gain, no bias."""
    centred = x - ops.mean(x, axis=-1, keepdims=True)
    variance = ops.mean(centred * centred, axis=-1, keepdims=True)
    return centred * ops.rsqrt(variance + EPSILON)
