"""The search space of Transformers."""

from keras_seq.tuning.parameters import Choice, Int, Space
from keras_seq.tuning.spaces.parts import attention
from keras_seq.tuning.spaces.ranges import rate
from keras_seq.tuning.spaces.registry import family
from keras_seq.tuning.spaces.settings import Settings


@family("transformer")
def blocks(settings: Settings) -> Space:
    """Sizes and dropouts of blocks with attention, those of R-Transformers too."""
    levels = settings["levels"]
    return {
        **attention(settings),
        "model.levels": Int(1, 2 * levels, default=levels),
        "model.norm_order": Choice(("pre", "post"), default=settings["norm_order"]),
        "model.dropout": rate(settings["dropout"]),
        "model.embedding_value_dropout": rate(settings["embedding_value_dropout"]),
        "model.output_dropout": rate(settings["output_dropout"]),
    }
