"""Pyramidal recurrent units and the LSTMs that they are compared with: language models.

Settings of the standard-dropout models are those of the released scripts, with which the sizes of
the paper agree. The paper's regularised models use the settings of AWD-LSTM (Merity et al., 2018).
"""

from collections.abc import Mapping
from typing import Any

from keras_seq.layers import LSTM, PRU, RecurrentStack
from keras_seq.models import LanguageModel
from keras_seq.zoo._around_core import policy_of
from keras_seq.zoo.recipe import DataSpec, OptimizerSpec, Recipe, Reported, ScheduleSpec
from keras_seq.zoo.registry import entry, forwards_to

PAPER = (
    "Mehta, Koncel-Kedziorski, Rastegari, Hajishirzi: Pyramidal Recurrent Unit for Language "
    "Modeling. EMNLP 2018."
)
REPOSITORY = "first table of the PRU repository"

# Width of the inner layers with one, two and four groups: about the same number of parameters.
UNITS_OF_GROUPS = {1: 1000, 2: 1200, 4: 1400}


def language_model(
    *,
    vocabulary_size: int,
    embedding_dim: int,
    units: int | None = None,
    layers: int = 3,
    unit: str = "pru",
    levels: int = 2,
    groups: int = 4,
    input_transform: str = "pyramidal",
    context_transform: str = "grouped",
    subsampling: str = "average",
    split: str = "released",
    residual: bool = True,
    variational: bool = False,
    embedding_dropout: float = 0.0,
    input_dropout: float = 0.0,
    dropout: float = 0.0,
    output_dropout: float = 0.0,
    weight_dropout: float = 0.0,
    activation_regularization: float = 0.0,
    temporal_activation_regularization: float = 0.0,
    carry_state: bool = True,
    dtype: str | None = None,
    seed: int | None = None,
    name: str | None = None,
) -> LanguageModel:
    """Builds a language model of several recurrent layers with a tied softmax.

    Args:
        vocabulary_size: number of tokens.
        embedding_dim: width of the embedding, and of the last layer.
        units: width of the other layers; `None` for the paper's width with these groups.
        layers: number of layers.
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
        embedding_dropout: rate for rows of the embedding.
        input_dropout: rate before the first layer.
        dropout: rate between the layers.
        output_dropout: rate after the last layer.
        weight_dropout: rate for elements of the recurrent kernels.
        activation_regularization: weight of the mean squared output.
        temporal_activation_regularization: weight of the mean squared difference of successive
            outputs.
        carry_state: carry the state from window to window.
        dtype: a dtype policy; `None` for Keras' current one.
        seed: seed of initialisation and dropout.
        name: the model's name.
    """
    if unit not in ("pru", "lstm"):
        raise ValueError(f"`unit` must be 'pru' or 'lstm'. Received: unit={unit!r}.")
    if units is None:
        if groups not in UNITS_OF_GROUPS:
            raise ValueError(
                "`units` must be given with this number of groups. "
                f"Received: groups={groups}, units=None."
            )
        units = UNITS_OF_GROUPS[groups]
    policy = policy_of(dtype)
    widths = [units] * (layers - 1) + [embedding_dim]
    recurrent = []
    for index, width in enumerate(widths):
        options: dict[str, Any] = {
            "weight_dropout": weight_dropout,
            "seed": None if seed is None else seed + 10 + index,
            "dtype": policy,
            "name": f"{unit}_{index + 1}",
        }
        if unit == "pru":
            options |= {
                "levels": levels,
                "groups": groups,
                "input_transform": input_transform,
                "context_transform": context_transform,
                "subsampling": subsampling,
                "split": split,
                "residual": residual,
            }
        recurrent.append(PRU(width, **options) if unit == "pru" else LSTM(width, **options))
    # The model's own dropout is variational. The other kind is the stack's, and with it the
    # regulariser that acts before the dropout of the output.
    outer: dict[str, Any] = {"input_dropout": input_dropout, "output_dropout": output_dropout}
    outer |= {"temporal_activation_regularization": temporal_activation_regularization}
    core = RecurrentStack(
        recurrent,
        dropout=dropout,
        variational=variational,
        seed=seed,
        dtype=policy,
        name="recurrent_stack",
        **({} if variational else outer),
    )
    model = LanguageModel(
        vocabulary_size=vocabulary_size,
        embedding_dim=embedding_dim,
        core=core,
        embedding_dropout=embedding_dropout,
        activation_regularization=activation_regularization,
        carry_state=carry_state,
        seed=None if seed is None else seed + 1,
        dtype=policy,
        name=name,
        **(outer if variational else {}),
    )
    model.build((None, None))
    return model


# Standard dropout (Table 1; defaults of the released script)

STANDARD: dict[str, Any] = {
    "embedding_dim": 400,
    "units": None,
    "input_dropout": 0.4,
    "dropout": 0.4,
    "output_dropout": 0.4,
    "activation_regularization": 2.0,
    "temporal_activation_regularization": 1.0,
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


AVERAGING_NOTE = "Averaging begins by the optimizer's non-monotone rule. "
TABLE_NOTE = (
    "The repository has had two tables: figures are those of the first, which has the paper's "
    "62.42 for four groups; a later one, of released weights, has {}. "
)
TRAINING_NOTE = AVERAGING_NOTE + (
    "The released script also scales the learning rate of a window by its length; here that is "
    "optimizer.scale_by_length, which is off."
)


def of_groups(
    parameters: Mapping[int, int], figures: Mapping[int, float | None], source: str
) -> dict[str, dict[str, Any]]:
    """A variant for each number of groups."""
    return {
        f"g{groups}": {
            "model.groups": groups,
            "parameters": count,
            "reported.value": figures.get(groups),
            "reported.source": source if figures.get(groups) else "no figure",
            "reported.size": f"{count / 1e6:.2f}M",
        }
        for groups, count in parameters.items()
    }


@entry(
    Recipe(
        name="pru_ptb_word",
        family="pru",
        task="language_model",
        summary="Three pyramidal recurrent layers with standard dropout on Penn Treebank.",
        paper=PAPER,
        model={"vocabulary_size": 10_000, "groups": 4, **STANDARD},
        reported=Reported("perplexity", 62.42, "PRU paper, Table 1", "19M"),
        parameters=18_895_600,
        variants=of_groups(
            {1: 18_969_200, 2: 18_512_400, 4: 18_895_600},
            {1: 67.78, 2: 64.92, 4: 62.42},
            REPOSITORY,
        ),
        notes="One, two and four groups have layers of 1000, 1200 and 1400 units. "
        + TABLE_NOTE.format("68.06, 64.30 and 62.62")
        + TRAINING_NOTE,
        **training("ptb_word"),
    )
)
@forwards_to(language_model)
def pru_ptb_word(**settings) -> LanguageModel:
    """PRU for words of Penn Treebank: 19M parameters, 62.42 test perplexity (Table 1)."""
    return language_model(**settings)


@entry(
    Recipe(
        name="pru_wikitext2",
        family="pru",
        task="language_model",
        summary="Three pyramidal recurrent layers with standard dropout on WikiText-2.",
        paper=PAPER,
        model={"vocabulary_size": 33_278, "groups": 4, **STANDARD},
        reported=Reported("perplexity", 72.77, "PRU paper, Table 1", "28M"),
        parameters=28_230_078,
        variants=of_groups(
            {1: 28_303_678, 2: 27_846_878, 4: 28_230_078}, {4: 72.77}, "PRU paper, Table 1"
        ),
        notes="Four groups with 1400 units give the reported 28M; 1600 units would give 32M. "
        + TRAINING_NOTE,
        **training("wikitext2"),
    )
)
@forwards_to(language_model)
def pru_wikitext2(**settings) -> LanguageModel:
    """PRU for words of WikiText-2: 28M parameters, 72.77 test perplexity (Table 1)."""
    return language_model(**settings)


LSTM_STANDARD = {**STANDARD, "unit": "lstm", "units": 1000}


@entry(
    Recipe(
        name="lstm_ptb_word",
        family="pru",
        task="language_model",
        summary="The LSTM that pru_ptb_word is compared with.",
        paper=PAPER,
        model={"vocabulary_size": 10_000, **LSTM_STANDARD},
        reported=Reported("perplexity", 66.29, REPOSITORY, "19.87M"),
        parameters=19_869_200,
        variants={
            f"units{units}": {
                "model.units": units,
                "parameters": count,
                "reported.value": value,
                "reported.size": f"{count / 1e6:.2f}M",
            }
            for units, count, value in ((1200, 25_792_400, 67.16), (1400, 32_675_600, 68.55))
        },
        notes=TABLE_NOTE.format("66.05, 67.17 and 68.32") + TRAINING_NOTE,
        **training("ptb_word"),
    )
)
@forwards_to(language_model)
def lstm_ptb_word(**settings) -> LanguageModel:
    """LSTM for words of Penn Treebank with standard dropout: 20M parameters, 66.29 perplexity."""
    return language_model(**settings)


@entry(
    Recipe(
        name="lstm_wikitext2",
        family="pru",
        task="language_model",
        summary="The LSTM that pru_wikitext2 is compared with.",
        paper=PAPER,
        model={"vocabulary_size": 33_278, **LSTM_STANDARD},
        reported=Reported("perplexity", None, "no figure at hand", ""),
        parameters=29_203_678,
        notes=TRAINING_NOTE,
        **training("wikitext2"),
    )
)
@forwards_to(language_model)
def lstm_wikitext2(**settings) -> LanguageModel:
    """LSTM for words of WikiText-2 with standard dropout: the twin of pru_wikitext2."""
    return language_model(**settings)


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
AWD_TRAINING_NOTE = AVERAGING_NOTE + (
    "The learning rate of a window is scaled by its length. The variant fine_tuning is begun with "
    "the weights of a run of the recipe (--from), and stops at the non-monotone trigger."
)


def awd_training(name: str, epochs: int, batch_size: int = 20) -> dict[str, Any]:
    """Data, optimizer and length of AWD-LSTM."""
    return training(name, epochs, batch_size, scale_by_length=True)


def fine_tuning(value: float, source: str) -> dict[str, dict[str, Any]]:
    """The second stage: averaging from the first step on, begun with the trained weights.

    AWD-LSTM's script ends it by the rule that began averaging in the first stage.
    """
    return {
        "fine_tuning": {
            "optimizer.options": {"average_from": 0},
            "stop_nonmonotone": 5,
            "reported.value": value,
            "reported.source": source,
        }
    }


@entry(
    Recipe(
        name="awd_pru_ptb_word",
        family="pru",
        task="language_model",
        summary="Pyramidal recurrent layers with the regularisation of AWD-LSTM on Penn Treebank.",
        paper=PAPER,
        model={"vocabulary_size": 10_000, "groups": 4, "units": 1400, **ADVANCED},
        reported=Reported("perplexity", 58.33, "PRU paper, Table 1", "19M"),
        parameters=18_895_600,
        variants={
            **fine_tuning(56.56, "PRU paper, Table 1, with fine-tuning"),
            "dynamic_evaluation": {
                "reported.value": 55.23,
                "reported.source": "PRU paper, fine-tuned, then `keras-seq evaluate --dynamic`",
            },
        },
        notes=AWD_NOTE
        + "The variant dynamic_evaluation trains nothing else: it holds the figure that the paper "
        "reports of the fine-tuned model with dynamic evaluation. " + AWD_TRAINING_NOTE,
        **awd_training("ptb_word", epochs=500),
    )
)
@forwards_to(language_model)
def awd_pru_ptb_word(**settings) -> LanguageModel:
    """AWD-PRU for words of Penn Treebank: 19M parameters, 58.33 test perplexity (Table 1)."""
    return language_model(**settings)


@entry(
    Recipe(
        name="awd_pru_wikitext2",
        family="pru",
        task="language_model",
        summary="Pyramidal recurrent layers with the regularisation of AWD-LSTM on WikiText-2.",
        paper=PAPER,
        model={"vocabulary_size": 33_278, "groups": 4, "units": 1400, **ADVANCED_WIKITEXT2},
        reported=Reported("perplexity", 65.30, "PRU paper, Table 1", "28M"),
        parameters=28_230_078,
        variants=fine_tuning(64.53, "PRU paper, Table 1, with fine-tuning"),
        notes=AWD_NOTE + AWD_TRAINING_NOTE,
        **awd_training("wikitext2", epochs=750, batch_size=80),
    )
)
@forwards_to(language_model)
def awd_pru_wikitext2(**settings) -> LanguageModel:
    """AWD-PRU for words of WikiText-2: 28M parameters, 65.30 test perplexity (Table 1)."""
    return language_model(**settings)


AWD_PAPER = (
    "Merity, Keskar, Socher: Regularizing and Optimizing LSTM Language Models. ICLR 2018. "
    "(The twin of AWD-PRU.)"
)


@entry(
    Recipe(
        name="awd_lstm_ptb_word",
        family="pru",
        task="language_model",
        summary="AWD-LSTM on Penn Treebank, the twin of awd_pru_ptb_word.",
        paper=AWD_PAPER,
        model={"vocabulary_size": 10_000, "unit": "lstm", "units": 1150, **ADVANCED},
        reported=Reported(
            "perplexity", 58.8, "AWD-LSTM without fine-tuning, in Yang et al. 2018, Table 1", "24M"
        ),
        parameters=24_221_600,
        variants=fine_tuning(57.3, "AWD-LSTM paper, with fine-tuning"),
        notes=AWD_TRAINING_NOTE,
        **awd_training("ptb_word", epochs=500),
    )
)
@forwards_to(language_model)
def awd_lstm_ptb_word(**settings) -> LanguageModel:
    """AWD-LSTM for words of Penn Treebank: 24M parameters, 58.8 perplexity (fine-tuned: 57.3)."""
    return language_model(**settings)


@entry(
    Recipe(
        name="awd_lstm_wikitext2",
        family="pru",
        task="language_model",
        summary="AWD-LSTM on WikiText-2, the twin of awd_pru_wikitext2.",
        paper=AWD_PAPER,
        model={"vocabulary_size": 33_278, "unit": "lstm", "units": 1150, **ADVANCED_WIKITEXT2},
        reported=Reported(
            "perplexity", 66.0, "AWD-LSTM without fine-tuning, in Yang et al. 2018, Table 2", "33M"
        ),
        parameters=33_556_078,
        variants=fine_tuning(65.8, "AWD-LSTM paper, with fine-tuning"),
        notes=AWD_TRAINING_NOTE,
        **awd_training("wikitext2", epochs=750, batch_size=80),
    )
)
@forwards_to(language_model)
def awd_lstm_wikitext2(**settings) -> LanguageModel:
    """AWD-LSTM for words of WikiText-2: 33M parameters, 66.0 perplexity (fine-tuned: 65.8)."""
    return language_model(**settings)


# A single layer of 600 units (Table 3)

SINGLE = {**STANDARD, "embedding_dim": 600, "units": 600, "layers": 1}
# Levels, groups, parameters; besides two levels and four groups.
ABLATION = (
    (1, 1, 8_894_800),
    (2, 1, 8_714_800),
    (2, 2, 7_994_800),
    (3, 1, 8_579_800),
    (4, 1, 8_500_000),
)
# The other transforms of Table 3 and the subsamplings of section 4.4; parameters.
OTHER_PARTS: dict[str, tuple[dict[str, Any], int]] = {
    "input_linear": ({"input_transform": "linear"}, 7_814_800),
    "input_grouped": ({"input_transform": "grouped"}, 6_734_800),
    "context_linear": ({"context_transform": "linear"}, 8_714_800),
    "context_pyramidal": ({"context_transform": "pyramidal"}, 8_534_800),
    "subsampling_max": ({"subsampling": "max"}, 7_634_800),
    "subsampling_skip": ({"subsampling": "skip"}, 7_634_800),
    "subsampling_convolution": ({"subsampling": "convolution"}, 7_634_803),
    "no_residual": ({"residual": False}, 7_634_800),
    "uniform_split": ({"split": "uniform"}, 7_454_800),
}


def _sized(count: int) -> dict[str, Any]:
    """The parameters of a variant, whose embedding and softmax have 6,010,000."""
    size = f"{(count - 6_010_000) / 1e6:.1f}M in the layer"
    return {"parameters": count, "reported.size": size}


@entry(
    Recipe(
        name="pru_ptb_word_single",
        family="pru",
        task="language_model",
        summary="One pyramidal recurrent layer of 600 units on Penn Treebank, for ablations.",
        paper=PAPER,
        model={"vocabulary_size": 10_000, "levels": 2, "groups": 4, **SINGLE},
        reported=Reported("perplexity", None, "no figure at hand", "1.6M in the layer"),
        parameters=7_634_800,
        variants={
            f"k{levels}_g{groups}": {
                "model.levels": levels,
                "model.groups": groups,
                **_sized(count),
            }
            for levels, groups, count in ABLATION
        }
        | {
            name: {f"model.{key}": value for key, value in changes.items()} | _sized(count)
            for name, (changes, count) in OTHER_PARTS.items()
        },
        notes="Variants are the levels K and groups g of Table 3, its other transforms, and the "
        "subsamplings of section 4.4; the tables' perplexities were not at hand. Four levels of "
        "600 units are refused by the released code, which wants widths that are multiples of 2^K; "
        "here they are not. " + TRAINING_NOTE,
        **training("ptb_word"),
    )
)
@forwards_to(language_model)
def pru_ptb_word_single(**settings) -> LanguageModel:
    """A single PRU layer of 600 units for words of Penn Treebank: the ablations of Table 3."""
    return language_model(**settings)


@entry(
    Recipe(
        name="lstm_ptb_word_single",
        family="pru",
        task="language_model",
        summary="One LSTM layer of 600 units on Penn Treebank, for ablations.",
        paper=PAPER,
        model={"vocabulary_size": 10_000, "unit": "lstm", **SINGLE},
        reported=Reported("perplexity", None, "no figure at hand", "2.9M in the layer"),
        parameters=8_894_800,
        notes=TRAINING_NOTE,
        **training("ptb_word"),
    )
)
@forwards_to(language_model)
def lstm_ptb_word_single(**settings) -> LanguageModel:
    """A single LSTM layer of 600 units for words of Penn Treebank: the ablations' baseline."""
    return language_model(**settings)


# Python's documentation


@entry(
    Recipe(
        name="pru_python_docs",
        family="pru",
        task="language_model",
        summary="Small character-level language model on the documentation that ships with Python.",
        paper=PAPER,
        model={
            "vocabulary_size": 99,
            "embedding_dim": 96,
            "units": 256,
            "layers": 2,
            "levels": 2,
            "groups": 4,
        },
        data=DataSpec("python_docs_char", batch_size=32, eval_batch_size=8, length=64),
        optimizer=OptimizerSpec("Adam", learning_rate=4e-3, global_clipnorm=1.0),
        schedule=ScheduleSpec("cosine", minimum=1e-4, warmup=0.05),
        epochs=4,
        reported=Reported("bits_per_character", None, "no figure in the paper", ""),
        parameters=259_203,
        notes="Settings of ours, for a first run in a few minutes on two CPU cores.",
    )
)
@forwards_to(language_model)
def pru_python_docs(**settings) -> LanguageModel:
    """A small character-level PRU on Python's own documentation; settings of ours."""
    return language_model(**settings)
