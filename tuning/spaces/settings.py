"""What a space is made from: the settings of a recipe's model."""

from typing import Any

from keras_seq.zoo import Recipe, registry


class Settings:
    """The settings of a recipe's model, with the builder's defaults where the recipe has none.

    Attributes:
        recipe: the recipe.
        values: setting → value.
        known: what the model takes, as dotted keys: `"model.units"`.
    """

    def __init__(self, recipe: Recipe):
        parameters = registry.settings_of(recipe.name)
        defaults = {
            name: parameter.default
            for name, parameter in parameters.items()
            if parameter.default is not parameter.empty
        }
        self.recipe = recipe
        self.values: dict[str, Any] = {**defaults, **recipe.model}
        self.known = {f"model.{name}" for name in (*parameters, *recipe.model)}

    def __getitem__(self, name: str) -> Any:
        """The value of a setting; `None` for one that the model does not take."""
        return self.values.get(name)

    @property
    def tied(self) -> bool:
        """Whether the last width must be that of the embedding."""
        return self["head"] == "tied"
