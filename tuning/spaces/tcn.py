"""The search space of temporal convolutional networks."""

from keras_seq.tuning.parameters import Choice, Int, Space
from keras_seq.tuning.spaces.ranges import on_or_off, rate, width
from keras_seq.tuning.spaces.registry import family
from keras_seq.tuning.spaces.settings import Settings


@family("tcn")
def tcn(settings: Settings) -> Space:
    """Kernels, normalisation and dropouts; sizes and skip connections where all widths are one."""
    kernel = settings["kernel_size"]
    normalization, weight = settings["normalization"], settings["weight_normalization"]
    weight = normalization is None if weight is None else weight
    found: Space = {
        "model.kernel_size": Int(2, max(9, kernel), default=kernel),
        "model.weight_normalization": on_or_off(weight),
        "switch.normalization": on_or_off(
            normalization is not None, sets={"False": {"model.normalization": None}}
        ),
        "model.normalization": Choice(
            ("layer", "batch"),
            default=normalization,
            when={"switch.normalization": (True,)},
        ),
        "model.dropout": rate(settings["dropout"]),
        "model.spatial_dropout": on_or_off(settings["spatial_dropout"]),
        "model.embedding_value_dropout": rate(settings["embedding_value_dropout"]),
    }
    if isinstance(settings["units"], int):
        levels = settings["levels"]
        found["model.skip_connections"] = on_or_off(settings["skip_connections"])
        found["model.units"] = width(settings["units"], 1)
        found["model.levels"] = Int(max(1, levels // 2), 2 * levels, default=levels)
    return found
