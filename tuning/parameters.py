"""What a search may vary, as values: a choice, a whole number, a number.

A search space is a dict, setting → parameter. A setting is a dotted key as `Recipe.replace` takes
it. What follows an `@` only tells parameters of the same setting apart, as in
`"optimizer.learning_rate@SGD"`, and a key that begins with `switch.` is no setting at all.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@contextlib.contextmanager
def _conditions(hp: Any, when: Mapping[str, tuple]) -> Iterator[None]:
    """KerasTuner's conditional scopes of the conditions."""
    with contextlib.ExitStack() as scopes:
        for name, values in when.items():
            scopes.enter_context(hp.conditional_scope(name, list(values)))
        yield


def _as_tuples(parameter: Any) -> None:
    """JSON has lists only."""
    when = {name: tuple(values) for name, values in parameter.when.items()}
    object.__setattr__(parameter, "when", when)
    object.__setattr__(parameter, "also", tuple(parameter.also))


@dataclass(frozen=True)
class Choice:
    """One of several values, all of one type.

    Attributes:
        values: strings, booleans, whole numbers or numbers.
        default: the value of the first trial; the first of `values` if not given.
        when: other parameters of the space → values of theirs with which this one is there at all.
            They must be choices of strings, booleans or whole numbers.
        also: further settings that take the same value.
        sets: value, as a string → changes of the recipe that go with it; what a `switch.` does.

    Example:

    >>> keras_seq.tuning.Choice((64, 128, 256), default=128).values
    (64, 128, 256)
    """

    values: tuple
    default: Any = None
    when: Mapping[str, tuple] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    sets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "values", tuple(self.values))
        _as_tuples(self)
        kinds = {type(value) for value in self.values}
        if len(kinds) != 1 or not kinds <= {str, bool, int, float}:
            raise ValueError(
                "`values` of a Choice must be strings, booleans, whole numbers or numbers, all of "
                f"one type. Received: values={self.values}."
            )
        if self.default is None:
            object.__setattr__(self, "default", self.values[0])
        if self.default not in self.values:
            raise ValueError(
                "`default` of a Choice must be one of its values. "
                f"Received: default={self.default!r}, values={self.values}."
            )
        unknown = [value for value in self.sets if value not in map(str, self.values)]
        if unknown:
            raise ValueError(
                "`sets` of a Choice must have its values as keys. "
                f"Received: {unknown}, values={self.values}."
            )

    def declare(self, hp: Any, name: str) -> None:
        """Makes the parameter known to KerasTuner."""
        ordered = type(self.values[0]) in (int, float)
        with _conditions(hp, self.when):
            hp.Choice(name, list(self.values), ordered=ordered, default=self.default)

    def tidy(self, value: Any) -> Any:
        """The value as given here: KerasTuner makes whole numbers of booleans, and between
        processes a number loses digits."""
        if isinstance(self.values[0], bool):
            return bool(value)
        if isinstance(self.values[0], float):
            return min(self.values, key=lambda own: abs(own - value))
        return value


@dataclass(frozen=True)
class _Range:
    """A number between two others, both included.

    Attributes:
        low: the smallest value.
        high: the largest.
        step: the distance of two values, with `sampling="log"` their ratio; `None` for any.
        sampling: `"linear"`, or `"log"` for equal chances of equal ratios.
        default: the value of the first trial; `low` if not given.
        when: other parameters of the space → values of theirs with which this one is there at all.
            They must be choices of strings, booleans or whole numbers.
        also: further settings that take the same value.
    """

    low: Any
    high: Any
    step: Any = None
    sampling: Literal["linear", "log"] = "linear"
    default: Any = None
    when: Mapping[str, tuple] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    def __post_init__(self):
        _as_tuples(self)
        if self.default is None:
            object.__setattr__(self, "default", self.low)
        if not self.low < self.high or not self.low <= self.default <= self.high:
            raise ValueError(
                f"A parameter {type(self).__name__} must have low < high and its default between "
                f"them. Received: low={self.low}, high={self.high}, default={self.default}."
            )
        if self.sampling not in ("linear", "log") or (self.sampling == "log" and self.low <= 0):
            raise ValueError(
                "`sampling` must be 'linear', or 'log' where `low` is positive. "
                f"Received: sampling={self.sampling!r}, low={self.low}."
            )


@dataclass(frozen=True)
class Int(_Range):
    """A whole number between two others, both included; the arguments are those of `Float`.

    Example:

    >>> keras_seq.tuning.Int(2, 8, default=4).high
    8
    """

    def declare(self, hp: Any, name: str) -> None:
        """Makes the parameter known to KerasTuner."""
        with _conditions(hp, self.when):
            hp.Int(
                name, self.low, self.high, self.step, sampling=self.sampling, default=self.default
            )

    def tidy(self, value: Any) -> int:
        """The value as a whole number."""
        return int(value)


@dataclass(frozen=True)
class Float(_Range):
    """A number between two others, both included.

    Attributes:
        low: the smallest value.
        high: the largest.
        step: the distance of two values, with `sampling="log"` their ratio; `None` for any.
        sampling: `"linear"`, or `"log"` for equal chances of equal ratios.
        default: the value of the first trial; `low` if not given.
        when: other parameters of the space → values of theirs with which this one is there at all.
            They must be choices of strings, booleans or whole numbers.
        also: further settings that take the same value.

    Example:

    >>> keras_seq.tuning.Float(1e-4, 1e-1, sampling="log", default=1e-3).default
    0.001
    """

    def declare(self, hp: Any, name: str) -> None:
        """Makes the parameter known to KerasTuner."""
        low, high, default = float(self.low), float(self.high), float(self.default)
        with _conditions(hp, self.when):
            hp.Float(name, low, high, self.step, sampling=self.sampling, default=default)

    def tidy(self, value: Any) -> float:
        """The value with five digits: between processes a number may have lost the others."""
        return float(f"{value:.5g}")


Parameter = Choice | Int | Float
Space = dict[str, Parameter]  # setting → parameter
