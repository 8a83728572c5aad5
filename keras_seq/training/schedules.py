"""Learning-rate schedules as rules: what is known so far → the rate of the next epoch.

The rules keep nothing themselves. All they need, the losses of the epochs so far and the present
rate, is in a run's checkpoint, so a resumed run follows the same course.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import keras

from keras_seq.zoo.recipe import ScheduleSpec

S = TypeVar("S", bound=type["Schedule"])
_SCHEDULES: dict[str, type["Schedule"]] = {}


def register(name: str) -> Callable[[S], S]:
    """Registers a schedule under the name that recipes use."""

    def decorate(cls: S) -> S:
        _SCHEDULES[name] = cls
        return cls

    return decorate


def make_schedule(spec: ScheduleSpec, learning_rate: float, steps: int) -> "Schedule":
    """The schedule of a recipe.

    Args:
        spec: its description.
        learning_rate: the initial rate.
        steps: optimizer steps of the whole run.
    """
    if spec.name not in _SCHEDULES:
        known = ", ".join(map(repr, sorted(_SCHEDULES)))
        raise ValueError(
            f"`schedule.name` must be one of: {known}. Received: schedule.name={spec.name!r}."
        )
    return _SCHEDULES[spec.name](spec, learning_rate, steps)


@register("constant")
class Schedule:
    """The same rate throughout; base of the other schedules."""

    def __init__(self, spec: ScheduleSpec, learning_rate: float, steps: int):
        self.spec = spec
        self.learning_rate = learning_rate
        self.steps = steps

    def optimizer_rate(self) -> float | keras.optimizers.schedules.LearningRateSchedule:
        """What the optimizer is built with."""
        return self.learning_rate

    def next_rate(self, epoch: int, rate: float, losses: Sequence[float]) -> float:
        """The rate of the epoch that follows.

        Args:
            epoch: the epoch that has ended, counted from 1.
            rate: its rate.
            losses: the monitored validation loss of each epoch up to this one.
        """
        del epoch, losses
        return rate

    def _lowered(self, rate: float) -> float:
        return max(rate * self.spec.factor, min(rate, self.spec.minimum))


@register("plateau")
class Plateau(Schedule):
    """Anneals on a plateau by the rule of the TrellisNet release.

    With v₁ … vₑ the validation losses so far and p = `patience`, the rate is multiplied by `factor`
    after epoch e if

        e − 1 > p  and  vₑ > min(v₁, …, vₑ₋₁₋ₚ)

    that is, if the loss is worse than one reached more than p epochs before. (It is the
    trigger of Merity et al., 2018, section 3.) There is no waiting time after a reduction: while
    the condition holds, the rate falls at every epoch. A loss that is not a number counts as worse
    than any other.
    """

    def next_rate(self, epoch, rate, losses):
        earlier = losses[:-1]
        if len(earlier) <= self.spec.patience:
            return rate
        best = min(map(_rank, earlier[: len(earlier) - self.spec.patience]))
        return self._lowered(rate) if _rank(losses[-1]) > best else rate


@register("highest")
class Highest(Schedule):
    """Anneals at a new height by the rule of the TCN's and the R-Transformer's releases.

    With v₁ … vₑ the validation losses so far, p = `patience` and d = `delay`, the rate is
    multiplied by `factor` after epoch e if

        e > d  and  vₑ ≥ max(vₑ₋ₚ, …, vₑ₋₁)

    A loss that is not a number counts as worse than any other.
    """

    def __init__(self, spec: ScheduleSpec, learning_rate: float, steps: int):
        super().__init__(spec, learning_rate, steps)
        if spec.patience < 1:
            raise ValueError(
                "`schedule.patience` must be positive with the rule 'highest', which compares with "
                f"so many epochs. Received: schedule.patience={spec.patience}."
            )

    def next_rate(self, epoch, rate, losses):
        earlier = losses[max(len(losses) - 1 - self.spec.patience, 0) : -1]
        if epoch <= self.spec.delay or not len(earlier):
            return rate
        return self._lowered(rate) if _rank(losses[-1]) >= max(map(_rank, earlier)) else rate


@register("milestones")
class Milestones(Schedule):
    """Multiplies the rate by `factor` at the start of each epoch of `milestones`."""

    def optimizer_rate(self):
        first = 1 in self.spec.milestones
        return self._lowered(self.learning_rate) if first else self.learning_rate

    def next_rate(self, epoch, rate, losses):
        return self._lowered(rate) if epoch + 1 in self.spec.milestones else rate


@register("cosine")
class Cosine(Schedule):
    """Linear growth over the first `warmup` of the steps, then half a cosine down to `minimum`."""

    def optimizer_rate(self):
        warmup = min(round(self.spec.warmup * self.steps), self.steps - 1)
        alpha = min(self.spec.minimum / self.learning_rate, 1.0)
        if warmup <= 0:
            return keras.optimizers.schedules.CosineDecay(
                self.learning_rate, decay_steps=max(self.steps, 1), alpha=alpha
            )
        # The first step is taken with a rate above zero.
        return keras.optimizers.schedules.CosineDecay(
            self.learning_rate / (warmup + 1),
            decay_steps=self.steps - warmup,
            alpha=alpha,
            warmup_target=self.learning_rate,
            warmup_steps=warmup,
        )


def _rank(loss: float) -> float:
    """The loss, or infinity if it is not a number."""
    return loss if loss == loss else float("inf")
