"""The search space of R-Transformers."""

from keras_seq.tuning.parameters import Choice, Int, Space
from keras_seq.tuning.spaces.registry import family
from keras_seq.tuning.spaces.settings import Settings
from keras_seq.tuning.spaces.transformer import blocks


@family("r_transformer")
def r_transformer(settings: Settings) -> Space:
    """That of Transformers, and the recurrent layers over a window."""
    window, layers = settings["window"], settings["local_layers"]
    return {
        **blocks(settings),
        "model.cell": Choice(("gru", "lstm", "rnn"), default=settings["cell"]),
        "model.window": Int(2, 2 * window, default=window),
        "model.local_layers": Int(1, max(3, layers), default=layers),
    }
