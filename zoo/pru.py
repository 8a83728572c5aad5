"""Pyramidal recurrent units and the LSTMs that they are compared with: language models.

Layers, widths, groups and rates of dropout are the paper's (section 4.1), training is that of the
released script, whose default dropout is another (`variant="released"`). The paper's regularised
models use the settings of AWD-LSTM (Merity et al., 2018).
"""

from collections.abc import Sequence
from typing import Any

from keras_seq.layers import LSTM, PRU, RecurrentStack
from keras_seq.models import LanguageModel, SequenceClassifier
from keras_seq.zoo.builders import after, classifier_of, language_model_of, policy_of
from keras_seq.zoo.protocols import (
    JAPANESE_VOWELS,
    PYTHON_DOCS_CHARACTERS,
    VOWELS,
    python_docs,
)
from keras_seq.zoo.recipe import DataSpec, OptimizerSpec, Recipe, Reported
from keras_seq.zoo.registry import register
from keras_seq.zoo.settings import split_settings, takes_settings_of

PAPER = (
    "Mehta, Koncel-Kedziorski, Rastegari, Hajishirzi: Pyramidal Recurrent Unit for Language "
    "Modeling. EMNLP 2018."
)
TABLE_1 = "PRU paper, Table 1"

# Width of the inner layers with one, two and four groups: about the same number of parameters.
UNITS_OF_GROUPS = {1: 1000, 2: 1200, 4: 1400}


def core_of(
    widths: Sequence[int],
    *,
    unit: str = "pru",
    levels: int = 2,
    groups: int = 4,
    input_transform: str = "pyramidal",
    context_transform: str = "grouped",
    subsampling: str = "average",
    split: str = "released",
    residual: bool = True,
    variational: bool = False,
    dropout: float = 0.0,
    weight_dropout: float = 0.0,
    dtype: str | None = None,
    seed: int | None = None,
    **options: Any,
) -> RecurrentStack:
    """Makes recurrent layers on top of each other.

    Args:
        widths: of the layers.
        unit: `"pru"` or `"lstm"`. An LSTM has none of the settings from `levels` to `residual`.
        levels: levels of the pyramidal transform.
        groups: groups of the grouped transform.
        input_transform: `"pyramidal"`, `"linear"` or `"grouped"`.
        context_transform: `"grouped"`, `"linear"` or `"pyramidal"`.
        subsampling: `"average"`, `"max"`, `"skip"` or `"convolution"`.
        split: `"released"` or `"uniform"`, how outputs are divided over the levels.
        residual: add the input to the gates where the widths agree.
        variational: one dropout mask for all steps of a sequence, before, between and after the
            layers; otherwise each step has its own.
        dropout: rate between the layers.
        weight_dropout: rate for elements of the recurrent kernels.
        dtype: a dtype policy; `None` for Keras' current one.
        seed: seed of initialisation and dropout.
        **options: further arguments of `RecurrentStack`.
    """
    if unit not in ("pru", "lstm"):
        raise ValueError(f"`unit` must be 'pru' or 'lstm'. Received: unit={unit!r}.")
    own: dict[str, Any] = {"weight_dropout": weight_dropout, "dtype": policy_of(dtype)}
    if unit == "pru":
        own |= {
            "levels": levels,
            "groups": groups,
            "input_transform": input_transform,
            "context_transform": context_transform,
            "subsampling": subsampling,
            "split": split,
            "residual": residual,
        }
    kind = PRU if unit == "pru" else LSTM
    recurrent = [
        kind(width, seed=after(seed, 10 + index), name=f"{unit}_{index + 1}", **own)
        for index, width in enumerate(widths)
    ]
    return RecurrentStack(
        recurrent,
        dropout=dropout,
        variational=variational,
        seed=seed,
        dtype=own["dtype"],
        name="recurrent_stack",
        **options,
    )


@takes_settings_of(core_of)
@takes_settings_of(language_model_of, "embedding_dropout", "activation_regularization", "name")
def language_model(
    *,
    vocabulary_size: int,
    embedding_dim: int,
    units: int | None = None,
    layers: int = 3,
    groups: int = 4,
    variational: bool = False,
    input_dropout: float = 0.0,
    output_dropout: float = 0.0,
    temporal_activation_regularization: float = 0.0,
    carry_state: bool = True,
    seed: int | None = None,
    **settings,
) -> LanguageModel:
    """Builds a language model of several recurrent layers with a tied softmax.

    Args:
        vocabulary_size: number of tokens.
        embedding_dim: width of the embedding, and of the last layer.
        units: width of the other layers; `None` for the paper's width with these groups.
        layers: number of layers.
        groups: groups of the grouped transform.
        variational: one dropout mask for all steps of a sequence, before, between and after the
            layers; otherwise each step has its own.
        input_dropout: rate before the first layer.
        output_dropout: rate after the last layer.
        temporal_activation_regularization: weight of the mean squared difference of successive
            outputs.
        carry_state: carry the state from window to window.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    if units is None:
        if groups not in UNITS_OF_GROUPS:
            raise ValueError(
                "`units` must be given with this number of groups. "
                f"Received: groups={groups}, units=None."
            )
        units = UNITS_OF_GROUPS[groups]
    own, options = split_settings(settings, core_of)
    # The model's own dropout is variational. The other kind is the stack's, and with it the
    # regulariser that acts before the dropout of the output.
    outer: dict[str, Any] = {"input_dropout": input_dropout, "output_dropout": output_dropout}
    outer |= {"temporal_activation_regularization": temporal_activation_regularization}
    core = core_of(
        [units] * (layers - 1) + [embedding_dim],
        groups=groups,
        variational=variational,
        seed=seed,
        **({} if variational else outer),
        **own,
    )
    options |= {"carry_state": carry_state, **(outer if variational else {})}
    return language_model_of(core, vocabulary_size, embedding_dim, seed=seed, **options)


@takes_settings_of(core_of)
@takes_settings_of(classifier_of, "pooling", "input_dropout", "output_dropout", "name")
def sequence_classifier(
    *,
    features: int,
    classes: int,
    units: int,
    layers: int = 1,
    seed: int | None = None,
    **settings,
) -> SequenceClassifier:
    """Builds recurrent layers that classify sequences of vectors at their last step.

    Args:
        features: width of the inputs.
        classes: number of classes.
        units: width of the layers.
        layers: number of layers.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of([units] * layers, seed=seed, **own)
    return classifier_of(core, classes, features, seed=seed, **options)


# Standard dropout (Table 1; section 4.1 and the defaults of the released script)

FAMILY: dict[str, Any] = {"family": "pru", "task": "language_model"}
STANDARD: dict[str, Any] = {
    "embedding_dim": 400,
    "units": None,
    "input_dropout": 0.5,
    "dropout": 0.5,
    "output_dropout": 0.5,
    "activation_regularization": 2.0,
    "temporal_activation_regularization": 1.0,
}
# The default of the script, and its averaging; its repository's table has figures of its own.
AS_RELEASED: dict[str, Any] = {"optimizer.options": {"nonmonotone": 5, "form": "released"}}
RELEASED: dict[str, Any] = {
    **AS_RELEASED,
    "model.input_dropout": 0.4,
    "model.dropout": 0.4,
    "model.output_dropout": 0.4,
    "reported.value": None,
    "reported.source": "no figure of the script's dropout in the paper",
    "reported.validation": None,
}


def training(
    name: str, epochs: int = 200, batch_size: int = 20, scale_by_length: bool = False
) -> dict[str, Any]:
    """Data, optimizer and length of the released script."""
    return {
        "data": DataSpec(
            name,
            batch_size=batch_size,
            eval_batch_size=10,
            length=70,
            options={"random_lengths": True},
        ),
        "optimizer": OptimizerSpec(
            "NTASGD",
            learning_rate=30.0,
            global_clipnorm=0.25,
            l2=1.2e-6,
            options={"nonmonotone": 5},
            scale_by_length=scale_by_length,
        ),
        "epochs": epochs,
    }


AVERAGING_NOTE = (
    "Averaging begins by the optimizer's non-monotone rule, and is that of the paper; "
    "`optimizer.options={'nonmonotone': 5, 'form': 'released'}` is the script's. "
)
DROPOUT_NOTE = (
    "Standard dropout is 0.5 in the paper (section 4.1) and 0.4 by default in the released script, "
    "which variant='released' has. "
)
TABLE_NOTE = (
    "The repository has had two tables; the first agrees with the paper's, a later one of released "
    "weights has {}. "
)
TRAINING_NOTE = AVERAGING_NOTE + (
    "The paper gives no number of epochs for standard dropout: 200 is the script's. The script "
    "also scales the learning rate of a window by its length; here that is "
    "optimizer.scale_by_length, which is off."
)


def figure(value: float, validation: float, source: str = TABLE_1) -> dict[str, Any]:
    """A variant's figures on the test and the validation split."""
    return {
        "reported.value": value,
        "reported.validation": validation,
        "reported.source": source,
    }


def dynamic(value: float) -> dict[str, dict[str, Any]]:
    """The figure with dynamic evaluation; nothing else is trained."""
    return {
        "dynamic_evaluation": {
            "reported.value": value,
            "reported.validation": None,
            "reported.source": "PRU paper, section 4.2, by `keras-seq evaluate --dynamic`",
        }
    }


DYNAMIC_NOTE = (
    "The variant dynamic_evaluation is the same model: it holds the figure that the paper reports "
    "of it with dynamic evaluation. "
)

# Tables of a model: size or groups, parameters, perplexity on the test and the validation split.
Rows = Sequence[tuple[int, int, float, float]]


def of_groups(rows: Rows, size: str) -> dict[str, dict[str, Any]]:
    """A variant for each number of groups."""
    return {
        f"g{groups}": {
            "model.groups": groups,
            "model.units": UNITS_OF_GROUPS[groups],
            "parameters": count,
            "reported.size": size,
            **figure(value, validation),
        }
        for groups, count, value, validation in rows
    }


def of_units(rows: Rows, sizes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A variant for each width of an LSTM."""
    return {
        f"units{units}": {
            "model.units": units,
            "parameters": count,
            "reported.size": size,
            **figure(value, validation),
        }
        for (units, count, value, validation), size in zip(rows, sizes, strict=True)
    }


register(
    language_model,
    Recipe(
        name="pru_ptb_word",
        **FAMILY,
        summary="Three pyramidal recurrent layers with standard dropout on Penn Treebank.",
        paper=PAPER,
        model={"vocabulary_size": 10_000, "groups": 4, **STANDARD},
        reported=Reported("perplexity", 62.42, TABLE_1, "19M", 64.76),
        parameters=18_895_600,
        variants=of_groups(
            [
                (1, 18_969_200, 67.78, 69.80),
                (2, 18_512_400, 64.92, 67.17),
                (4, 18_895_600, 62.42, 64.76),
            ],
            "19M",
        )
        | {"released": RELEASED}
        | dynamic(55.23),
        notes="One, two and four groups have layers of 1000, 1200 and 1400 units. "
        + DROPOUT_NOTE
        + DYNAMIC_NOTE
        + TABLE_NOTE.format("68.06, 64.30 and 62.62")
        + TRAINING_NOTE,
        **training("ptb_word"),
    ),
    Recipe(
        name="pru_wikitext2",
        **FAMILY,
        summary="Three pyramidal recurrent layers with standard dropout on WikiText-2.",
        paper=PAPER,
        model={"vocabulary_size": 33_278, "groups": 4, **STANDARD},
        reported=Reported("perplexity", 72.77, TABLE_1, "28M", 75.46),
        parameters=28_230_078,
        variants=of_groups(
            [
                (1, 28_303_678, 76.59, 79.15),
                (2, 27_846_878, 73.79, 76.62),
                (4, 28_230_078, 72.77, 75.46),
            ],
            "28M",
        )
        | {"released": RELEASED},
        notes="Four groups with 1400 units give the reported 28M; 1600 units would give 32M. "
        + DROPOUT_NOTE
        + TRAINING_NOTE,
        **training("wikitext2"),
    ),
)


LSTM_STANDARD = {**STANDARD, "unit": "lstm", "units": 1000}

register(
    language_model,
    Recipe(
        name="lstm_ptb_word",
        **FAMILY,
        summary="The LSTM that pru_ptb_word is compared with.",
        paper=PAPER,
        model={"vocabulary_size": 10_000, **LSTM_STANDARD},
        reported=Reported("perplexity", 66.29, TABLE_1, "20M", 68.57),
        parameters=19_869_200,
        variants=of_units(
            [(1200, 25_792_400, 67.16, 69.17), (1400, 32_675_600, 68.55, 70.88)], ["26M", "33M"]
        )
        | {"released": RELEASED}
        | dynamic(58.79),
        notes=DROPOUT_NOTE
        + DYNAMIC_NOTE
        + TABLE_NOTE.format("66.05, 67.17 and 68.32")
        + TRAINING_NOTE,
        **training("ptb_word"),
    ),
    Recipe(
        name="lstm_wikitext2",
        **FAMILY,
        summary="The LSTM that pru_wikitext2 is compared with.",
        paper=PAPER,
        model={"vocabulary_size": 33_278, **LSTM_STANDARD},
        reported=Reported("perplexity", 75.08, TABLE_1, "29M", 78.93),
        parameters=29_203_678,
        variants=of_units(
            [(1200, 35_126_878, 74.48, 77.93), (1400, 42_010_078, 74.44, 77.55)], ["35M", "42M"]
        )
        | {"released": RELEASED},
        notes=DROPOUT_NOTE + TRAINING_NOTE,
        **training("wikitext2"),
    ),
)


# Advanced dropout (Table 1; the settings of AWD-LSTM)

ADVANCED: dict[str, Any] = {
    "embedding_dim": 400,
    "variational": True,
    "embedding_dropout": 0.1,
    "input_dropout": 0.4,
    "dropout": 0.25,
    "output_dropout": 0.4,
    "weight_dropout": 0.5,
    "activation_regularization": 2.0,
    "temporal_activation_regularization": 1.0,
}
ADVANCED_WIKITEXT2 = {**ADVANCED, "input_dropout": 0.65, "dropout": 0.2}

AWD_NOTE = (
    "The paper takes over the regularisation of AWD-LSTM (Merity et al., 2018); rates are those of "
    "its released commands. "
)
EPOCHS_NOTE = (
    "The PRU paper trains for 500 epochs with its layers and for 750 with an LSTM (section 4.3); "
    "the released commands of AWD-LSTM have 500 on Penn Treebank and 750 on WikiText-2. "
)
AWD_TRAINING_NOTE = (
    EPOCHS_NOTE
    + AVERAGING_NOTE
    + (
        "The learning rate of a window is scaled by its length. The variant fine_tuning is begun "
        "with the weights of a run of the recipe (--from), and stops at the non-monotone trigger."
    )
)
PRU_EPOCHS, LSTM_EPOCHS = 500, 750


def awd_training(name: str, epochs: int, batch_size: int = 20) -> dict[str, Any]:
    """Data, optimizer and length of AWD-LSTM."""
    return training(name, epochs, batch_size, scale_by_length=True)


def fine_tuning(value: float, validation: float) -> dict[str, dict[str, Any]]:
    """The second stage: averaging from the first step on, begun with the trained weights.

    AWD-LSTM's script ends it by the rule that began averaging in the first stage.
    """
    return {
        "fine_tuning": {
            "optimizer.options": {"average_from": 0},
            "stop_nonmonotone": 5,
            **figure(value, validation, f"{TABLE_1}, with fine-tuning"),
        }
    }


register(
    language_model,
    Recipe(
        name="awd_pru_ptb_word",
        **FAMILY,
        summary="Pyramidal recurrent layers with the regularisation of AWD-LSTM on Penn Treebank.",
        paper=PAPER,
        model={"vocabulary_size": 10_000, "groups": 4, "units": 1400, **ADVANCED},
        reported=Reported("perplexity", 58.33, TABLE_1, "19M", 60.62),
        parameters=18_895_600,
        variants=fine_tuning(56.56, 58.46)
        | of_groups([(1, 18_969_200, 59.54, 61.72), (2, 18_512_400, 58.65, 60.81)], "19M"),
        notes=AWD_NOTE + AWD_TRAINING_NOTE,
        **awd_training("ptb_word", PRU_EPOCHS),
    ),
    Recipe(
        name="awd_pru_wikitext2",
        **FAMILY,
        summary="Pyramidal recurrent layers with the regularisation of AWD-LSTM on WikiText-2.",
        paper=PAPER,
        model={"vocabulary_size": 33_278, "groups": 4, "units": 1400, **ADVANCED_WIKITEXT2},
        reported=Reported("perplexity", 65.30, TABLE_1, "28M", 68.17),
        parameters=28_230_078,
        variants=fine_tuning(64.53, 67.19)
        | of_groups([(1, 28_303_678, 68.6, 71.84), (2, 27_846_878, 65.7, 68.57)], "28M"),
        notes=AWD_NOTE + AWD_TRAINING_NOTE,
        **awd_training("wikitext2", PRU_EPOCHS, batch_size=80),
    ),
)


AWD_PAPER = (
    "Merity, Keskar, Socher: Regularizing and Optimizing LSTM Language Models. ICLR 2018. "
    "(The twin of AWD-PRU.)"
)

register(
    language_model,
    Recipe(
        name="awd_lstm_ptb_word",
        **FAMILY,
        summary="AWD-LSTM on Penn Treebank, the twin of awd_pru_ptb_word.",
        paper=AWD_PAPER,
        model={"vocabulary_size": 10_000, "unit": "lstm", "units": 1150, **ADVANCED},
        reported=Reported("perplexity", 58.8, TABLE_1, "24M", 60.7),
        parameters=24_221_600,
        variants=fine_tuning(57.3, 60.0) | {"released": {"epochs": 500, **AS_RELEASED}},
        notes="The table takes the figures over from Merity et al. (2018). " + AWD_TRAINING_NOTE,
        **awd_training("ptb_word", LSTM_EPOCHS),
    ),
    Recipe(
        name="awd_lstm_wikitext2",
        **FAMILY,
        summary="AWD-LSTM on WikiText-2, the twin of awd_pru_wikitext2.",
        paper=AWD_PAPER,
        model={"vocabulary_size": 33_278, "unit": "lstm", "units": 1150, **ADVANCED_WIKITEXT2},
        reported=Reported("perplexity", 66.0, TABLE_1, "33M", 69.1),
        parameters=33_556_078,
        variants=fine_tuning(65.8, 68.6),
        notes="The table takes the figures over from Merity et al. (2018). " + AWD_TRAINING_NOTE,
        **awd_training("wikitext2", LSTM_EPOCHS, batch_size=80),
    ),
)


# Python's documentation

register(
    language_model,
    Recipe(
        name="pru_python_docs",
        paper=PAPER,
        model={
            "vocabulary_size": PYTHON_DOCS_CHARACTERS,
            "embedding_dim": 96,
            "units": 256,
            "layers": 2,
            "levels": 2,
            "groups": 4,
        },
        parameters=259_203,
        notes="Settings of ours, for a first run in a few minutes on two CPU cores.",
        **python_docs(4e-3, epochs=4, batch_size=32),
        **FAMILY,
    ),
)


# Japanese vowels

register(
    sequence_classifier,
    Recipe(
        name="pru_japanese_vowels",
        family="pru",
        paper=PAPER,
        model={
            **VOWELS,
            "units": 64,
            "output_dropout": 0.3,
        },
        parameters=7_881,
        **JAPANESE_VOWELS,
    ),
)
