"""The search space of pyramidal recurrent units."""

from keras_seq.tuning.parameters import Choice, Int, Space
from keras_seq.tuning.spaces.parts import regularized
from keras_seq.tuning.spaces.ranges import on_or_off, one_of, rate, width
from keras_seq.tuning.spaces.registry import family
from keras_seq.tuning.spaces.settings import Settings


@family("pru")
def pru(settings: Settings) -> Space:
    """Sizes, dropouts, and the pyramid within the unit."""
    pyramidal = {"model.unit": ("pru",)}
    units = settings["units"] or 1000 + 200 * {1: 0, 2: 1, 4: 2}[settings["groups"]]
    layers, levels = settings["layers"], settings["levels"]
    found: Space = {
        "model.unit": Choice(("pru", "lstm"), default=settings["unit"]),
        "model.units": width(units, 16),
        "model.layers": Int(1, max(4, layers), default=layers),
        "model.levels": Int(1, max(4, levels), default=levels, when=pyramidal),
        "model.groups": one_of(settings["groups"], (1, 2, 4), when=pyramidal),
        "model.subsampling": one_of(
            settings["subsampling"], ("average", "max", "skip"), when=pyramidal
        ),
        "model.residual": on_or_off(settings["residual"], when=pyramidal),
        "model.variational": on_or_off(settings["variational"]),
        "model.embedding_dropout": rate(settings["embedding_dropout"], 0.3),
        "model.input_dropout": rate(settings["input_dropout"]),
        "model.dropout": rate(settings["dropout"]),
        "model.output_dropout": rate(settings["output_dropout"]),
        "model.weight_dropout": rate(settings["weight_dropout"]),
        **regularized(settings),
    }
    if settings["embedding_dim"]:
        found["model.embedding_dim"] = width(settings["embedding_dim"], 16)
    return found
