"""Constructor arguments that several layers share: checks, and what stands for a name."""

import numbers

import keras


def check_integer(name: str, value, least: int = 1) -> int:
    """Returns an integer argument, NumPy's too, after a check of its type and size."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(
            f"`{name}` must be an integer of at least {least}. Received: {name}={value!r}."
        )
    return int(value)


def check_rate(rate, name: str = "rate") -> float:
    """Returns a dropout rate as a float, after a check that it lies in [0, 1)."""
    if not isinstance(rate, numbers.Real) or not 0 <= float(rate) < 1:
        raise ValueError(
            f"`{name}` must be a number in [0, 1). Received: {name}={rate}. "
            "It is the share of values that are dropped."
        )
    return float(rate)


def check_choice(name: str, value, choices: tuple[str, ...]) -> str:
    """Returns a string argument after a check that it is one of the choices."""
    # Keras' old format .h5 hands over its own function where it has one of that name.
    value = getattr(value, "__name__", value)
    if value not in choices:
        known = ", ".join(map(repr, choices))
        raise ValueError(f"`{name}` must be one of {known}. Received: {name}={value!r}.")
    return value


NORM_ORDERS = ("pre", "post")


def check_norm_order(norm_order, others: dict) -> str:
    """Returns where a block normalises, before (`"pre"`) or after (`"post"`) each sublayer.

    Args:
        norm_order: the argument.
        others: further arguments; `normalize_first`, a boolean, is what it was called before, and
            is taken out.
    """
    former = others.pop("normalize_first", norm_order)
    if isinstance(former, bool):
        return "pre" if former else "post"
    return check_choice("norm_order", norm_order, NORM_ORDERS)


def fan_in_uniform(identifier=None):
    """An initializer; by default uniform within ± 1 / √fan-in, PyTorch's for linear layers."""
    if identifier is None:
        return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    return keras.initializers.get(identifier)


def get_activation(identifier):
    """An activation of Keras or a layer such as `keras.layers.PReLU`, or their configuration."""
    if isinstance(identifier, dict) and identifier.get("class_name") != "function":
        return keras.saving.deserialize_keras_object(identifier)
    return keras.activations.get(identifier)


def activation_config(activation):
    """What `get_activation` makes the activation of."""
    if isinstance(activation, keras.layers.Layer):
        return keras.saving.serialize_keras_object(activation)
    return keras.activations.serialize(activation)
