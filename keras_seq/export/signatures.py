"""What every exported signature is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_seq._backend import wants_portable_operations


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
    """Traces a function that takes its inputs by name, and checks their shapes at every request.

    Args:
        function: returns a dictionary of tensors.
        example: inputs to warm up with.
        **specs: the inputs.
    """
    named = {name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()}

    def checked(**inputs):
        return function(**{name: shaped(inputs[name], specs[name], name) for name in inputs})

    traced = tf.function(checked, autograph=False).get_concrete_function(**named)
    return Signature(traced, named, example)


def wire_type(dtype: tf.DType) -> tf.DType:
    """The type in which a tensor travels: half precision as float32, which all clients know."""
    return tf.float32 if dtype in (tf.bfloat16, tf.float16) else dtype


def require(condition, message: str, value, received: Any = None) -> Any:
    """`value`, once every element of `condition` is true; the request fails with `message` else.

    What was `received` stands behind the message.
    """
    words = [message] if received is None else [f"{message} Received:", received]
    check = tf.debugging.Assert(tf.reduce_all(condition), words)
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(value)


def shaped(x, spec: tf.TensorSpec, name: str) -> Any:
    """The input, if it has the rank and the fixed sizes of its spec; the request fails else.

    The shapes of a loaded signature are a description: it takes tensors of others, too, and would
    compute with them.
    """
    if spec.shape.rank is None or wants_portable_operations():
        return x
    x = tf.ensure_shape(x, [None] * spec.shape.rank)  # by TensorFlow's own words
    sizes = spec.shape.as_list()
    if None not in sizes or not any(sizes):
        return x
    free = iter("bt")
    written = ", ".join(str(size or next(free, "?")) for size in sizes)
    given, fixed = tf.shape(x), tf.constant([size or -1 for size in sizes])
    fits = (given == fixed) | (fixed == -1)
    return require(fits, f"`{name}` must be of shape ({written}).", x, given)


def same_rows(x, name: str, rows, other: str) -> Any:
    """The input, if it has so many rows; the request fails else."""
    given = tf.shape(x)[0]
    message = f"`{name}` must have as many rows as `{other}`."
    return require(given == rows, message, x, given)


def one_or_each(value, name: str, rows) -> Any:
    """The input, if it is one value, or one for each row; the request fails else."""
    size = tf.size(value)
    fits = (tf.rank(value) <= 1) & ((size == 1) | (size == rows))
    message = f"`{name}` must be one value, or one for each text."
    return require(fits, message, value, tf.shape(value))


def no_nan(x, name: str) -> Any:
    """The input, if it holds no NaN; the request fails else."""
    return require(tf.equal(x, x), f"`{name}` must not be NaN.", x)


def filled(x, name: str) -> Any:
    """The input (b, ...), if it is not empty; the request fails else."""
    return require(tf.size(x) > 0, f"`{name}` must not be empty.", x)


def checked_ids(ids, size: int | None, name: str) -> Any:
    """The ids, if all are in the vocabulary (a GPU would answer others with zeros)."""
    if size is None:
        return ids
    return require(
        (ids >= 0) & (ids < size), f"`{name}` must be from 0 to {size - 1}, the vocabulary's.", ids
    )


def save_signatures(folder: str | Path, signatures: Mapping[str, Signature], table=None) -> None:
    """Writes a SavedModel with exactly what its signatures use.

    Args:
        folder: where to.
        signatures: signatures by name.
        table: a lookup table of theirs.
    """
    module = tf.Module()
    functions = {key: value.function for key, value in signatures.items()}
    # Variables that no signature reads (optimizer, metrics, dropout seeds) are left behind.
    module.weights = list(
        {id(v): v for function in functions.values() for v in function.graph.variables}.values()
    )
    if table is not None:
        module.table = table
    tf.saved_model.save(module, str(folder), signatures=functions)
