"""LSTMs, GRUs and plain recurrent networks: the baselines of the R-Transformer paper.

Its tables take their figures over from Bai, Kolter and Koltun (2018), and give layers and width of
the LSTM alone, and not for music; the other widths are ours.
"""

from typing import Any

import keras

from keras_seq.layers import LSTM, KerasRecurrent, RecurrentStack
from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier
from keras_seq.zoo.builders import (
    after,
    classifier_of,
    frame_model_of,
    language_model_of,
    policy_of,
)
from keras_seq.zoo.protocols import JAPANESE_VOWELS, VOWELS
from keras_seq.zoo.r_transformer import NOTTINGHAM
from keras_seq.zoo.recipe import DataSpec, OptimizerSpec, Recipe, Reported, ScheduleSpec
from keras_seq.zoo.registry import register
from keras_seq.zoo.settings import split_settings, takes_settings_of

CELLS = ("lstm", "gru", "rnn")
PAPERS = {
    "lstm": "Hochreiter, Schmidhuber: Long Short-Term Memory. Neural Computation 9(8), 1997.",
    "gru": (
        "Cho, van Merriënboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio: Learning Phrase "
        "Representations using RNN Encoder-Decoder for Statistical Machine Translation. EMNLP 2014."
    ),
    "rnn": "Elman: Finding Structure in Time. Cognitive Science 14(2), 1990.",
}


def core_of(
    widths: list[int],
    *,
    cell: str = "lstm",
    dropout: float = 0.0,
    output_dropout: float = 0.0,
    variational: bool = False,
    dtype: str | None = None,
    seed: int | None = None,
    **options: Any,
) -> RecurrentStack:
    """Makes recurrent layers of one kind on top of each other.

    Args:
        widths: of the layers.
        cell: `"lstm"`, `"gru"` or `"rnn"`.
        dropout: rate between the layers.
        output_dropout: rate after the last layer.
        variational: one dropout mask for all steps of a sequence.
        dtype: a dtype policy; `None` for Keras' current one.
        seed: seed of initialisation and dropout.
        **options: further arguments of `RecurrentStack`.
    """
    if cell not in CELLS:
        raise ValueError(f"`cell` must be one of {CELLS}. Received: cell={cell!r}.")
    policy = policy_of(dtype)
    layers = []
    for index, width in enumerate(widths):
        named: dict[str, Any] = {"dtype": policy, "name": f"{cell}_{index + 1}"}
        own = after(seed, 10 + index)
        if cell == "lstm":
            layers.append(LSTM(width, seed=own, **named))
            continue
        kind = keras.layers.GRU if cell == "gru" else keras.layers.SimpleRNN
        layers.append(KerasRecurrent(kind(width, seed=own, dtype=policy), **named))
    return RecurrentStack(
        layers,
        dropout,
        output_dropout=output_dropout,
        variational=variational,
        seed=seed,
        dtype=policy,
        name="recurrent_stack",
        **options,
    )


@takes_settings_of(core_of)
@takes_settings_of(language_model_of, "name")
def language_model(
    *,
    vocabulary_size: int,
    embedding_dim: int,
    units: int,
    layers: int = 2,
    input_dropout: float = 0.0,
    head: str = "tied",
    carry_state: bool = True,
    seed: int | None = None,
    **settings,
) -> LanguageModel:
    """Builds a language model of several recurrent layers.

    Args:
        vocabulary_size: number of tokens.
        embedding_dim: width of the embedding, and of the last layer if the head is tied.
        units: width of the layers.
        layers: number of layers.
        input_dropout: rate before the first layer.
        head: `"tied"` or `"softmax"`.
        carry_state: carry the state from window to window.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    widths = [units] * (layers - 1) + [embedding_dim if head == "tied" else units]
    core = core_of(widths, input_dropout=input_dropout, seed=seed, **own)
    options |= {"head": head, "carry_state": carry_state}
    return language_model_of(core, vocabulary_size, embedding_dim, seed=seed, **options)


@takes_settings_of(core_of)
@takes_settings_of(classifier_of, "pooling", "name")
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


@takes_settings_of(core_of)
@takes_settings_of(frame_model_of, "sum_over_time", "name")
def frame_model(
    *, notes: int = 88, units: int, layers: int = 2, seed: int | None = None, **settings
) -> FrameModel:
    """Builds recurrent layers that predict the notes of the next frame.

    Args:
        notes: width of a frame.
        units: width of the layers.
        layers: number of layers.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of([units] * layers, seed=seed, **own)
    return frame_model_of(core, notes, seed=seed, **options)


SOURCE_NOTE = "The table takes the figure over from Bai et al. (2018). "
GIVEN_NOTE = SOURCE_NOTE + "Layers and width are the table's, the training is ours."
# Neither the R-Transformer's nor the TrellisNet's tables have a size of these.
WIDTH_NOTE = (
    SOURCE_NOTE
    + "It has no size of this model: the width, which gives about {} parameters, and the "
    "training are ours."
)


# What a variant of another size than the paper's has no figure for.
NO_FIGURE: dict[str, Any] = {
    "reported.value": None,
    "reported.source": "no figure of this size in the R-Transformer paper",
    "reported.size": "",
}


# Pixels (R-Transformer paper, Table 1)


def _seq_mnist(cell: str, units: int, parameters: int, accuracy: float, size: str = "") -> Recipe:
    return Recipe(
        name=f"{cell}_seq_mnist",
        family="recurrent",
        task="sequence_classifier",
        summary="MNIST digits, read pixel by pixel.",
        paper=PAPERS[cell],
        model={"features": 1, "classes": 10, "cell": cell, "units": units, "layers": 1},
        data=DataSpec("seq_mnist", batch_size=64),
        optimizer=OptimizerSpec("Adam", learning_rate=1e-3, global_clipnorm=1.0),
        schedule=ScheduleSpec("milestones", factor=0.1, milestones=(11, 21, 31, 41)),
        epochs=50,
        monitor="val_accuracy",
        reported=Reported("accuracy", accuracy, "R-Transformer paper, Table 1", size),
        parameters=parameters,
        notes=GIVEN_NOTE if size else WIDTH_NOTE.format("70,000"),
    )


register(
    sequence_classifier,
    _seq_mnist("lstm", 130, 70_470, 87.2, "1 layer of 130"),
    _seq_mnist("gru", 150, 70_360, 96.2),
    _seq_mnist("rnn", 260, 70_730, 21.5),
)


# Polyphonic music (R-Transformer paper, Table 2)


def _nottingham(cell: str, units: int, parameters: int, nll: float) -> Recipe:
    return Recipe(
        name=f"{cell}_nottingham",
        family="recurrent",
        task="frame_model",
        summary="Polyphonic music, under the protocol of rtransformer_nottingham.",
        paper=PAPERS[cell],
        model={
            "notes": 88,
            "cell": cell,
            "units": units,
            "layers": 2,
            "dropout": 0.2,
            "output_dropout": 0.2,
        },
        **NOTTINGHAM,
        reported=Reported("nll_per_frame", nll, "R-Transformer paper, Table 2"),
        parameters=parameters,
        notes=SOURCE_NOTE + "It has no size of this model: the width, which gives about a million "
        "parameters, is ours, and the training is that of rtransformer_nottingham.",
    )


register(
    frame_model,
    _nottingham("lstm", 280, 1_068_568, 3.29),
    _nottingham("gru", 330, 1_100_308, 3.46),
    _nottingham("rnn", 580, 1_112_528, 4.05),
)


# Penn Treebank (R-Transformer paper, Tables 3 and 4)

PTB: dict[str, Any] = {
    "optimizer": OptimizerSpec("Adam", learning_rate=1e-3, global_clipnorm=1.0),
    "schedule": ScheduleSpec("plateau", factor=0.3, patience=2, minimum=1e-5),
    "epochs": 50,
    "early_stopping": 8,
}


def _ptb_char(cell: str, units: int, parameters: int, bits: float, size: str = "") -> Recipe:
    return Recipe(
        name=f"{cell}_ptb_char",
        family="recurrent",
        task="language_model",
        summary="Character-level language model on Penn Treebank.",
        paper=PAPERS[cell],
        model={
            "vocabulary_size": 50,
            "embedding_dim": 100,
            "cell": cell,
            "units": units,
            "layers": 2,
            "dropout": 0.1,
            "output_dropout": 0.1,
            "head": "softmax",
        },
        data=DataSpec("ptb_char", batch_size=32, length=150),
        **PTB,
        reported=Reported("bits_per_character", bits, "R-Transformer paper, Table 3", size),
        parameters=parameters,
        notes=GIVEN_NOTE if size else WIDTH_NOTE.format("2.6 million"),
    )


register(
    language_model,
    _ptb_char("lstm", 600, 4_604_650, 1.36, "2 layers of 600").replace(
        variants={"units450": {"model.units": 450, "parameters": 2_644_750, **NO_FIGURE}}
    ),
    _ptb_char("gru", 520, 2_626_890, 1.37),
    _ptb_char("rnn", 900, 2_571_850, 1.48),
)


def _ptb_word(
    name: str,
    units: int,
    layers: int,
    parameters: int,
    reported: Reported,
    notes: str,
) -> Recipe:
    cell = name.split("_")[0]
    return Recipe(
        name=name,
        family="recurrent",
        task="language_model",
        summary="Word-level language model on Penn Treebank.",
        paper=PAPERS[cell],
        model={
            "vocabulary_size": 10_000,
            "embedding_dim": units,
            "cell": cell,
            "units": units,
            "layers": layers,
            "dropout": 0.5,
            "input_dropout": 0.5,
            "output_dropout": 0.5,
        },
        data=DataSpec("ptb_word", batch_size=20, eval_batch_size=10, length=35),
        **PTB,
        reported=reported,
        parameters=parameters,
        notes=notes,
    )


def _table_4(perplexity: float, size: str = "") -> Reported:
    return Reported("perplexity", perplexity, "R-Transformer paper, Table 4", size)


register(
    language_model,
    _ptb_word(
        "lstm_ptb_word_700", 700, 3, 18_786_800, _table_4(78.93, "3 layers of 700"), GIVEN_NOTE
    ),
    _ptb_word(
        "lstm_ptb_word_650",
        650,
        2,
        13_280_400,
        Reported("perplexity", None, "no figure of this size in the R-Transformer paper"),
        "A smaller LSTM than that of the R-Transformer paper, lstm_ptb_word_700; size and training "
        "are ours.",
    ),
    _ptb_word("gru_ptb_word", 700, 2, 12_898_400, _table_4(92.48), WIDTH_NOTE.format("13 million")),
    _ptb_word("rnn_ptb_word", 900, 2, 12_251_800, _table_4(114.5), WIDTH_NOTE.format("12 million")),
)


# Japanese vowels


def _japanese_vowels(cell: str, units: int, parameters: int) -> Recipe:
    return Recipe(
        name=f"{cell}_japanese_vowels",
        family="recurrent",
        paper=PAPERS[cell],
        model={**VOWELS, "cell": cell, "units": units, "output_dropout": 0.3},
        parameters=parameters,
        **JAPANESE_VOWELS,
    )


register(
    sequence_classifier,
    _japanese_vowels("lstm", 64, 20_553),
    _japanese_vowels("gru", 64, 15_561),
)
