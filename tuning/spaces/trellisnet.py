"""The search space of TrellisNets."""

from keras_seq.tuning.parameters import Choice, Float, Space
from keras_seq.tuning.spaces.parts import regularized, tied_width
from keras_seq.tuning.spaces.ranges import DOUBLING, on_or_off, rate, scaled, width
from keras_seq.tuning.spaces.registry import family
from keras_seq.tuning.spaces.settings import Settings


@family("trellisnet")
def trellisnet(settings: Settings) -> Space:
    """Sizes, dropouts, and whether the levels have outputs of their own."""
    frequency, depth = settings["auxiliary_frequency"], settings["levels"]
    # An auxiliary output needs a level: no model has fewer than lie between two of them.
    levels = scaled(depth, (0.5, 0.75, 1.0, 1.25, 1.5)).values
    every = frequency or max(1, depth // 3)
    between = [n for n in scaled(every, DOUBLING).values if n <= max(levels[0], every)]
    levels = tuple(level for level in levels if level >= between[-1])
    found: Space = {
        "model.units": width(settings["units"]),
        "model.levels": Choice(levels, default=depth),
        "model.weight_normalization": on_or_off(settings["weight_normalization"]),
        "model.embedding_dropout": rate(settings["embedding_dropout"], 0.3),
        "model.input_dropout": rate(settings["input_dropout"]),
        "model.hidden_dropout": rate(settings["hidden_dropout"]),
        "model.output_dropout": rate(settings["output_dropout"]),
        "model.weight_dropout": rate(settings["weight_dropout"]),
        **regularized(settings),
    }
    if "model.auxiliary_weight" in settings.known:
        on = {"switch.auxiliary": (True,)}
        off = {"model.auxiliary_frequency": None, "model.auxiliary_weight": 0.0}
        weight = settings["auxiliary_weight"] or 0.05
        found |= {
            "switch.auxiliary": on_or_off(frequency, sets={"False": off}),
            "model.auxiliary_frequency": Choice(tuple(between), default=every, when=on),
            "model.auxiliary_weight": Float(0.02, 0.5, sampling="log", default=weight, when=on),
        }
    return {**found, **tied_width(settings)}
