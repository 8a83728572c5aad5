"""Models that take rows of different length in one batch."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_seq.models.cores import check_streams
from keras_seq.models.valid_steps import Given, ValidSteps, valid_steps, with_arrays


class PaddedRows:
    """Reads the inputs of a model, and which of their steps are valid.

    A part of the models of this library. Inputs come alone, or as a dictionary `{"inputs": x,
    "lengths": (b,)}` or `{"inputs": x, "mask": (b, t)}`; a mask may be an argument of the call too,
    or that of Keras which x carries. A step counts if none of them leaves it out.
    """

    inputs_are_ids = False
    mask_zero: bool = False
    return_sequences: bool = True
    core: Any

    def __call__(self, *args, **kwargs):
        if args:
            args = (with_arrays(args[0]), *args[1:])
        # Keras hands on the mask of an input only where this is the one tensor of the call.
        if args and kwargs.get("mask") is None:
            mask = getattr(args[0], "_keras_mask", None)
            if mask is not None and ops.is_tensor(mask):
                kwargs["mask"] = mask
        model: Any = super()
        return model.__call__(*args, **kwargs)

    def parts_of(self, inputs) -> Given:
        """The inputs, with the lengths or the mask that came with them."""
        return Given.of(inputs, self.inputs_are_ids)

    def check_inputs(self, x) -> None:
        """Refuses inputs of another shape than the model takes."""
        raise NotImplementedError

    def rows_of(self, inputs, mask=None) -> tuple[Any, ValidSteps | None]:
        """What the core reads, and the valid steps; `None` where all are.

        Args:
            inputs: of the call.
            mask: a further mask (b, t), or a dictionary with those of the inputs' parts.

        Returns:
            x (b, t, ...), with the valid steps of each row in front, and the steps.
        """
        given = self.parts_of(inputs)
        self.check_inputs(given.x)
        steps = self._steps_of(given, mask)
        return (given.x, None) if steps is None else (steps.pack(given.x), steps)

    def _steps_of(self, given: Given, mask) -> ValidSteps | None:
        if isinstance(mask, Mapping):
            mask = mask.get("inputs", mask.get("ids"))
        return valid_steps(given, mask, self.mask_zero)

    def compute_mask(self, inputs, previous_mask):
        given = self.parts_of(inputs)
        if isinstance(previous_mask, Mapping):
            previous_mask = previous_mask.get("inputs", previous_mask.get("ids"))
        if not self.return_sequences:
            return None
        if given.lengths is None and given.mask is None and not self.mask_zero:
            return previous_mask
        if isinstance(given.x, keras.KerasTensor):
            return None  # computed when there are values
        steps = self._steps_of(given, previous_mask)
        return None if steps is None else steps.valid

    def get_initial_state(self, batch_size, kind: str | None = None):
        check_streams(self.core)
        model: Any = super()
        return model.get_initial_state(batch_size, kind)


def inputs_shape(shape: Any) -> Any:
    """The shape of the inputs themselves, of what `build` was given."""
    if isinstance(shape, Mapping):
        shape = shape.get("inputs", shape.get("ids"))
    return None if shape is None else tuple(shape)
