"""Recipes against the papers: hyper-parameters, figures and the tables that carry them, as data.

The texts: *Trellis Networks* (ICLR 2019), *Pyramidal Recurrent Unit* (EMNLP 2018), *R-Transformer*
(submitted to ICLR 2020).
"""

from pathlib import Path

import pytest

from keras_seq import zoo
from keras_seq.training.schedules import make_schedule

ROOT = Path(__file__).resolve().parents[2]

# TrellisNet, Table 5, row by row; `None` for a dash.
COLUMNS = {
    "ptb_word": ("trellisnet_ptb_word", "trellisnet_ptb_word_large"),
    "ptb_word_mos": ("trellisnet_ptb_word_mos", "trellisnet_ptb_word_mos_large"),
    "wt103": ("trellisnet_wt103",),
    "ptb_char": ("trellisnet_ptb_char",),
    "pixels": ("trellisnet_seq_mnist", "trellisnet_perm_mnist", "trellisnet_seq_cifar10"),
}
TABLE_5 = {
    "optimizer.name": ("SGD", "SGD", "Adam", "Adam", "Adam"),
    "optimizer.learning_rate": (20, 20, 1e-3, 2e-3, 2e-3),
    "model.units": (1000, 1000, 2000, 1000, 100),
    "model.output_units": (None, 480, None, None, None),
    "model.experts": (None, 15, None, None, None),
    "model.embedding_dim": (400, 280, 512, 200, None),
    "model.embedding_dropout": (0.1, 0.05, 0.0, 0.0, None),
    "model.hidden_dropout": (0.28, 0.28, 0.1, 0.3, 0.2),
    "model.output_dropout": (0.45, 0.4, 0.1, 0.1, 0.2),
    "model.weight_dropout": (0.5, 0.45, 0.1, 0.25, 0.1),
    "model.levels": (55, 55, 70, 125, 16),
    "model.auxiliary_weight": (0.05, 0.05, 0.08, 0.3, None),
    "model.auxiliary_frequency": (16, 16, 25, 70, None),
    "model.weight_normalization": (None, None, True, True, True),
    "optimizer.global_clipnorm": (0.225, 0.2, 0.1, 0.2, 0.5),
    "optimizer.l2": (1e-6, 1e-6, 0.0, 1e-6, 1e-6),
    "reported.size": ("24M", "25M", "180M", "13.4M", "8M"),
}
# Defaults of the released scripts; the mixture's columns are those of the script without it.
RELEASED = {
    "optimizer.name": ("SGD", "SGD", "Adam", "Adam", "Adam"),
    "optimizer.learning_rate": (20, 20, 1e-3, 2e-3, 4e-3),
    "model.units": (1000, 1000, 1600, 1050, 120),
    "model.output_units": (400, 400, 512, 200, 10),
    "model.experts": (None, 15, None, None, None),
    "model.embedding_dim": (400, 400, 512, 200, None),
    "model.embedding_dropout": (0.1, 0.1, 0.0, 0.02, None),
    "model.input_dropout": (0.45, 0.45, 0.1, 0.1, 0.2),
    "model.hidden_dropout": (0.28, 0.28, 0.1, 0.29, 0.2),
    "model.output_dropout": (0.45, 0.45, 0.1, 0.1, 0.1),
    "model.weight_dropout": (0.5, 0.5, 0.0, 0.26, 0.1),
    "model.levels": (58, 58, 75, 140, 11),
    "model.auxiliary_weight": (0.05, 0.05, 0.1, 0.3, None),
    "model.auxiliary_frequency": (12, 12, 25, 80, None),
    "model.weight_normalization": (None, None, True, True, True),
    "optimizer.global_clipnorm": (0.225, 0.225, 0.07, 0.2, 0.5),
    "optimizer.l2": (1.2e-6, 1.2e-6, 0.0, 8e-7, 0.0),
    "data.batch_size": (16, 16, 40, 24, 64),
    "data.length": (52, 52, 75, 140, None),
    "epochs": (500, 500, 25, 400, 200),
}
# What a table's dash, or a setting that a recipe does not name, stands for.
DASHES = {
    "model.embedding_dropout": 0.0,
    "model.weight_dropout": 0.0,
    "model.auxiliary_weight": 0.0,
    "model.weight_normalization": False,
}
# Widths and sizes that the text does not give of the larger models.
LARGER = {"model.units", "reported.size"}
TRELLISNETS = [name for names in COLUMNS.values() for name in names]


def value(recipe: zoo.Recipe, key: str):
    """The setting of a dotted key, or what stands for its absence."""
    *path, last = key.split(".")
    for part in path:
        recipe = getattr(recipe, part)
    if isinstance(recipe, dict):
        return recipe.get(last, DASHES.get(key))
    return getattr(recipe, last)


def cells(table):
    """Recipe, setting and value of every cell."""
    for key, row in table.items():
        for (column, names), cell in zip(COLUMNS.items(), row, strict=True):
            for name in names:
                larger = name.endswith("_large")
                if larger and (key in LARGER or (table is RELEASED and column == "ptb_word_mos")):
                    continue
                yield name, key, DASHES.get(key) if cell is None else cell


def disagreements(table, variant: str):
    found = []
    for name, key, cell in cells(table):
        recipe = zoo.recipe(name, variant)
        if key == "model.output_units" and cell is None:  # only for the mixture
            assert recipe.model.get("head") != "mixture"
        elif value(recipe, key) != cell:
            found.append((name, key, value(recipe, key), cell))
    return found


def test_papers_variants_are_table_5():
    assert disagreements(TABLE_5, "paper") == []


def test_released_variants_are_the_scripts_defaults():
    assert disagreements(RELEASED, "released") == []


def test_every_trellisnet_has_both_variants_and_a_default_of_the_reported_size():
    for name in TRELLISNETS:
        recipe = zoo.recipe(name)
        assert list(recipe.variants) == ["paper", "released"]
        stated = float(recipe.reported.size.removesuffix("M"))
        assert recipe.parameters / 1e6 == pytest.approx(stated, rel=0.03), name
        if name == "trellisnet_wt103":
            assert recipe == recipe.variant("released")
            assert recipe.variant("paper").parameters == 198_150_042  # not 180M
        elif name.removeprefix("trellisnet_") in ("seq_mnist", "perm_mnist", "seq_cifar10"):
            small = {"model.units": 120, "parameters": recipe.variant("released").parameters}
            assert recipe.replace(**small) == recipe.variant("released")
            assert recipe.variant("paper").parameters < 110_000  # not 8M
        else:
            assert recipe == recipe.variant("paper")


def test_notes_say_of_every_value_that_differs_whose_it_is():
    for name in TRELLISNETS:
        recipe = zoo.recipe(name)
        paper, released = recipe.variant("paper"), recipe.variant("released")
        for key in TABLE_5:
            ours, theirs = value(paper, key), value(released, key)
            if ours != theirs:
                assert f"{key.split('.')[-1]} {ours:g} / {theirs:g}" in recipe.notes, (name, key)


# The epoch after which a script lowers the rate; the next epoch is the first with the lower one.
DECAYS = {
    "trellisnet_seq_mnist": (50, 75, 90),
    "trellisnet_perm_mnist": (50, 75, 90),
    "trellisnet_seq_cifar10": (50, 75, 90),
    "trellisnet_ptb_char": (220, 350),
    "trellisnet_wt103": (15, 20),
    "deq_trellisnet_wt103": (15, 20, 23),
    "deq_trellisnet_ptb_char": (220, 350),
    "tcn_seq_mnist": (10,),
    "rtransformer_seq_mnist": (10, 20, 30, 40),
    "transformer_seq_mnist": (10, 20, 30, 40),
}


def rates(recipe: zoo.Recipe, losses) -> list[float]:
    """The rate of each epoch, from the first on."""
    schedule = make_schedule(recipe.schedule, recipe.optimizer.learning_rate, steps=1000)
    found = [schedule.optimizer_rate()]
    for epoch in range(1, len(losses)):
        found.append(schedule.next_rate(epoch, found[-1], losses[:epoch]))
    return found


@pytest.mark.parametrize("name", DECAYS)
def test_rates_fall_after_the_epochs_of_the_scripts(name):
    """As a script's loop has it: train, and at the end of an epoch of the list divide the rate."""
    recipe = zoo.recipe(name)
    rate, expected = recipe.optimizer.learning_rate, []
    for epoch in range(1, recipe.epochs + 1):
        expected.append(rate)
        if epoch in DECAYS[name]:
            rate = max(rate / 10, recipe.schedule.minimum)
    assert rates(recipe, [1.0] * recipe.epochs) == pytest.approx(expected)


# Epochs that pass first, losses that are looked back at, divisor: the R-Transformer's and TCN's.
HIGHEST = {
    ("tcn_ptb_word", None): (5, 5, 2),
    ("tcn_ptb_char", None): (5, 3, 10),
    ("rtransformer_ptb_word", None): (5, 5, 2),
    ("rtransformer_ptb_char", None): (5, 3, 10),
    ("transformer_ptb_word", None): (5, 5, 2),
    ("transformer_ptb_char", None): (5, 3, 10),
    ("rtransformer_nottingham", "released"): (10, 3, 10),
}


@pytest.mark.parametrize(("name", "variant"), HIGHEST)
def test_rates_fall_at_a_new_height_as_in_the_scripts(name, variant):
    recipe, (delay, window, divisor) = zoo.recipe(name, variant), HIGHEST[name, variant]
    losses = [5.0, 6.0, 4.0, 4.5, 4.4, 4.6, 4.3, 4.2, 4.65, 4.1, 4.0, 4.3, 4.7, 4.2, 4.9, 3.0]
    rate, past, expected = recipe.optimizer.learning_rate, [], []
    for epoch, loss in enumerate(losses, 1):
        expected.append(rate)
        if epoch > delay and loss > max(past[-window:]):
            rate /= divisor
        past.append(loss)
    assert rates(recipe, losses) == pytest.approx(expected)
    assert len(set(expected)) > 1


# Every figure of a table that a recipe may quote: test, or (test, validation).
FIGURES = {
    "TrellisNet paper, Table 1": {56.97, 56.80, 54.67, 54.19, 88.68},
    "TrellisNet paper, Table 2": {29.19},
    "TrellisNet paper, Table 3": {1.158, 1.31},
    "TrellisNet paper, Table 4": {99.20, 98.13, 73.42, 99.0},
    "PRU paper, Table 1, with fine-tuning": {
        (56.56, 58.46),
        (64.53, 67.19),
        (57.3, 60.0),
        (65.8, 68.6),
    },
    "PRU paper, Table 1": {
        *((66.29, 68.57), (67.16, 69.17), (68.55, 70.88)),
        *((67.78, 69.8), (64.92, 67.17), (62.42, 64.76)),
        *((59.54, 61.72), (58.65, 60.81), (58.33, 60.62)),
        *((75.08, 78.93), (74.48, 77.93), (74.44, 77.55)),
        *((76.59, 79.15), (73.79, 76.62), (72.77, 75.46)),
        *((68.6, 71.84), (65.7, 68.57), (65.3, 68.17)),
        *((58.8, 60.7), (66.0, 69.1)),
    },
    "PRU paper, section 4.2": {55.23, 58.79},
    "PRU paper, Table 3, R1": {(None, 74.80), (None, 89.30)},
    "PRU paper, Table 3, R2": {(None, 84.38), (None, 104.13)},
    "PRU paper, Table 3, R3": {(None, 82.67), (None, 99.57)},
    "PRU paper, Table 3, R4": {(None, 74.18), (None, 88.31)},
    "PRU paper, Table 3, R5": {(None, 75.80), (None, 90.56)},
    "PRU paper, Table 3, R6": {(None, 75.61), (None, 89.27)},
    "PRU paper, Table 4": {
        *((None, 75.12), (None, 87.6), (None, 73.86), (None, 81.56)),
        *((None, 89.24), (None, 107.63), (None, 88.88), (None, 93.16)),
    },
    "R-Transformer paper, Table 1": {21.5, 96.2, 87.2, 99.0, 98.2, 99.1},
    "R-Transformer paper, Table 2": {4.05, 3.46, 3.29, 3.07, 3.34, 2.37},
    "R-Transformer paper, Table 3": {1.48, 1.37, 1.36, 1.31, 1.34, 1.24},
    "R-Transformer paper, Table 4": {114.5, 92.48, 78.93, 88.68, 122.37, 83.38, 84.38},
}
# Papers and notes that are quoted beside these.
OTHERS = ("DEQ paper", "DEQ repository", "Transformer-XL paper", "Transformer-XL repository")
# What of these tables no recipe is of: TrellisNet's rows of TCNs.
NOT_QUOTED = {88.68, 1.31, 99.0}


def reported():
    for name in zoo.names():
        recipe = zoo.recipe(name)
        for variant in (None, *recipe.variants):
            yield name, variant, recipe.variant(variant)


def table_of(source: str) -> str | None:
    return next((table for table in FIGURES if source.startswith(table)), None)


def test_every_figure_stands_in_the_table_that_its_source_names():
    for name, variant, recipe in reported():
        figure = recipe.reported
        if figure.value is None and figure.validation is None:
            continue
        table = table_of(figure.source)
        if table is None:
            assert figure.source.startswith(OTHERS), (name, variant, figure)
            continue
        pair = (figure.value, figure.validation)
        quoted = figure.value if figure.validation is None else pair
        assert quoted in FIGURES[table], (name, variant, figure)


def test_every_figure_of_our_models_rows_is_quoted():
    quoted = {table: set() for table in FIGURES}
    for _, _, recipe in reported():
        figure = recipe.reported
        table = table_of(figure.source)
        if table is not None:
            pair = (figure.value, figure.validation)
            quoted[table].add(figure.value if figure.validation is None else pair)
    for table, figures in FIGURES.items():
        outside = NOT_QUOTED if table.startswith("TrellisNet") else set()
        assert figures - quoted[table] - outside == set(), table


def test_docstrings_quote_the_figure_and_its_source():
    for name in zoo.names():
        figure = zoo.recipe(name).reported
        text = " ".join(getattr(zoo, name).__doc__.split())
        assert figure.source in text, name
        assert figure.value is None or f"{figure.value:g}, {figure.source}" in text, name


# R-Transformer, Tables 1 to 4: layers and width.
SIZES = {
    "seq_mnist": {"lstm": (1, 130), "tcn": (8, 25), "transformer": (8, 32)},
    "nottingham": {"tcn": (4, 150), "transformer": (3, 160)},
    "ptb_char": {"lstm": (2, 600), "tcn": (3, 450), "transformer": (3, 512)},
    "ptb_word": {"tcn": (4, 600), "transformer": (3, 128)},
}


def depth_and_width(recipe: zoo.Recipe) -> tuple[int, int]:
    model = recipe.model
    units = model["units"]
    if isinstance(units, list):
        return len(units), max(units)
    return model.get("levels") or model["layers"], units


def test_sizes_of_the_r_transformer_paper():
    named = {
        f"{family}_{task}": size for task, row in SIZES.items() for family, size in row.items()
    }
    named |= {f"r{name}": size for name, size in named.items() if name.startswith("transformer_")}
    found = {name: zoo.recipe(name) for name in named}
    named["lstm_ptb_word_700"] = (3, 700)
    found["lstm_ptb_word_700"] = zoo.recipe("lstm_ptb_word_700")
    named["xl"], found["xl"] = (3, 128), zoo.recipe("transformer_xl_ptb_word", "r_transformer")
    for name, (layers, width) in named.items():
        assert depth_and_width(found[name]) == (layers, width), name
        kind = "layer" if layers == 1 else "layers"
        assert found[name].reported.size == f"{layers} {kind} of {width}"
    for task in SIZES:  # "the same set of hyperparameters (hidden size, layers, heads)"
        ours, theirs = (
            zoo.recipe(f"{kind}_{task}").model for kind in ("rtransformer", "transformer")
        )
        assert (ours["units"], ours["levels"], ours["heads"]) == (
            theirs["units"],
            theirs["levels"],
            theirs["heads"],
        )
    assert "1.45" in zoo.recipe("transformer_ptb_char").notes


def test_release_notes_of_the_deq():
    assert "24 to 25" in zoo.recipe("deq_transformer_wt103").notes


def test_dropout_and_epochs_of_the_pru_paper():
    rates = ("input_dropout", "dropout", "output_dropout")
    for name in zoo.names():
        recipe = zoo.recipe(name)
        if recipe.family != "pru" or name.endswith(("python_docs", "japanese_vowels")):
            continue
        if name.startswith("awd"):
            assert recipe.epochs == (500 if "pru" in name else 750)  # section 4.3
            continue
        assert [recipe.model[rate] for rate in rates] == [0.5] * 3  # section 4.1
        released = recipe.variant("released")
        assert [released.model[rate] for rate in rates] == [0.4] * 3
        assert recipe.epochs == 200 and released.reported.value is None


def test_nothing_is_from_memory():
    pages = [*ROOT.glob("zoo/*.py"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    assert len(pages) > 40
    for page in pages:
        text = " ".join(page.read_text().split())
        for words in ("from memory", "figure at hand", "figures at hand", "not at hand"):
            assert words not in text.replace('" "', ""), (page.name, words)
