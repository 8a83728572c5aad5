"""Keras layers that are no `CausalLayer`, seen through its contract."""

import inspect
from typing import Any

import keras

from keras_seq.layers.causal_layer import CausalLayer
from keras_seq.layers.over_rows import read_rows


def causal(layer: Any, name: str = "core") -> Any:
    """A layer as one that keeps the contract of `CausalLayer`, for a call.

    Args:
        layer: a `CausalLayer`, which is returned as it is, or any Keras layer with
            `call(x, initial_state, return_state)`. What else such a layer has of the contract is
            used; what it lacks is as in `CausalLayer`.
        name: of the argument that the layer came as.

    Raises:
        TypeError: if it is neither.
    """
    return layer if isinstance(layer, CausalLayer) else PlainLayer(layer, name)


class PlainLayer:
    """A Keras layer with the parts of the contract that it may lack.

    It holds no weights and is never kept: models and stacks keep the layer itself.

    Args:
        layer: the layer.
        name: of the argument that it came as.
    """

    def __init__(self, layer: Any, name: str):
        known = _parameters(layer.call) if isinstance(layer, keras.layers.Layer) else {}
        if not {"initial_state", "return_state"} <= set(known):
            remedy = "Derive it from `CausalLayer`."
            if isinstance(layer, keras.layers.RNN):
                remedy = "Wrap it: `keras_seq.layers.KerasRecurrent(layer)`."
            raise TypeError(
                f"`{name}` must be a `keras_seq.layers.CausalLayer`, or a Keras layer with "
                f"`call(x, initial_state, return_state)`. Received: {name}={layer!r}. {remedy}"
            )
        self.layer = layer
        self.name = name
        self.takes_masks = "masks" in known
        self.takes_mask = "mask" in known

    def __getattr__(self, name: str) -> Any:
        """What the layer has of the contract itself, such as `output_units`."""
        return getattr(self.layer, name)

    def _own(self, name: str, default: Any) -> Any:
        return getattr(self.layer, name, default)

    @property
    def auxiliary_levels(self) -> tuple[int, ...]:
        return self._own("auxiliary_levels", ())

    @property
    def auxiliary_scales(self) -> tuple[float, ...] | None:
        return self._own("auxiliary_scales", None)

    @property
    def receptive_field(self) -> int | None:
        return self._own("receptive_field", None)

    @property
    def reach(self) -> int | None:
        return self._own("reach", self.receptive_field)

    @property
    def is_causal(self) -> bool:
        return self._own("is_causal", True)

    @property
    def go_backwards(self) -> bool:
        return self._own("go_backwards", False)

    @property
    def return_sequences(self) -> bool:
        return self._own("return_sequences", True)

    def get_masks(self, batch_size) -> dict[str, Any]:
        draw = self._own("get_masks", None) if self.takes_masks else None
        return {} if draw is None else draw(batch_size)

    def get_initial_state(self, batch_size, kind: str | None = None) -> Any:
        start = self._own("get_initial_state", None)
        if start is None:
            raise TypeError(
                f"`{self.name}` must have `get_initial_state(batch_size, kind)`, for a state to "
                f"begin with. Received: {self.name}={self.layer!r}. Derive it from "
                "`keras_seq.layers.CausalLayer`."
            )
        if kind is None or "kind" not in _parameters(start):
            return start(batch_size)
        return start(batch_size, kind=kind)

    def __call__(self, x, *, masks=None, mask=None, **kwargs) -> Any:
        if self.takes_masks:
            kwargs["masks"] = masks
        if mask is None:
            return self.layer(x, **kwargs)
        return read_rows(self.layer, x, mask, self.takes_mask, self.layer, kwargs)


def _parameters(function: Any) -> dict[str, Any]:
    return dict(inspect.signature(function).parameters)
