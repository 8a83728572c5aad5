"""TrellisNet's zoo: sizes of the papers, settings, variants."""

import keras
import numpy as np
import pytest
from zoo_sizes import count

from keras_seq import zoo

# From golden/parameter_counts.json: reference code built with the same settings.
PUBLISHED = {
    ("trellisnet_ptb_word", None): 24_175_600,
    ("trellisnet_ptb_word", "paper"): 24_175_600,
    ("trellisnet_ptb_word", "released"): 24_175_600,
    ("trellisnet_ptb_word_mos", None): 25_681_735,
    ("trellisnet_ptb_word_mos", "paper"): 25_681_735,
    ("trellisnet_ptb_word_mos", "released"): 26_587_615,
    ("trellisnet_ptb_char", None): 13_464_450,
    ("trellisnet_ptb_char", "paper"): 13_464_450,
    ("trellisnet_ptb_char", "released"): 14_525_050,
    ("trellisnet_wt103", None): 181_710_042,  # with the 1,539 of the reference's criterion
    ("trellisnet_wt103", "paper"): 198_150_042,
    ("trellisnet_wt103", "released"): 181_710_042,
    ("trellisnet_seq_mnist", None): 8_181_110,
    ("trellisnet_seq_mnist", "paper"): 99_110,
    ("trellisnet_seq_mnist", "released"): 137_910,
    ("trellisnet_perm_mnist", None): 8_181_110,
    ("trellisnet_seq_cifar10", None): 8_197_270,
    ("trellisnet_seq_cifar10", "paper"): 100_870,
    ("trellisnet_seq_cifar10", "released"): 139_990,
}


def names() -> list[str]:
    return [name for name in zoo.names() if name.startswith("trellisnet_")]


def test_sizes_equal_the_reference():
    for (name, variant), size in PUBLISHED.items():
        recipe = zoo.recipe(name, variant)
        assert (count(recipe), recipe.parameters) == (size, size), (name, variant)


def test_sizes_that_the_reference_does_not_have_by_hand():
    """4h(p + h)k weights, gains and biases; an embedding and a softmax that share their table."""

    def trellis(inputs: int, hidden: int) -> int:
        return 4 * hidden * (2 * inputs + 2 * hidden + 1 + 2)

    assert PUBLISHED["trellisnet_wt103", "paper"] == (
        trellis(512, 2000 + 512) + 267_735 * (512 + 1) + 3 * (512 + 1)
    )
    for name, features in (("seq_mnist", 1), ("seq_cifar10", 3)):
        size = PUBLISHED[f"trellisnet_{name}", "paper"]
        assert size == trellis(features, 100 + 10) + (10 + 1) * 10


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("trellisnet_ptb_word_large", 32_500_000, 33_500_000),
        ("trellisnet_ptb_word_mos_large", 33_500_000, 34_500_000),
    ],
)
def test_large_variants_have_the_quoted_size(name, low, high):
    assert low < zoo.recipe(name).parameters < high


def test_settings_may_be_overridden_and_unknown_ones_are_refused():
    sizes = {"units": 10, "output_units": 8, "embedding_dim": 8, "levels": 3}
    model = zoo.trellisnet_ptb_word(**sizes, auxiliary_frequency=3, history=0)
    assert model.core.units == 10
    assert model.history_steps == 0
    with pytest.raises(ValueError, match="no setting 'unitz'"):
        zoo.trellisnet_ptb_word(unitz=10)
    with pytest.raises(ValueError, match="`variant` of trellisnet_ptb_word must be one of"):
        zoo.trellisnet_ptb_word(variant="other")
    with pytest.raises(ValueError, match="Did you mean: .*trellisnet_ptb_word"):
        zoo.recipe("trellisnet_ptb_words")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = zoo.nothing


def test_dotted_changes():
    recipe = zoo.recipe("trellisnet_ptb_word")
    changed = recipe.replace(**{"optimizer.learning_rate": 3, "model.units": 7, "epochs": 2})
    assert changed.optimizer.learning_rate == 3.0
    assert changed.model["units"] == 7
    assert changed.epochs == 2
    assert recipe.epochs == 500
    with pytest.raises(ValueError, match="Unknown setting 'optimizer.rate'"):
        recipe.replace(**{"optimizer.rate": 3})
    with pytest.raises(ValueError, match="`epochs` must be of type int"):
        recipe.replace(epochs="many")
    with pytest.raises(ValueError, match="unknown fields: speed"):
        zoo.Recipe.from_json('{"speed": 1}')


def test_small_models_of_every_entry_run():
    """Every entry builds at a small size and predicts."""
    small = {"units": 6, "levels": 2, "auxiliary_frequency": None, "auxiliary_weight": 0.0}
    for name in names():
        if name == "trellisnet_wt103":  # the table alone is too large here
            small = {**small, "vocabulary_size": 50, "cutoffs": [10, 20]}
        model = getattr(zoo, name)(**small)
        settings = zoo.recipe(name).model
        ids = "vocabulary_size" in settings
        x = np.zeros((2, 5) if ids else (2, 5, settings["features"]), "int32" if ids else "float32")
        assert np.isfinite(keras.ops.convert_to_numpy(model(x))).all()
