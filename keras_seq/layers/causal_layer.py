"""What the layers have in common: inputs that are checked, and the causal contract."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_integer
from keras_seq._frozen_parts import FrozenParts
from keras_seq.layers.outline import Outlined
from keras_seq.layers.over_rows import FORWARDS, Order, over_rows


class CheckedLayer(FrozenParts, Outlined, keras.layers.Layer):
    """Abstract base of all layers: says in words which inputs it takes, and casts whole numbers.

    The first argument of a call must have the axes of `axes` and, once the layer is built, the
    width that it was built for. Where it holds integers or booleans it is cast to the compute type,
    as Keras does with floats. Nothing of this costs an operation where the input is of floats.

    A subclass calls `super().build(input_shape)` before it makes weights for a width.

    Attributes:
        axes: names of the axes of the input; `"..."` in front stands for any number.
        input_features: the width of the input, the size of its last axis, that the layer was built
            for; `None` before, and where any width will do.
    """

    axes: tuple[str, ...] = ("...", "d")
    input_features: Any = None

    def build(self, input_shape):
        self.check_shape(input_shape, known=True)
        self.input_features = int(input_shape[-1])

    def __call__(self, *args, **kwargs):
        name = self.call_signature_parameters[0]
        if args:
            args = (self.checked(args[0], name), *args[1:])
        elif name in kwargs:
            kwargs[name] = self.checked(kwargs[name], name)
        return super().__call__(*args, **kwargs)

    def checked(self, x, name: str = "x"):
        """The input of a call, after a check of its shape and in a float type."""
        shape = getattr(x, "shape", None)
        if shape is None or getattr(shape, "rank", 0) is None:
            return x
        self.check_shape(shape, name)
        if isinstance(x, keras.KerasTensor):  # cast when there are values
            return x
        return as_float(x, self.compute_dtype)

    def check_shape(self, shape, name: str = "x", known: bool = False) -> None:
        """Refuses an input of another shape than the layer takes.

        Args:
            shape: of the input.
            name: of the argument.
            known: whether its width must be known.

        Raises:
            ValueError: says what is expected and what came.
        """
        shape, axes = tuple(shape), ", ".join(self.axes)
        any_rank = self.axes[0] == "..."
        least = len(self.axes) - any_rank
        received = f"Received: {name} of shape {shape}"
        if len(shape) < least or (len(shape) > least and not any_rank):
            raise ValueError(
                f"`{name}` must have shape ({axes}). {received}. Reshape it, for example with "
                "`keras.ops.expand_dims`."
            )
        if known and shape[-1] is None:
            raise ValueError(
                f"`{name}` must have shape ({axes}) with d known. {received}. Give the layer or "
                "`keras.Input` before it a fixed width."
            )
        if self.input_features and shape[-1] not in (None, self.input_features):
            raise ValueError(
                f"`{name}` must have shape ({axes}) with d = {self.input_features}, for which the "
                f"{type(self).__name__} was built. {received}. Make a layer for this width."
            )


class CausalLayer(CheckedLayer):
    """Abstract base of causal layers: the contract of what can be the core of a model.

    A subclass implements `output_units`, `get_initial_state` and `call`; the output of `call` comes
    first and the state last. It has `get_masks` if it has dropout, which then is drawn by nothing
    else. The rest follows from these.

    **Masks.** A masked step is left out: at its valid steps a row gives what the row of these steps
    alone gives, and its state is that after the last of them, wherever the masked steps stand. At a
    masked step the output is that of the last valid step before it, and zero before the first one,
    as in Keras' recurrent layers. The base sees to this around each `call`, which gets the valid
    steps of a row first, then zeros, and a `mask` in that order. What is left to a subclass is its
    state: a `call` without the argument `mask` gives none where there is a mask.

    Args:
        go_backwards: read each row from its last step to its first. The outputs are in the order of
            reading, as with Keras' recurrent layers: `keras.layers.Bidirectional` turns them round.
        return_sequences: return the outputs of all steps; else the last valid one of each row.
        lookahead: steps n after its own that an output has seen. A whole sequence gets n steps of
            zeros at its end. A call with a state, or one that returns it, answers n steps late:
            leave the first n outputs away, and give n steps of zeros after the last one.
        zero_output_for_mask: whether the outputs at masked steps are zeros.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, d).
        initial_state: a state from `get_initial_state` or an earlier call; `None` for no past.
        return_state: also return the state after the last step, as the last element.
        training: whether to draw dropout masks where `masks` is `None`.
        masks: the dropout masks to use whatever `training` is, as from `get_masks`; `{}` for none.
        mask: (b, t), true at valid steps; `None` for that of Keras that x carries, or none.

    Output shape:
        (b, t, u) with u the `output_units`, or (b, u) with `return_sequences=False`.
    """

    axes = ("b", "t", "d")
    stateful = False  # asked by `keras.layers.Bidirectional`, as the next one
    return_state = False

    def __init__(
        self,
        *,
        go_backwards: bool = False,
        return_sequences: bool = True,
        lookahead: int = 0,
        zero_output_for_mask: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.go_backwards = bool(go_backwards)
        self.return_sequences = bool(return_sequences)
        self.lookahead = check_integer("lookahead", lookahead, least=0)
        self.zero_output_for_mask = bool(zero_output_for_mask)
        self.supports_masking = True

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "call" in cls.__dict__:
            cls.call = over_rows(cls.call)

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **with_carried_mask(self, args, kwargs))

    @property
    def order(self) -> Order:
        """In which order a call reads each row, and what it hands out."""
        return Order(
            self.go_backwards, self.lookahead, self.return_sequences, self.zero_output_for_mask
        )

    @property
    def is_causal(self) -> bool:
        """Whether no output has seen a step after its own."""
        return not (self.go_backwards or self.lookahead)

    @property
    def output_units(self) -> int:
        """Width of the output, of a built layer."""
        raise NotImplementedError

    @property
    def output_dtype(self) -> str:
        """Type of the output."""
        return self.compute_dtype

    @property
    def auxiliary_levels(self) -> tuple[int, ...]:
        """What the outputs of `return_auxiliary` belong to; empty where there are none."""
        return ()

    @property
    def auxiliary_scales(self) -> tuple[float, ...] | None:
        """The weight of each of them in a loss, besides a common one; `None` for ones."""
        return None

    @property
    def receptive_field(self) -> int | None:
        """Input steps that an output depends on, its own included; `None` for all.

        What lies before them may be left away.
        """
        return None

    @property
    def reach(self) -> int | None:
        """Input steps whose values an output depends on, its own included; `None` for all.

        It is less than the `receptive_field` where how many steps there were counts, not what they
        held, as it does for attention with absolute positions.
        """
        return self.receptive_field

    def get_initial_state(self, batch_size, kind: str | None = None) -> Any:
        """The state before the first step, a nest of tensors (b, ...).

        Args:
            batch_size: b, an integer or a scalar tensor.
            kind: `"exact"` for the state with which chunks equal the whole; `None` for the layer's
                default.
        """
        raise NotImplementedError

    def get_masks(self, batch_size) -> dict[str, Any]:
        """Draws the dropout masks of one call; `{}` without dropout.

        Args:
            batch_size: b, an integer or a scalar tensor.
        """
        return {}

    def masks_of(self, x, training, masks) -> dict[str, Any]:
        """The masks of a call: those given, else those drawn in training, else none."""
        if masks is not None:
            return masks
        return self.get_masks(ops.shape(x)[0]) if training else {}

    def call(self, x, initial_state=None, return_state=False, training=None, masks=None):
        raise NotImplementedError

    def kind_of(self, state) -> str | None:
        """The kind of a state, for `get_initial_state`, by its structure."""
        return None

    def compute_mask(self, inputs, previous_mask):
        if previous_mask is None or not self.return_sequences:
            return None
        return ops.flip(previous_mask, axis=1) if self.go_backwards else previous_mask

    def compute_output_shape(self, input_shape):
        return self.handed_out((*input_shape[:-1], self.output_units))

    def handed_out(self, shape) -> tuple:
        """The shape of what is handed out, of that of the outputs of all steps (..., t, u)."""
        shape = tuple(shape)
        return shape if self.return_sequences else (*shape[:-2], shape[-1])

    def compute_output_spec(
        self, x, initial_state=None, return_state=False, *, return_auxiliary=False, **options
    ):
        """Symbolic results of a call, with the structure that the layer's states have."""
        shape = self.compute_output_shape(x.shape)
        results: list[Any] = [keras.KerasTensor(shape, dtype=self.output_dtype)]
        if return_auxiliary:
            levels = (shape[0], len(self.auxiliary_levels), *shape[1:])
            results.append(keras.KerasTensor(levels, dtype=self.compute_dtype))
        if return_state:
            results.append(self._state_spec(shape[0], initial_state))
        return results[0] if len(results) == 1 else tuple(results)

    def _state_spec(self, batch, initial_state):
        """Symbolic states, one tensor each; what starts without steps may grow with each call."""
        kind = None if initial_state is None else self.kind_of(initial_state)
        return keras.tree.map_structure(
            lambda part: keras.KerasTensor(
                (batch, *(size or None for size in part.shape[1:])), dtype=part.dtype
            ),
            self.get_initial_state(0, kind=kind),
        )

    def get_config(self):
        # What is not as usual alone: earlier configurations have none of these.
        changed = {
            name: value
            for name, value in self.order._asdict().items()
            if value != getattr(FORWARDS, name)
        }
        return {**super().get_config(), **changed}


def with_carried_mask(layer, args, kwargs) -> dict[str, Any]:
    """The named arguments of a call, with the mask of Keras that its first argument carries.

    Keras hands it on only where this is the one tensor of the call.

    Args:
        layer: whose call takes `mask`.
        args: its arguments by place.
        kwargs: its named ones.
    """
    name = layer.call_signature_parameters[0]
    x = keras.tree.flatten(args[0] if args else kwargs.get(name))[:1]
    mask = getattr(x[0], "_keras_mask", None) if x else None
    if mask is None or kwargs.get("mask") is not None or not ops.is_tensor(mask):
        return kwargs
    return {**kwargs, "mask": mask}


def check_exact(kind) -> None:
    """Refuses any kind of state but the exact one."""
    if kind not in (None, "exact"):
        raise ValueError(
            "`kind` must be 'exact' or None: the layer has one kind of state. "
            f"Received: kind={kind!r}."
        )


def as_float(x, dtype):
    """A tensor or array in a type of floats where it holds integers or booleans; else as it is."""
    kind = keras.backend.standardize_dtype(x.dtype)
    if kind != "bool" and "int" not in kind:
        return x
    y, mask = ops.cast(x, dtype), getattr(x, "_keras_mask", None)
    if mask is not None:
        y._keras_mask = mask
    return y
