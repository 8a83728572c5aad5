"""The search space of deep equilibria of a Transformer's block."""

from keras_seq._tasks import TASKS
from keras_seq.tuning.parameters import Space
from keras_seq.tuning.spaces.parts import attention, equilibrium
from keras_seq.tuning.spaces.ranges import DOUBLING, rate, scaled, width
from keras_seq.tuning.spaces.registry import family
from keras_seq.tuning.spaces.settings import Settings


@family("deq_transformer")
def deq_transformer(settings: Settings) -> Space:
    """The block's sizes and memory, and the equilibrium."""
    memory = settings["memory_length"]
    found: Space = {
        "model.inner_units": width(settings["inner_units"]),
        "model.attention_dropout": rate(settings["attention_dropout"], 0.4),
        **equilibrium(settings),
    }
    if settings["embedding_dim"] is None and TASKS[settings.recipe.task].of_text:
        found |= attention(settings)  # else its width is fixed with that of the embedding
    if memory and not settings["span"]:
        found["model.memory_length"] = scaled(memory, DOUBLING)
    return found
