"""What models are trained for and measured by: tasks and metrics, as values.

Recipes, logs and searches name them by strings; what follows from a name stands here alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A figure that runs log and papers report.

    Attributes:
        key: its name in logs. With `val_` before it, of the validation split.
        name: its name in recipes.
        unit: what stands after a value of it in a table.
        direction: `"min"` where smaller is better, `"max"` where larger is.
        percent: whether papers give a percentage of what is logged.
        digits: decimals in a table.
        per_token: whether people want to know what a token is.
        of_nll: its value for a mean negative log-likelihood a token, if that is all it needs.

    Example:

    >>> metric_of("val_accuracy").direction
    'max'
    """

    key: str
    name: str
    unit: str
    direction: Literal["min", "max"] = "min"
    percent: bool = False
    digits: int = 2
    per_token: bool = False
    of_nll: Callable[[float], float] | None = None

    @property
    def words(self) -> str:
        """Its name for people."""
        return self.name.replace("_", " ")

    def label(self, level: str | None = None) -> str:
        """Its name beside a value of a run, whose vocabulary may have a level."""
        if not self.per_token:
            return self.key
        return f"{self.key}/{'char' if level == 'character' else 'token'}"

    def reported(self, value: float) -> str:
        """A paper's value in a sentence: `56.97 perplexity`."""
        return f"{value:g} {self.words}"

    def cell(self, value: float) -> str:
        """A paper's value in a table: `perplexity 56.97`, `accuracy 99.10%`."""
        number = f"{value:.{self.digits}f}" if value >= 0.01 else f"{value:.1e}"
        return f"{self.words} {number}{'%' if self.percent else ''}"

    def logged(self, reported: float) -> float:
        """A paper's value as runs log it."""
        return reported / 100 if self.percent else reported

    def as_loss(self, value: float) -> float:
        """A number that is smaller for a better value."""
        return -value if self.direction == "max" else value


def _perplexity(nll: float) -> float:
    return math.exp(nll) if nll < 700 else math.inf


LOSS = Metric("loss", "loss", "loss")
NLL = Metric("nll", "nll", "nats", of_nll=float)
PERPLEXITY = Metric("perplexity", "perplexity", "perplexity", of_nll=_perplexity)
BITS = Metric(
    "bits",
    "bits_per_character",
    "bits",
    digits=3,
    per_token=True,
    of_nll=lambda nll: nll / math.log(2),
)
ACCURACY = Metric("accuracy", "accuracy", "accuracy", "max", percent=True)
MSE = Metric("mse", "mse", "mean squared error")
NLL_PER_FRAME = Metric("nll_per_frame", "nll_per_frame", "nats a frame")

FIGURES = (PERPLEXITY, BITS, ACCURACY, MSE, NLL_PER_FRAME)  # what people compare
METRICS = (LOSS, NLL, *FIGURES)


def metric_of(name: str) -> Metric:
    """The metric of a name in a recipe or in logs, of whichever split.

    A model may log others too: of those, only accuracies get better as they grow.
    """
    key = name.removeprefix("val_")
    for known in METRICS:
        if key in (known.key, known.name):
            return known
    return Metric(key, key, key, "max" if key.endswith(ACCURACY.key) else "min")


@dataclass(frozen=True)
class Task:
    """What a model is for.

    Attributes:
        name: its name in recipes.
        metrics: what its models log beside the loss.
        outputs: what its models give, in words.
        items: what its data are counted in.
        makes: what its models can generate; `None` for nothing.
    """

    name: str
    metrics: tuple[Metric, ...]
    outputs: str
    items: Literal["tokens", "examples"] = "examples"
    makes: Literal["text", "tunes"] | None = None

    @property
    def of_text(self) -> bool:
        """Whether its data are texts, with a vocabulary."""
        return self.makes == "text"


LANGUAGE_MODEL = Task(
    "language_model",
    (NLL, PERPLEXITY, BITS),
    "log-probabilities of the next token",
    items="tokens",
    makes="text",
)
SEQUENCE_CLASSIFIER = Task("sequence_classifier", (NLL, ACCURACY), "log-probabilities")
SEQUENCE_REGRESSOR = Task("sequence_regressor", (MSE,), "values")
FRAME_MODEL = Task("frame_model", (NLL_PER_FRAME,), "logits of the notes", makes="tunes")

TASKS = {
    task.name: task
    for task in (LANGUAGE_MODEL, SEQUENCE_CLASSIFIER, SEQUENCE_REGRESSOR, FRAME_MODEL)
}
