"""What every exported signature is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Signature:
    """A traced function of a SavedModel.

    Attributes:
        function: a concrete function with named inputs and a dictionary of outputs.
        inputs: shape and type of each input.
        example: small inputs, by name, with which a server may warm up.
    """

    function: Any
    inputs: Mapping[str, tf.TensorSpec]
    example: Mapping[str, Any]

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Shape and type of each output."""
        return self.function.structured_outputs


def signature(function, example: Mapping[str, Any], **specs: tf.TensorSpec) -> Signature:
    """Traces a function that takes its inputs by name.

    Args:
        function: returns a dictionary of tensors.
        example: inputs to warm up with.
        **specs: the inputs.
    """
    named = {name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()}
    traced = tf.function(function, autograph=False).get_concrete_function(**named)
    return Signature(traced, named, example)


def wire_type(dtype: tf.DType) -> tf.DType:
    """The type in which a tensor travels: half precision as float32, which all clients know."""
    return tf.float32 if dtype in (tf.bfloat16, tf.float16) else dtype


def require(condition, message: str, value) -> Any:
    """`value`, once every element of `condition` is true; the request fails with `message` else."""
    check = tf.debugging.Assert(tf.reduce_all(condition), [message])
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(value)
