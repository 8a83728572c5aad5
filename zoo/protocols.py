"""Protocols of training that recipes of several families share."""

from typing import Any

from keras_seq.zoo.recipe import DataSpec, OptimizerSpec, Reported, ScheduleSpec

# Nine speakers of two vowels, told apart by series of 7 to 29 steps: a run of minutes on one CPU
# core. The best epoch is that of the smallest validation loss.
JAPANESE_VOWELS: dict[str, Any] = {
    "task": "sequence_classifier",
    "summary": "Japanese vowels: which of nine speakers, by series of 7 to 29 steps.",
    "data": DataSpec(
        "japanese_vowels",
        batch_size=8,
        eval_batch_size=64,
        options={"validation": 0.1, "buckets": 4, "standardize": True, "noise": 0.5},
    ),
    "optimizer": OptimizerSpec("Adam", learning_rate=3e-3, global_clipnorm=1.0),
    "schedule": ScheduleSpec("cosine", warmup=0.05),
    "epochs": 15,
    "reported": Reported("accuracy", None, "no figure in the paper", ""),
    "notes": "Settings of ours, the same for all families but for the model. A series is read with "
    "its own length and classified at its last step. The noise keeps models from learning 243 "
    "series by heart.",
}
VOWELS = {"features": 12, "classes": 9}  # coefficients of a step, speakers

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
