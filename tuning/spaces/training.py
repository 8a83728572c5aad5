"""What the space of every family has: how its models are trained."""

from keras_seq._tasks import TASKS
from keras_seq.models.pooling import POOLINGS
from keras_seq.tuning.parameters import Choice, Float, Space
from keras_seq.tuning.spaces.ranges import DOUBLING, one_of, scaled
from keras_seq.zoo import Recipe

# Of a learning rate: lowest, highest, and the default where the recipe has another optimizer.
RANGES = {"SGD": (1e-2, 50.0, 1.0), "NTASGD": (1e-1, 100.0, 30.0)}
USUAL = (1e-4, 3e-2, 2e-3)


def training(recipe: Recipe) -> Space:
    """Optimizer, learning rate, clipping, batch and length; what a reader reads, if it says so."""
    spec = recipe.optimizer
    names = tuple(dict.fromkeys((spec.name, "Adam", "RAdam", "SGD")))
    found: Space = {"optimizer.name": Choice(names, default=spec.name)}
    for name in names:
        low, high, usual = RANGES.get(name, USUAL)
        default = spec.learning_rate if name == spec.name else usual
        found[f"optimizer.learning_rate@{name}"] = Float(
            min(low, default),
            max(high, default),
            sampling="log",
            default=default,
            when={"optimizer.name": (name,)},
        )
    momentum = float(spec.options.get("momentum", 0.0))
    found["optimizer.options.momentum"] = Float(
        0.0, 0.95, default=momentum, when={"optimizer.name": ("SGD",)}
    )
    clip = spec.global_clipnorm
    if clip is not None:
        found["optimizer.global_clipnorm"] = Float(
            clip / 4, clip * 4, sampling="log", default=float(clip)
        )
    found["data.batch_size"] = scaled(recipe.data.batch_size, DOUBLING)
    if TASKS[recipe.task].of_text and recipe.data.length is not None:
        found["data.length"] = scaled(recipe.data.length, DOUBLING)
    if "pooling" in recipe.model:  # a recipe that names it asks what is best
        found["model.pooling"] = one_of(recipe.model["pooling"], POOLINGS)
    return found
