"""Parameters of zoo models, counted in a graph that is never run: no weight is made."""

import json

import tensorflow as tf

from keras_seq import zoo


def count(recipe: zoo.Recipe) -> int:
    """Parameters of the model that a recipe builds, those that never train included."""
    with tf.Graph().as_default():
        weights = zoo.build(recipe).weights
        return sum(w.shape.num_elements() for w in weights if "float" in w.dtype)  # no counters


def wrong_sizes(name: str) -> dict[str | None, int]:
    """The variants of a model, itself included, whose recipe states another size than it has."""
    recipe, sizes, wrong = zoo.recipe(name), {}, {}
    for variant in (None, *recipe.variants):
        changed = recipe.variant(variant)
        key = json.dumps(dict(changed.model), sort_keys=True)
        if key not in sizes:
            sizes[key] = count(changed)
        if sizes[key] != changed.parameters:
            wrong[variant] = sizes[key]
    return wrong
