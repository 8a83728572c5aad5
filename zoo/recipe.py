"""Recipes: how a paper built and trained a model, as a value.

A recipe is a frozen dataclass that round-trips through JSON. `keras_seq.training.train` reads
nothing else: model settings, data, batch, lengths, optimizer, schedule, stop rule and the figure
that the paper reports are all in it.
"""

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from keras_seq._files import CHECKSUM
from keras_seq.zoo import recipe_checks
from keras_seq.zoo.settings import with_todays_names

Task = Literal["language_model", "sequence_classifier", "sequence_regressor", "frame_model"]


@dataclass(frozen=True)
class DataSpec:
    """What a model is trained on: arguments of `keras_seq.pipelines.load`.

    Attributes:
        name: the pipeline's name.
        batch_size: sequences in a training batch.
        eval_batch_size: sequences in a validation or test batch; `None` for `batch_size`.
        length: time steps of a text window that carry loss; `None` for images and synthetic tasks.
        history: time steps before them that give context only (TrellisNet's effective history).
        options: further options of the pipeline.
    """

    name: str
    batch_size: int
    eval_batch_size: int | None = None
    length: int | None = None
    history: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer of `keras_seq.optimizers`.

    Attributes:
        name: its class name, for example `"SGD"`.
        learning_rate: the initial learning rate.
        global_clipnorm: largest norm of all gradients together; `None` for no clipping.
        l2: weight of the L2 penalty that is added to the gradient after clipping (PyTorch's
            `weight_decay`).
        options: further arguments of the optimizer.
        scale_by_length: multiply the rate of a step by the length of its window over
            `data.length`, for windows of random length.
    """

    name: str
    learning_rate: float
    global_clipnorm: float | None = None
    l2: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    scale_by_length: bool = False


@dataclass(frozen=True)
class ScheduleSpec:
    """How the learning rate changes.

    Attributes:
        name: one of
            `"constant"`;
            `"plateau"`, the rule of TrellisNet's scripts: after epoch e, multiply by `factor` if
            e - 1 > `patience` and the validation loss is above the lowest of epochs 1 to
            e - 1 - `patience`;
            `"highest"`, the rule of the TCN's and the R-Transformer's scripts: after epoch e,
            multiply by `factor` if e > `delay` and the validation loss is not below the highest of
            the `patience` epochs before;
            `"milestones"`: multiply by `factor` at the start of each epoch, counted from 1, in
            `milestones`;
            `"cosine"`: from the initial rate to `minimum` over the run, after `warmup` of the
            run's steps, a fraction.
        factor: multiplier of a plateau or milestone.
        patience: the newest epochs that a plateau does not compare with, or the epochs whose
            highest loss counts.
        delay: epochs that pass before the rule `"highest"` begins.
        minimum: the learning rate is never taken below this.
        milestones: epochs, counted from 1.
        warmup: fraction of the steps with a linearly growing rate (cosine only).
    """

    name: Literal["constant", "plateau", "highest", "milestones", "cosine"] = "constant"
    factor: float = 0.1
    patience: int = 5
    minimum: float = 0.0
    milestones: tuple[int, ...] = ()
    warmup: float = 0.0
    delay: int = 0


@dataclass(frozen=True)
class Reported:
    """A figure that a paper reports.

    Attributes:
        metric: `"perplexity"`, `"bits_per_character"` or `"accuracy"` (a percentage).
        value: the figure on the test split; `None` where the paper gives none for this model.
        source: paper and table.
        size: the size that the paper quotes, for example `"24M"` or `"3 layers of 128"`.
        validation: the figure on the validation split, in the same metric.
    """

    metric: str
    value: float | None = None
    source: str = ""
    size: str = ""
    validation: float | None = None


@dataclass(frozen=True)
class Recipe:
    """A model of the zoo and how it is trained.

    Attributes:
        name: the zoo entry that builds the model.
        family: for example `"trellisnet"`.
        task: `"language_model"`, `"sequence_classifier"`, `"sequence_regressor"` or
            `"frame_model"`.
        summary: one line.
        paper: authors, title and venue.
        model: settings of the zoo entry; all of them may be overridden.
        data: what it is trained on.
        optimizer: the optimizer.
        reported: the paper's figure.
        parameters: trainable parameters of the model with these settings.
        schedule: the learning rate's course.
        epochs: passes over the training split.
        early_stopping: epochs without improvement after which training stops; `None` for never.
        stop_nonmonotone: n of a second stopping rule, the trigger of Merity et al. (2018): training
            stops after an epoch that is worse than one more than n epochs before; `None` for never.
        monitor: the validation quantity that selects the best epoch (smaller is better, except
            accuracy).
        seed: seed of initialisation, dropout and data order.
        precision: a Keras dtype policy.
        jit_compile: compile the training step with XLA.
        variants: named sets of changes, keyed as `replace` takes them.
        notes: where paper and released code disagree, and which one this is.
    """

    name: str
    family: str
    task: Task
    summary: str
    paper: str
    model: Mapping[str, Any]
    data: DataSpec
    optimizer: OptimizerSpec
    reported: Reported
    parameters: int
    schedule: ScheduleSpec = ScheduleSpec()
    epochs: int = 1
    early_stopping: int | None = None
    stop_nonmonotone: int | None = None
    monitor: str = "val_nll"
    seed: int = 1111
    precision: str = "float32"
    jit_compile: bool = False
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: str = ""

    def __post_init__(self):
        object.__setattr__(self, "model", with_todays_names(self.model))

    def variant(self, name: str | None) -> Self:
        """This recipe with a named variant's changes."""
        if name is None:
            return self
        if name not in self.variants:
            known = ", ".join(map(repr, self.variants)) or "none"
            raise ValueError(
                f"`variant` of {self.name} must be one of: {known}. Received: variant={name!r}."
            )
        return self.replace(**self.variants[name])

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed.

        Args:
            **changes: new values. A dotted key reaches inside, as in
                `recipe.replace(**{"optimizer.learning_rate": 1.0, "model.units": 64})`.

        Raises:
            ValueError: for an unknown field, or a value of the wrong type or out of range.
        """
        result: Any = self
        for key, value in changes.items():
            result = _replace(result, key.split("."), value, key)
        result._check_settings(whole=False)
        return result

    def to_json(self) -> str:
        """The recipe as a JSON document."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The recipe that `to_json` wrote.

        The checksum in the `recipe.json` of a run is left out: a copy of it may be changed.

        Raises:
            ValueError: if the text is not JSON, or a field is unknown, missing, of the wrong type
                or out of range.
        """
        try:
            values = json.loads(text, object_pairs_hook=recipe_checks.no_doubles)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"A recipe must be a JSON document. {error}") from error
        if isinstance(values, dict):
            values.pop(CHECKSUM, None)
        recipe = recipe_checks.from_fields(cls, values, "")
        recipe._check_settings(whole=True)
        for name, changes in recipe.variants.items():
            try:
                recipe.replace(**changes)
            except ValueError as error:
                raise ValueError(f"`variants.{name}`: {error}") from error
        return recipe

    def _check_settings(self, whole: bool) -> None:
        """Checks what builder and optimizer say of their own settings."""
        from keras_seq.zoo import registry  # which holds recipes

        recipe_checks.check_optimizer(self.optimizer.name, self.optimizer.options, whole)
        if whole and self.name not in registry.entries():
            try:
                registry.find(self.name)
            except ValueError as error:
                raise ValueError(f"`name` must be of the zoo. {error}") from None
        if self.name in registry.entries():  # the zoo is not yet loaded as a whole
            recipe_checks.check_model(self.model, registry.find(self.name).builder)


def _replace(value, path: list[str], new, key: str):
    """Replaces the entry at `path` inside nested dataclasses and mappings."""
    head, *rest = path
    if isinstance(value, Mapping):
        inner = _replace(value.get(head, {}), rest, new, key) if rest else new
        return {**value, head: inner}
    if isinstance(value, type) or not dataclasses.is_dataclass(value):
        raise ValueError(f"Unknown setting {key!r}: there is nothing in it to set.")
    hints = typing.get_type_hints(type(value))
    if head not in hints:
        raise ValueError(f"Unknown setting {key!r}: {head!r} must be one of: {', '.join(hints)}.")
    inner = _replace(getattr(value, head), rest, new, key) if rest else new
    if not dataclasses.is_dataclass(hints[head]):
        name = ".".join(key.split(".")[: len(key.split(".")) - len(rest)])
        inner = recipe_checks.checked(hints[head], inner, name)
    elif not isinstance(inner, hints[head]):
        raise ValueError(
            f"`{key}` must be of type {hints[head].__name__}. Received: {key}={inner!r:.200}."
        )
    return dataclasses.replace(typing.cast(Any, value), **{head: inner})
