"""Recipes as documents and as changes of one: one check of types and ranges."""

import json

import numpy as np
import pytest

from keras_seq import zoo
from keras_seq.training import building

RECIPE = zoo.recipe("trellisnet_ptb_word")
WRONG = ["", "many", True, None, -1, 0.5, [], [1], {}, {"a": 1}, 10**400, -(10**9)]
NAN = ("NaN", "Infinity", "-Infinity", "1e999")
TEXTS = ("name", "family", "summary", "paper", "notes", "monitor", "precision", "task")
COUNTS = ("epochs", "data.batch_size", "data.eval_batch_size", "data.length", "early_stopping")
WHOLE = ("parameters", "seed", "data.history", "schedule.patience", "stop_nonmonotone")
NUMBERS = ("optimizer.learning_rate", "optimizer.l2", "optimizer.global_clipnorm")
MORE_NUMBERS = ("schedule.factor", "schedule.minimum", "schedule.warmup", "reported.value")
OPTIONAL = ("data.eval_batch_size", "data.length", "early_stopping", "stop_nonmonotone")
OPTIONAL += ("optimizer.global_clipnorm", "reported.value", "model.auxiliary_frequency")
FREE = ("summary", "paper", "notes", "reported.source", "reported.size")  # any text


def fits(key: str, value) -> bool:
    """Whether a wrong-looking value is good for a field after all."""
    if value is None:
        return key in OPTIONAL
    if key in ("model.units", "model.auxiliary_frequency") and isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63  # the layer knows the range
    if isinstance(value, str):
        named = ("family", "monitor", "data.name", "reported.metric")
        return key in (*FREE, "model.head") or (value == "many" and key in named)
    if isinstance(value, bool):
        return key in ("jit_compile", "optimizer.scale_by_length", "model.carry_state")
    if isinstance(value, int | float) and abs(value) < 1e300:
        if key == "reported.value":
            return True
        if key == "model.hidden_dropout":
            return True
        return value == 0.5 and key in (*NUMBERS, *MORE_NUMBERS)
    if isinstance(value, list):
        return key == "schedule.milestones" and all(epoch == 1 for epoch in value)
    if isinstance(value, dict):
        free = ("variants", "optimizer.options", "schedule")
        return key == "data.options" or (not value and key in free)
    return False


def keys_of(values: dict, prefix: str = "") -> list[str]:
    keys = []
    for name, value in values.items():
        keys.append(f"{prefix}{name}")
        if isinstance(value, dict) and name != "variants":
            keys += keys_of(value, f"{prefix}{name}.")
    return keys


def document_with(key: str, value) -> dict:
    """The recipe's document with one entry changed; an ellipsis takes it out."""
    document = json.loads(RECIPE.to_json())
    place, *_ = [document]
    *path, last = key.split(".")
    for name in path:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


def read(document) -> zoo.Recipe:
    return zoo.Recipe.from_json(document if isinstance(document, str) else json.dumps(document))


TYPED = [
    *("name", "family", "task", "summary", "paper", "model", "data", "optimizer", "reported"),
    *("schedule", "variants", "precision", "jit_compile", "monitor", "notes", "schedule.name"),
    *("schedule.milestones", "data.name", "data.options", "optimizer.name", "optimizer.options"),
    *("optimizer.scale_by_length", "reported.metric", "reported.source", "reported.size"),
    *(*COUNTS, *WHOLE, *NUMBERS, *MORE_NUMBERS),
    *("model.units", "model.hidden_dropout", "model.head", "model.auxiliary_frequency"),
]


@pytest.mark.parametrize("key", TYPED)
def test_values_of_the_wrong_type_or_range_are_refused(key):
    """In documents and as changes, by the same check, which names the field."""
    assert key in [*keys_of(json.loads(RECIPE.to_json())), "model.head"]
    for value in WRONG:
        if fits(key, value):
            changed = read(document_with(key, value))
            assert zoo.Recipe.from_json(changed.to_json()) == changed
            continue
        with pytest.raises(ValueError, match=rf"`{key}[`.]") as caught:
            read(document_with(key, value))
        if key != "name" and value != {"a": 1}:  # what may be meant for a name set later
            with pytest.raises(ValueError, match=rf"`{key}[`.]") as again:
                RECIPE.replace(**{key: value})
            if key not in ("data", "optimizer", "reported", "schedule"):
                assert str(again.value) == str(caught.value)


@pytest.mark.parametrize("constant", NAN)
@pytest.mark.parametrize("key", [*NUMBERS, *MORE_NUMBERS, "epochs", "model.hidden_dropout"])
def test_numbers_are_finite(key, constant):
    text = json.dumps(document_with(key, "HERE")).replace('"HERE"', constant)
    with pytest.raises(ValueError, match=f"`{key}`"):
        read(text)


@pytest.mark.parametrize("key", [k for k in keys_of(json.loads(RECIPE.to_json())) if "." not in k])
def test_missing_and_unknown_fields(key):
    required = ("name", "family", "task", "summary", "paper", "model", "data", "optimizer")
    if key in (*required, "reported", "parameters"):
        with pytest.raises(ValueError, match=f"lacks fields: {key}"):
            read(document_with(key, ...))
    else:
        read(document_with(key, ...))
    if isinstance(json.loads(RECIPE.to_json())[key], dict) and key not in ("model", "variants"):
        with pytest.raises(ValueError, match=f"`{key}` has unknown fields: more"):
            read(document_with(f"{key}.more", 1))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "JSON document"),
        ("[]", "must be an object"),
        ("null", "must be an object"),
        ("[" * 100_000, "JSON document"),
        ('{"a":' * 100_000, "JSON document"),
        ("9" * 10_000, "JSON document"),
        ('{"epochs": 1, "epochs": 2}', "`epochs` comes twice"),
        ('{"speed": 1}', "unknown fields: speed"),
        ("{}", "lacks fields: name, family"),
    ],
)
def test_other_documents(text, word):
    with pytest.raises(ValueError, match=word):
        read(text)


def test_nested_settings():
    deep = 1
    for _ in range(50):
        deep = [deep]
    cases = [
        ("model.unitz", 1, "`model.unitz` is no setting of this model"),
        ("model.solver", {"name": "anderson"}, "`model.solver` is no setting"),
        ("model.dilation_rate", [1, "2"], "`model.dilation_rate` must be of type int or list"),
        ("model.units", deep, "nested more than 20 deep"),
        ("data.options.more", deep, r"`data.options\.more` must not be nested"),
        ("data.options.more", "\ud800", "`data.options.more` must be something that JSON has"),
        ("optimizer.options.momentums", 1, "`optimizer.options.momentums` is no option of SGD"),
        ("optimizer.options.momentum", "x", "`optimizer.options.momentum` must be of type float"),
        ("optimizer.options.nesterov", 1, "`optimizer.options.nesterov` must be of type bool"),
        ("optimizer.name", "NonMonotoneTrigger", "`optimizer.name` must be one of: .*SGD"),
        ("schedule.name", "cosin", "`schedule.name` must be one of: 'constant', 'plateau'"),
        ("schedule.milestones", [3, 0], "`schedule.milestones` must be epochs"),
        ("precision", "float33", "`precision` must be a dtype policy"),
        ("variants", {"wide": {"model.unit": 3}}, "`variants.wide`: `model.unit` is no setting"),
        ("variants", {"wide": 3}, "`variants` must be of type mapping"),
    ]
    for key, value, word in cases:
        with pytest.raises(ValueError, match=word):
            read(document_with(key, value))
    for key in ("epochs.more", "model.units.more", "more", "", "data.more.more"):
        with pytest.raises(ValueError, match="Unknown setting"):
            RECIPE.replace(**{key: 1})


def test_numbers_of_numpy_and_paths(tmp_path):
    changes = {"epochs": np.int64(3), "optimizer.learning_rate": np.float32(0.5)}
    changes |= {"model.units": np.int32(7), "data.options": {"file": tmp_path, "sizes": (1, 2)}}
    changed = RECIPE.replace(**changes)
    assert type(changed.epochs) is int and changed.optimizer.learning_rate == 0.5
    assert changed.data.options == {"file": str(tmp_path), "sizes": [1, 2]}
    assert zoo.Recipe.from_json(changed.to_json()) == changed


@pytest.mark.parametrize("name", zoo.names())
def test_every_recipe_comes_back_from_its_document(name):
    for variant in (None, *zoo.recipe(name).variants):
        recipe = zoo.recipe(name, variant)
        again = zoo.Recipe.from_json(recipe.to_json())
        assert again == recipe and again.to_json() == recipe.to_json()
        assert recipe.replace() == recipe
        building.build_optimizer(again.optimizer, length=again.data.length)
