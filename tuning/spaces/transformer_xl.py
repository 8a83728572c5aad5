"""The search space of Transformer-XLs."""

from keras_seq.tuning.parameters import Choice, Int, Space
from keras_seq.tuning.spaces.parts import attention
from keras_seq.tuning.spaces.ranges import DOUBLING, rate, scaled, width
from keras_seq.tuning.spaces.registry import family
from keras_seq.tuning.spaces.settings import Settings


@family("transformer_xl")
def transformer_xl(settings: Settings) -> Space:
    """Sizes, dropouts and, where it sees all of it, the memory."""
    levels, memory = settings["levels"], settings["memory_length"]
    found: Space = {
        "model.levels": Int(1, 2 * levels, default=levels),
        "model.inner_units": width(settings["inner_units"]),
        "model.norm_order": Choice(("pre", "post"), default=settings["norm_order"]),
        "model.dropout": rate(settings["dropout"]),
        "model.attention_dropout": rate(settings["attention_dropout"], 0.4),
        "model.embedding_dropout": rate(settings["embedding_dropout"], 0.3),
    }
    if settings["head_units"] is None:  # else the width of the heads is fixed with the others
        found |= attention(settings)
    if memory and not settings["span"]:
        found["model.memory_length"] = scaled(memory, DOUBLING)
    return found
