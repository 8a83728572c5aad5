"""Layers whose dropout masks of a call all follow from one seed."""

from typing import Any

from keras_seq._random import draw_seed
from keras_seq.layers.causal_layer import CheckedLayer
from keras_seq.ops.seeded_dropout import seed_of_place


class SeededLayer(CheckedLayer):
    """Abstract base of layers that draw one seed a call instead of many masks.

    Every place where such a layer drops values derives its own seed from that one, so that calls
    with the same `masks` drop the same values. A subclass has a `seed_generator`.
    """

    seed_generator: Any

    @property
    def drops(self) -> bool:
        """Whether the layer has dropout."""
        return bool(self.dropout)

    def get_masks(self, batch_size) -> dict[str, Any]:
        """Draws what the dropout masks of one call follow from.

        Args:
            batch_size: not needed; every layer of the library takes it here.

        Returns:
            `{"seed": (2,) integers}`, or `{}` without dropout.
        """
        return {"seed": draw_seed(self.seed_generator).value} if self.drops else {}

    def seed_of(self, training, masks, dropout_seed=None):
        """The seed that the masks of a call follow from; `None` for no dropout.

        Args:
            training: of the call.
            masks: of the call.
            dropout_seed: of the call, where it takes one.
        """
        if dropout_seed is not None:
            return dropout_seed
        if masks is None:
            masks = self.get_masks(None) if training else {}
        return masks.get("seed")


def masks_at(seed, place: int) -> dict[str, Any]:
    """The `masks` of a layer within another one, whose masks follow from a seed or `None`."""
    return {} if seed is None else {"seed": seed_of_place(seed, place)}
