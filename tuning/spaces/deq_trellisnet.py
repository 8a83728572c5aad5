"""The search space of deep equilibria of a TrellisNet's level."""

from keras_seq.tuning.parameters import Space
from keras_seq.tuning.spaces.parts import equilibrium, tied_width
from keras_seq.tuning.spaces.ranges import rate, width
from keras_seq.tuning.spaces.registry import family
from keras_seq.tuning.spaces.settings import Settings


@family("deq_trellisnet")
def deq_trellisnet(settings: Settings) -> Space:
    """The level's sizes, and the equilibrium."""
    return {
        "model.units": width(settings["units"]),
        "model.weight_dropout": rate(settings["weight_dropout"]),
        **equilibrium(settings),
        **tied_width(settings),
    }
