"""Protocols of training that recipes of several families share."""

from typing import Any

from keras_seq.zoo.recipe import DataSpec, OptimizerSpec, Reported, ScheduleSpec

# Characters of Python 3.11's documentation; training takes the number from the data.
PYTHON_DOCS_CHARACTERS = 99


def python_docs(
    learning_rate: float,
    *,
    epochs: int = 6,
    batch_size: int = 16,
    history: int = 0,
    summary: str = "Small character-level language model on the documentation that ships with "
    "Python.",
) -> dict[str, Any]:
    """A first run in minutes on two CPU cores, on Python's own documentation; settings of ours."""
    return {
        "summary": summary,
        "data": DataSpec(
            "python_docs_char",
            batch_size=batch_size,
            eval_batch_size=8,
            length=64,
            history=history,
        ),
        "optimizer": OptimizerSpec("Adam", learning_rate=learning_rate, global_clipnorm=1.0),
        "schedule": ScheduleSpec("cosine", minimum=1e-4, warmup=0.05),
        "epochs": epochs,
        "reported": Reported("bits_per_character", None, "no figure in the paper", ""),
    }
