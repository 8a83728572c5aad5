"""What can be the core of a model: causal layers and, for readers, layers that see both ways."""

from typing import Any

import keras

from keras_seq.layers.plain_layer import causal


def core_of(core: Any) -> Any:
    """A core with the parts of the contract that a model asks for.

    Args:
        core: a layer of `keras_seq.layers.plain_layer.causal`, or Keras' `Bidirectional` of one.

    Raises:
        TypeError: for anything else.
    """
    return BothWays(core) if isinstance(core, keras.layers.Bidirectional) else causal(core)


def is_causal(core: Any) -> bool:
    """Whether no output of a core has seen a step after its own."""
    return core_of(core).is_causal


class BothWays:
    """Keras' `Bidirectional` as a core: whole sequences alone, without a state.

    It holds no weights and is never kept.

    Args:
        layer: the wrapper.
    """

    is_causal = False
    go_backwards = False  # it turns what it read backwards round itself
    auxiliary_levels = ()
    auxiliary_scales = None
    receptive_field = None
    reach = None

    def __init__(self, layer: keras.layers.Bidirectional):
        self.layer = layer

    @property
    def return_sequences(self) -> bool:
        """Whether it gives the outputs of all steps."""
        return self.layer.return_sequences

    def get_masks(self, batch_size) -> dict[str, Any]:
        """None: the layers within draw their own."""
        return {}

    def get_initial_state(self, batch_size, kind: str | None = None) -> Any:
        raise ValueError(_without_state(self.layer))

    def __call__(
        self, x, *, initial_state=None, return_state=False, training=None, masks=None, mask=None
    ) -> Any:
        if return_state or initial_state is not None:
            raise ValueError(_without_state(self.layer))
        return self.layer(x, training=False if masks == {} else training, mask=mask)


def reads_backwards(core: Any) -> bool:
    """Whether the outputs of a core stand in the order of reading, from the last step on."""
    return core_of(core).go_backwards


def check_core(core: Any, auxiliary_weight: float, owner: str, both_ways: bool = False) -> None:
    """Refuses a core that does not keep the contract, or lacks the outputs that a loss asks for.

    Args:
        core: the core.
        auxiliary_weight: the weight of the losses of its auxiliary outputs.
        owner: the class of the model, for messages.
        both_ways: whether an output may have seen later steps than its own.

    Raises:
        TypeError: if it is no causal layer.
        ValueError: if it hands out one output alone, has seen what it is to predict, or has no
            auxiliary outputs.
    """
    known = core_of(core)
    if not known.return_sequences:
        raise ValueError(
            f"`core` must give the outputs of all steps: a {owner} takes the one it needs itself. "
            f"Received: a {type(core).__name__} (layer {core.name!r}) with return_sequences=False. "
            "Leave it out, or set it to True."
        )
    if not both_ways and not is_causal(core):
        raise ValueError(
            f"`core` must be causal: another one has seen the steps that a {owner} is to predict. "
            f"Received: a {type(core).__name__} (layer {core.name!r}), which is not. Leave away "
            "what makes it read later steps, such as `go_backwards`, `lookahead`, "
            '`padding="same"` or `keras.layers.Bidirectional`.'
        )
    if not known.auxiliary_levels and auxiliary_weight:
        raise ValueError(
            "`auxiliary_weight` needs a core with auxiliary outputs. Received: "
            f"auxiliary_weight={auxiliary_weight} and a {type(core).__name__} without. "
            "Set the core's `auxiliary_frequency`."
        )


def check_streams(core: Any) -> None:
    """Refuses to make a state of a core that is not causal.

    Raises:
        ValueError: names the core.
    """
    if not is_causal(core):
        raise ValueError(_without_state(core))


def _without_state(core) -> str:
    return (
        "`core` must be causal for steps over a state, in generation and streaming. Received: a "
        f"{type(core).__name__} (layer {core.name!r}), whose outputs have seen later steps. Give "
        "the model whole sequences, or another core."
    )
