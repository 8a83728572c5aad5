"""Series of different lengths: one protocol for all families, answers that know no padding."""

import csv
from pathlib import Path

import numpy as np
import pytest

from keras_seq import pipelines, training, zoo

NAMES = [name for name in zoo.names() if name.endswith("_japanese_vowels")]
RUNS = Path(__file__).resolve().parents[2] / "docs" / "runs"
SMALL = {
    "trellisnet": {"units": 6, "output_units": 5, "levels": 3},
    "deq_trellisnet": {"units": 6, "output_units": 5, "max_steps": 30, "tolerance": 1e-6},
    "deq_transformer": {"units": 8, "heads": 2, "inner_units": 8, "tolerance": 1e-6},
    "pru": {"units": 8},
    "r_transformer": {"units": 8, "heads": 2, "window": 3},
    "recurrent": {"units": 6},
    "tcn": {"units": 6, "levels": 2},
    "transformer": {"units": 8, "levels": 1, "heads": 2},
    "transformer_xl": {"levels": 1, "heads": 2, "head_units": 4, "inner_units": 8},
}


def test_every_family_has_the_recipe_under_one_protocol():
    families = {zoo.recipe(name).family for name in zoo.names()}
    assert {zoo.recipe(name).family for name in NAMES} == families
    first = zoo.recipe(NAMES[0])
    for name in NAMES:
        recipe = zoo.recipe(name)
        for field in ("task", "data", "optimizer", "schedule", "epochs", "monitor", "seed"):
            assert getattr(recipe, field) == getattr(first, field), (name, field)
        assert recipe.monitor == "val_nll"  # nothing is chosen on the test split


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Twelve series of 2 to 9 steps in a file."""
    rng = np.random.default_rng(3)
    rows = []
    for i, length in enumerate([2, 9, 5, 5, 3, 7, 9, 2, 4, 6, 8, 5]):
        values = rng.normal(size=(12, length)).round(3)
        rows.append(":".join([*(",".join(map(str, row)) for row in values), str(1 + i % 9)]))
    folder = tmp_path_factory.mktemp("series")
    head = "@classLabel true 1 2 3 4 5 6 7 8 9\n@data\n"
    for split in ("TRAIN", "TEST"):
        (folder / f"JapaneseVowels_{split}.ts").write_text(head + "\n".join(rows) + "\n")
    return folder


def answers(model, folder, **options):
    """Predictions for every series, by its values, and the figures of the split."""
    options = {"batch_size": 12, "validation": 0.0, **options}
    data = pipelines.load("japanese_vowels", folder, **options).test
    found = {}
    for x, _ in data:
        for values, length, row in zip(
            x["inputs"].numpy(), x["lengths"].numpy(), model.predict_on_batch(x), strict=True
        ):
            found[values[:length].tobytes()] = row
    return found, model.evaluate(data, verbose=0, return_dict=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_padded_bucketed_or_one_by_one(name, series):
    recipe = zoo.recipe(name)
    model = getattr(zoo, name)(**SMALL[recipe.family], seed=1)
    training.building.compile_model(model, recipe)
    padded, figures = answers(model, series, buckets=0)
    assert len(padded) == 12
    for options in ({"buckets": 3, "batch_size": 4}, {"buckets": 0, "batch_size": 1}):
        other, same = answers(model, series, **options)
        for key, row in padded.items():
            np.testing.assert_allclose(other[key], row, rtol=1e-5, atol=1e-5)
        assert same["accuracy"] == pytest.approx(figures["accuracy"])
        assert same["nll"] == pytest.approx(figures["nll"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tcn_japanese_vowels"])
def test_train_evaluate_and_resume(name, tmp_path):
    """A recipe takes its sizes from any series; a run that was stopped goes on with the same."""
    recipe = zoo.recipe(name).replace(
        **{
            "data.name": "series_classification",
            "data.batch_size": 48,
            "schedule.name": "constant",  # another would end with the steps of each part
            "schedule.warmup": 0.0,
            "epochs": 2,
            "model.units": 6,
            "model.levels": 2,
        }
    )
    whole = training.train(recipe, run_dir=tmp_path / "whole", verbose=0)
    assert whole.recipe.model["features"] == 2 and whole.recipe.model["classes"] == 4
    training.train(recipe, run_dir=tmp_path / "parts", max_steps=3, verbose=0)
    parts = training.train(run_dir=tmp_path / "parts", resume=True, max_steps=100, verbose=0)
    for one, other in zip(whole.history, parts.history, strict=True):
        assert one["val_nll"] == pytest.approx(other["val_nll"], rel=1e-5)
        assert one["nll"] == pytest.approx(other["nll"], rel=1e-5)
    figures = training.evaluate(whole)
    assert figures["examples"] == 240 and np.isfinite(figures["nll"])


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_run_is_the_recipe(name):
    """As long as the recipe says, learnt, and done in minutes."""
    with (RUNS / f"japanese_vowels-{name.removesuffix('_japanese_vowels')}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == zoo.recipe(name).epochs
    best = min(rows, key=lambda row: float(row["val_nll"]))
    assert float(best["val_accuracy"]) > 0.9
    assert sum(float(row["seconds"]) for row in rows) < 600
