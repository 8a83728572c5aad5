"""A recipe as a KerasTuner HyperModel, for tuners of one's own."""

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_seq.models.size import count_parameters
from keras_seq.training import building
from keras_seq.tuning.objectives import objective as objective_of
from keras_seq.tuning.parameters import Parameter
from keras_seq.tuning.spaces import space as space_of
from keras_seq.tuning.trial import (
    TrialFailed,
    Trials,
    check_parameters,
    values_of,
)
from keras_seq.zoo import Recipe

MISSING = (
    'Searches need KerasTuner: pip install "keras-seq[tuning]" (keras-tuner, scipy, scikit-learn).'
)


def keras_tuner_module() -> Any:
    """KerasTuner.

    Raises:
        ImportError: with what to install, if it is not there.
    """
    try:
        import keras_tuner
    except ImportError as error:
        raise ImportError(MISSING) from error
    return keras_tuner


def hypermodel(
    recipe: Recipe | str,
    space: Mapping[str, Parameter] | None = None,
    objective: str | None = None,
    data_dir: str | Path | None = None,
    max_steps: int | None = None,
    max_parameters: int | None = None,
) -> Any:
    """Turns a recipe into a `keras_tuner.HyperModel`.

    `build(hp)` gives the compiled model of a trial. `fit(hp, model, ...)` loads the data, since
    batch, length and other settings of the data are part of the space, trains as the recipe says,
    in a folder that is removed afterwards, and returns the best value of the objective. A trial
    that diverges or has too many parameters raises KerasTuner's `FailedTrialError`, upon which a
    tuner goes on with the next one. `search` does the same with resuming, tables and pictures.

    Args:
        recipe: a recipe or the name of one.
        space: setting → parameter; that of `space(recipe)` if not given.
        objective: name of the objective; the recipe's `monitor` if not given.
        data_dir: folder of the raw files of the data set, where it needs them.
        max_steps: optimizer steps of a trial at most.
        max_parameters: trainable parameters of a model at most.

    Raises:
        ImportError: without KerasTuner.

    Example:

    ```python
    import keras_tuner

    model = keras_seq.tuning.hypermodel("pru_python_docs", max_steps=50, max_parameters=300_000)
    goal = keras_tuner.Objective("val_nll", "min")
    tuner = keras_tuner.RandomSearch(model, goal, max_trials=10, max_consecutive_failed_trials=10)
    tuner.search(epochs=1)
    ```
    """
    keras_tuner = keras_tuner_module()
    recipe = building.as_recipe(recipe)

    class RecipeHyperModel(keras_tuner.HyperModel):
        """A recipe's model and its training, as KerasTuner calls them."""

        def __init__(self, trials: Trials):
            super().__init__(name=trials.recipe.name)
            self.trials = trials

        def declare_hyperparameters(self, hp):
            self.trials.declare(hp)

        @functools.cached_property
        def _vocabulary_size(self) -> int | None:
            data = building.load_data(self.trials.recipe, self.trials.data_dir)
            return None if data.vocabulary is None else data.vocabulary.size

        def build(self, hp):
            self.trials.declare(hp)
            try:
                found = self.trials.recipe_of(values_of(hp))
            except TrialFailed as error:
                raise keras_tuner.errors.FailedTrialError(str(error)) from None
            size = self._vocabulary_size
            if size is not None and "vocabulary_size" in found.model:
                found = found.replace(**{"model.vocabulary_size": size})
            model = building.build_model(found)
            building.compile_model(model, found)
            return model

        def fit(self, hp, model, *args, epochs=None, initial_epoch=0, callbacks=(), **kwargs):
            if args or set(kwargs) - {"verbose"}:
                raise ValueError(
                    "`search` of the tuner takes `epochs`, `callbacks` and `verbose`: the data "
                    f"come from the recipe. Received: {len(args)} more, {sorted(kwargs)}."
                )
            goal = self.trials.objective.name
            try:
                check_parameters(count_parameters(model), self.trials.max_parameters)
                with tempfile.TemporaryDirectory() as folder:
                    run = Path(folder, "run")
                    result = self.trials.run(values_of(hp), run, epochs=epochs, callbacks=callbacks)
            except TrialFailed as error:
                raise keras_tuner.errors.FailedTrialError(str(error)) from None
            return {goal: result["value"]}

    trials = Trials(
        recipe,
        space_of(recipe) if space is None else space,
        objective_of(objective or recipe.monitor),
        data_dir,
        max_steps,
        max_parameters,
    )
    return RecipeHyperModel(trials)
