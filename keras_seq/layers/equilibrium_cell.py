"""The contract of the cells of deep equilibrium layers."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import keras

from keras_seq import gradients
from keras_seq._export import export
from keras_seq.layers.causal_layer import CheckedLayer


@export("keras_seq.layers.EquilibriumCell")
class EquilibriumCell(CheckedLayer):
    """Abstract base of the cells f(z, x) of a `DeepEquilibrium`.

    A subclass makes its weights in `build(z_shape, x_shape)` and has `iterate`. Work that depends
    on x alone is done once a call, in `prepare`: kernels are normalised, masks drawn and inputs
    projected there. `iterate` is a function of z and of this context, without anything random. All
    else has a default.

    **State.** A causal cell, which looks back from step t to earlier steps only, has state if it
    has `get_initial_state` and `next_state`. `prepare` is then always given the state, zeros at the
    start: what precedes a piece of a sequence (past equilibria, past inputs) goes into the context
    from here, and stays as it is while the piece is solved. A cell with several kinds of state
    chooses for `kind=None`, and recognises the kind of a state by its structure.

    **Masks.** Of a batch of padded rows the layer moves the valid steps to the front, and keeps z
    at zero behind them, whatever the cell gives there: a causal cell needs no more. `next_state`
    must then take `mask` (b, t), true first, and give the state after the last valid step of each
    row. A cell in which a step sees later ones takes `mask` in `prepare`. One without state that
    takes none is warned of, unless it sets `supports_masking`.

    Attributes:
        axes: names of the axes of x.
        state_units: the width of z; `None` for the `units` of the layer, or the width of x.
        output_units: the width of `outputs`; `None` for that of z.
        reach: of a causal cell in which what happens at one step of the sequence is passed on to
            later ones little by little: how many further steps an application settles, once all
            before them are. The residual of a sequence may then grow for its length divided by
            this, and plain iteration needs so many applications, and what one step needs for
            itself. `None` where nothing is known.

    Example:

    >>> class Cell(keras_seq.layers.EquilibriumCell):
    ...     def build(self, z_shape, x_shape):
    ...         self.inner = keras.layers.Dense(z_shape[-1], kernel_initializer="zeros")
    ...         self.inner.build(z_shape)
    ...
    ...     def iterate(self, z, context):
    ...         return ops.tanh(self.inner(z) + context)
    >>> layer = keras_seq.layers.DeepEquilibrium(Cell())
    >>> bool(np.allclose(layer(ops.ones((2, 5, 3))), np.tanh(1.0)))
    True
    """

    axes = ("b", "t", "d")
    state_units: Any = None
    output_units: Any = None
    reach: int | None = None

    def __call__(self, z, x, *args, **kwargs):
        return keras.layers.Layer.__call__(self, z, self.checked(x), *args, **kwargs)

    def prepare(self, x, training=None, initial_state=None, masks=None) -> Any:
        """What stays the same in all steps of a solve: the context, a nest of tensors.

        Args:
            x: the input of a call, or a piece of it.
            training: as usual.
            initial_state: the state before x; `None` where the cell has no state.
            masks: of `get_masks`; `None` where the cell is called by itself.
        """
        return x

    def iterate(self, z, context):
        """One application of f.

        Args:
            z: the value.
            context: of `prepare`.
        """
        raise NotImplementedError

    def outputs(self, z):
        """The output of an equilibrium: all of it.

        Args:
            z: the equilibrium.
        """
        return z

    def get_masks(self, batch_size) -> dict[str, Any]:
        """Draws the dropout masks of one call; `{}` without dropout.

        Args:
            batch_size: b, an integer or a scalar tensor.
        """
        return {}

    def get_initial_state(self, batch_size, kind: str | None = None) -> Any:
        """The state before the first step, a nest of tensors (b, ...) of fixed shapes.

        Args:
            batch_size: b, an integer or a scalar tensor.
            kind: `"exact"` for the state with which chunks equal the whole; `None` for the cell's
                default.

        Raises:
            ValueError: if the cell has no state.
        """
        refuse_state(self)

    def next_state(self, z, x, initial_state) -> Any:
        """The state after a piece of a sequence, like the one before it.

        Args:
            z: the equilibrium of the piece, (b, t, ...), t of 1 or more.
            x: its input.
            initial_state: the state before it.
        """
        refuse_state(self)

    def call(self, z, x, training=None, initial_state=None, masks=None):
        return self.iterate(z, self.prepare(x, training, initial_state, masks))

    # What the layer asks besides

    @property
    def has_state(self) -> bool:
        """Whether the cell has state."""
        return type(self).get_initial_state is not EquilibriumCell.get_initial_state

    @property
    def built_by_call(self) -> bool:
        """Whether a symbolic call builds the cell and tells the shape of what it returns."""
        return not self.has_state

    def takes_mask(self, method: str) -> bool:
        """Whether a method of the cell takes `mask`."""
        return _takes_mask(getattr(self, method))

    def check_mask(self) -> None:
        """Warns of a cell that may see what stands behind the last valid step."""
        if not (self.has_state or self.supports_masking or self.takes_mask("prepare")):
            _warn_of_mask(self)

    def bound(
        self, x, training, initial_state, masks, start=None, mask=None
    ) -> tuple[Callable, Any]:
        """f as a function of z and the context, and the context.

        Args:
            x: as in `prepare`.
            training: as in `prepare`.
            initial_state: as in `prepare`.
            masks: as in `prepare`.
            start: a value with which seeds that `iterate` draws from move on, once; or `None`.
            mask: (b, t), true at the first steps of each row, for a `prepare` that takes it.
        """
        more = {"mask": mask} if mask is not None and self.takes_mask("prepare") else {}
        return self.iterate, self.prepare(x, training, initial_state, masks, **more)


class AdaptedCell:
    """The contract of `EquilibriumCell` for any Keras layer that is called as `cell(z, x)`.

    What the layer has of the contract's methods is used; its `prepare`, or else its `call`, is
    given those of the further arguments that it knows.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: keras.layers.Layer):
        self._layer: Any = layer
        self.has_state = self._has("get_initial_state")
        self._prepares = self._has("prepare")
        self.built_by_call = not (self._prepares and self.has_state)
        function = self._layer.prepare if self._prepares else layer.call
        self._known = tuple(inspect.signature(function).parameters)

    def _has(self, name: str) -> bool:
        return callable(getattr(self._layer, name, None))

    @property
    def state_units(self) -> Any:
        """The width of z: the attribute `state_units` or `units`, if the layer has one."""
        units = getattr(self._layer, "units", None)
        return getattr(self._layer, "state_units", units)

    @property
    def output_units(self) -> Any:
        """The width of `outputs`."""
        return self._layer.output_units if self._has("outputs") else None

    @property
    def reach(self) -> int | None:
        """Steps of the sequence that an application settles."""
        return getattr(self._layer, "reach", None)

    def checked(self, x, name: str = "x"):
        """The input as it is, unless the layer is one of ours."""
        return self._layer.checked(x, name) if isinstance(self._layer, CheckedLayer) else x

    def outputs(self, z):
        """The output of an equilibrium."""
        return self._layer.outputs(z) if self._has("outputs") else z

    def get_masks(self, batch_size) -> dict[str, Any]:
        """Draws the dropout masks of one call."""
        return self._layer.get_masks(batch_size) if self._has("get_masks") else {}

    def get_initial_state(self, batch_size, kind=None):
        """The state before the first step; refused if the layer has none."""
        if not self.has_state:
            refuse_state(self._layer)
        return self._layer.get_initial_state(batch_size, **({"kind": kind} if kind else {}))

    def next_state(self, z, x, initial_state, **options):
        """The state after a piece."""
        return self._layer.next_state(z, x, initial_state, **options)

    def takes_mask(self, method: str) -> bool:
        """Whether a method of the layer takes `mask`."""
        return _takes_mask(getattr(self._layer, method))

    def check_mask(self) -> None:
        """Warns of a layer that may see what stands behind the last valid step."""
        if not (self.has_state or self._layer.supports_masking or "mask" in self._known):
            _warn_of_mask(self._layer)

    def bound(
        self, x, training, initial_state, masks, start=None, mask=None
    ) -> tuple[Callable, Any]:
        """f as a function of z and the context, and the context."""
        given = {"training": training} if "training" in self._known else {}
        tensors = {} if initial_state is None else {"initial_state": initial_state}
        if mask is not None and "mask" in self._known:
            tensors["mask"] = mask
        if masks is not None and self._has("get_masks"):
            tensors["masks"] = masks
        if self._prepares:
            return self._layer.iterate, self._layer.prepare(x, **given, **tensors)

        def run(z, context):
            return self._layer(z, context["x"], **context["tensors"], **given)

        context = {"x": x, "tensors": tensors}
        if training and start is not None:
            gradients.advance_state(run, self._layer, start, context)
        return run, context


def _takes_mask(method) -> bool:
    return "mask" in inspect.signature(method).parameters


def _warn_of_mask(cell) -> None:
    warnings.warn(
        f"`mask` reaches a {type(cell).__name__} (layer {cell.name!r}) that may not heed it. Its "
        "valid steps stand first, and z and x are zeros behind them: what is read there counts. "
        "Take `mask` where the cell is called with x (`call`, or `prepare`), or set "
        "`self.supports_masking = True` if none of its steps sees a later one.",
        stacklevel=2,
    )


def build_by_call(cell, z_shape, x_shape, dtype) -> None:
    """Builds a cell by a symbolic call, and checks the shape of what it returns.

    Args:
        cell: the layer.
        z_shape: the shape of z.
        x_shape: a nest of shapes, those of x.
        dtype: the type of both.
    """
    z = keras.KerasTensor(z_shape, dtype)
    x = keras.tree.map_shape_structure(lambda shape: keras.KerasTensor(shape, dtype), x_shape)
    shape = getattr(cell(z, x), "shape", None)
    if shape is None or tuple(shape) != z_shape:
        raise ValueError(
            "`cell` must return a tensor of the shape of its first argument. Received: an "
            f"output of shape {shape} for z of shape {z_shape}. "
            "Set `units` to the width that the cell gives."
        )


def refuse_state(cell):
    """Says what a cell without state lacks."""
    raise ValueError(
        "The cell has no state. Give it `get_initial_state(batch_size, kind)` and "
        f"`next_state(z, x, initial_state)`. Received: cell={cell!r}."
    )
