"""The search space of stacks of LSTMs, GRUs and simple recurrent layers."""

from keras_seq.tuning.parameters import Choice, Int, Space
from keras_seq.tuning.spaces.ranges import on_or_off, rate, width
from keras_seq.tuning.spaces.registry import family
from keras_seq.tuning.spaces.settings import Settings


@family("recurrent")
def recurrent(settings: Settings) -> Space:
    """Cell, sizes and dropouts."""
    layers = settings["layers"]
    found: Space = {
        "model.cell": Choice(("lstm", "gru", "rnn"), default=settings["cell"]),
        "model.units": width(settings["units"], 10),
        "model.layers": Int(1, max(4, layers), default=layers),
        "model.variational": on_or_off(settings["variational"]),
        "model.dropout": rate(settings["dropout"]),
        "model.input_dropout": rate(settings["input_dropout"]),
        "model.output_dropout": rate(settings["output_dropout"]),
    }
    if settings["embedding_dim"]:
        found["model.embedding_dim"] = width(settings["embedding_dim"], 10)
    return found
