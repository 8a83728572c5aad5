"""What is asked of a model that may be the user's own: each contract with its name."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Streams(Protocol):
    """A model with a state that goes in and comes out of `call(inputs, initial_state, ...)`."""

    def get_initial_state(self, batch_size, kind: str | None = None) -> Any: ...

    def __call__(self, *args, **kwargs) -> Any: ...


@runtime_checkable
class NamesInputs(Protocol):
    """A model that says which inputs it reads; others read ids."""

    def input_spec_for_export(self) -> Any: ...


@runtime_checkable
class Classifies(Protocol):
    """A model of class log-probabilities."""

    classes: int


@runtime_checkable
class KnowsWords(Protocol):
    """A model that reads ids of a vocabulary of a known size; `None` for a model of floats."""

    vocabulary_size: int | None


def vocabulary_size_of(model: Any) -> int | None:
    """How many ids a model knows; `None` where it does not say."""
    return model.vocabulary_size if isinstance(model, KnowsWords) else None
