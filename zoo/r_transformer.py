"""R-Transformer models: pixel classifier, polyphonic music and language models.

Settings are the defaults of the released scripts, which give the published results; layers, widths,
dropout and the choice of rates stand in the paper too (Tables 1 to 4, section 4). The released code
also makes layers that it never uses; the models here are without them, and `variant="released"` has
them.

Each model's attention has a `span` no shorter than the sequences that it is trained on, so that it
sees all of them, and its state has a fixed size.
"""

from typing import Any

from keras_seq.layers import RTransformer
from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier
from keras_seq.zoo.builders import classifier_of, frame_model_of, language_model_of, policy_of
from keras_seq.zoo.protocols import (
    JAPANESE_VOWELS,
    PYTHON_DOCS_CHARACTERS,
    VOWELS,
    python_docs,
)
from keras_seq.zoo.recipe import DataSpec, OptimizerSpec, Recipe, Reported, ScheduleSpec
from keras_seq.zoo.registry import register
from keras_seq.zoo.settings import split_settings, takes_settings_of

PAPER = (
    "Wang, Ma, Liu, Tang: R-Transformer: Recurrent Neural Network Enhanced Transformer. "
    "arXiv:1907.05572, 2019."
)


def core_of(
    *,
    units: int,
    levels: int,
    window: int,
    heads: int,
    local_layers: int = 1,
    cell: str = "gru",
    inner_units: int | None = None,
    dropout: float = 0.0,
    norm_order: str = "pre",
    normalization: str = "unbiased",
    span: int | None = None,
    unused_weights: bool = False,
    dtype: str | None = None,
    seed: int | None = None,
    **options: Any,
) -> RTransformer:
    """Makes the blocks.

    Args:
        units: width of all blocks.
        levels: number of blocks.
        window: steps of a window of the recurrence.
        heads: attention heads.
        local_layers: recurrent sublayers of a block.
        cell: `"gru"`, `"lstm"` or `"rnn"`.
        inner_units: inner width of the feed-forward networks; `None` for `4 * units`.
        dropout: rate in the blocks.
        norm_order: `"pre"` or `"post"`.
        normalization: `"unbiased"` or `"layer"`.
        span: steps that attention sees; `None` for all.
        unused_weights: also hold the weights that the released code never uses.
        dtype: a dtype policy; `None` for Keras' current one.
        seed: seed of initialisation and dropout.
        **options: further arguments of `RTransformer`.
    """
    return RTransformer(
        units,
        levels,
        window,
        heads,
        local_layers,
        cell,
        inner_units,
        dropout,
        norm_order=norm_order,
        normalization=normalization,
        span=span,
        unused_weights=unused_weights,
        seed=seed,
        dtype=policy_of(dtype),
        name="r_transformer",
        **options,
    )


@takes_settings_of(core_of)
@takes_settings_of(language_model_of, "head", "output_dropout", "history", "carry_state", "name")
def language_model(
    *,
    vocabulary_size: int,
    units: int,
    embedding_value_dropout: float = 0.0,
    seed: int | None = None,
    **settings,
) -> LanguageModel:
    """Builds an R-Transformer language model.

    Args:
        vocabulary_size: number of tokens.
        units: width of the embedding and of all blocks.
        embedding_value_dropout: rate for single values of the embedded tokens.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(
        units=units, input_dropout=embedding_value_dropout, project_input=False, seed=seed, **own
    )
    return language_model_of(core, vocabulary_size, units, seed=seed, **options)


@takes_settings_of(core_of)
@takes_settings_of(classifier_of, "pooling", "output_dropout", "name")
def sequence_classifier(
    *, features: int, classes: int, seed: int | None = None, **settings
) -> SequenceClassifier:
    """Builds an R-Transformer that classifies sequences of vectors at their last step.

    Args:
        features: width of the inputs.
        classes: number of classes.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(project_input=True, seed=seed, **own)
    return classifier_of(core, classes, features, seed=seed, **options)


@takes_settings_of(core_of)
@takes_settings_of(frame_model_of, "output_dropout", "sum_over_time", "name")
def frame_model(*, notes: int = 88, seed: int | None = None, **settings) -> FrameModel:
    """Builds an R-Transformer that predicts the notes of the next frame.

    Args:
        notes: width of a frame.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(project_input=True, seed=seed, **own)
    return frame_model_of(core, notes, seed=seed, **options)


UNUSED_NOTE = (
    "The released code also makes layers that it never uses; `variant='released'` has them. "
    "The release starts all copies of a layer from the same values; here each is drawn anew."
)


FAMILY: dict[str, Any] = {"family": "r_transformer", "paper": PAPER}
LANGUAGE: dict[str, Any] = {"task": "language_model", **FAMILY}

# Training of the released scripts, and of the baselines that the paper compares with.
SEQ_MNIST: dict[str, Any] = {
    "data": DataSpec("seq_mnist", batch_size=32),
    "optimizer": OptimizerSpec("Adam", learning_rate=1e-3),
    # After every ten epochs, as the script does it.
    "schedule": ScheduleSpec("milestones", factor=0.1, milestones=(11, 21, 31, 41)),
    "epochs": 50,
    "monitor": "val_accuracy",
}
NOTTINGHAM: dict[str, Any] = {  # ours
    "data": DataSpec("nottingham", batch_size=8),
    "optimizer": OptimizerSpec("Adam", learning_rate=1e-3, global_clipnorm=1.0),
    "schedule": ScheduleSpec("plateau", factor=0.5, patience=2, minimum=1e-5),
    "epochs": 60,
    "early_stopping": 8,
    "monitor": "val_nll_per_frame",
}
PTB_CHAR: dict[str, Any] = {
    "data": DataSpec("ptb_char", batch_size=16, eval_batch_size=1, length=320, history=80),
    "optimizer": OptimizerSpec("SGD", learning_rate=2.0, global_clipnorm=0.15),
    "schedule": ScheduleSpec("highest", factor=0.1, patience=3, delay=5),
    "epochs": 100,
}
PTB_WORD: dict[str, Any] = {
    "data": DataSpec("ptb_word", batch_size=16, eval_batch_size=10, length=40, history=40),
    "optimizer": OptimizerSpec("SGD", learning_rate=2.0, global_clipnorm=0.35),
    "schedule": ScheduleSpec("highest", factor=0.5, patience=5, delay=5),
    "epochs": 100,
}


# Pixels (Table 1)

register(
    sequence_classifier,
    Recipe(
        name="rtransformer_seq_mnist",
        task="sequence_classifier",
        summary="MNIST digits, read pixel by pixel.",
        **FAMILY,
        model={
            "features": 1,
            "classes": 10,
            "units": 32,
            "levels": 8,
            "window": 7,
            "heads": 2,
            "local_layers": 2,
            "dropout": 0.05,
            "span": 784,
        },
        **SEQ_MNIST,
        reported=Reported("accuracy", 99.1, "R-Transformer paper, Table 1", "8 layers of 32"),
        parameters=204_426,
        variants={"released": {"model.unused_weights": True, "parameters": 229_738}},
        notes=UNUSED_NOTE + " It clips no gradients, and does not shuffle the training images; "
        "here they are shuffled.",
    ),
)


# Polyphonic music (Table 2)

register(
    frame_model,
    Recipe(
        name="rtransformer_nottingham",
        task="frame_model",
        summary="Polyphonic music: the notes of the next frame of the Nottingham tunes.",
        **FAMILY,
        model={
            "notes": 88,
            "units": 160,
            "levels": 3,
            "window": 6,
            "heads": 4,
            "dropout": 0.3,
            "span": 1792,  # the longest tune less its last frame
        },
        **NOTTINGHAM,
        reported=Reported("nll_per_frame", 2.37, "R-Transformer paper, Table 2", "3 layers of 160"),
        parameters=1_420_888,
        variants={
            "released": {
                "model.unused_weights": True,
                "model.dropout": 0.1,
                "model.sum_over_time": True,
                "data.batch_size": 1,
                "data.options": {"buckets": 0},
                "optimizer.name": "SGD",
                "optimizer.learning_rate": 5e-5,
                "optimizer.global_clipnorm": None,
                "schedule.name": "highest",
                "schedule.factor": 0.1,
                "schedule.patience": 3,
                "schedule.delay": 10,
                "schedule.minimum": 0.0,
                "epochs": 100,
                "early_stopping": None,
                "parameters": 1_704_088,
            }
        },
        notes="Sizes of the paper and the release, training settings of ours: the paper (section "
        "4.2) has a dropout of 0.1 and a rate of 5e-4, 5e-5 or 5e-6. " + UNUSED_NOTE + " It also "
        "trains as the script does: one tune a step, the loss summed over the tune, SGD. The "
        "script clips gradients before they are computed, which has no effect, so nothing is "
        "clipped there.",
    ),
)


# Penn Treebank (Tables 3 and 4)

register(
    language_model,
    Recipe(
        name="rtransformer_ptb_char",
        summary="Character-level language model on Penn Treebank.",
        **LANGUAGE,
        model={
            "vocabulary_size": 49,
            "units": 512,
            "levels": 3,
            "window": 7,
            "heads": 8,
            "dropout": 0.15,
            "embedding_value_dropout": 0.15,
            "span": 400,
            "history": 80,
        },
        **PTB_CHAR,
        reported=Reported(
            "bits_per_character", 1.24, "R-Transformer paper, Table 3", "3 layers of 512"
        ),
        parameters=14_213_169,
        variants={"released": {"model.unused_weights": True, "parameters": 17_101_873}},
        notes="The released alphabet has 49 characters and no `<eos>`; with that of the data (50) "
        "the model has 513 parameters more, and training takes it from the data. The rate is of "
        "{1, 2, 3} in the paper (section 4.3), 2 in the script. " + UNUSED_NOTE,
    ),
    Recipe(
        name="rtransformer_ptb_word",
        summary="Word-level language model on Penn Treebank.",
        **LANGUAGE,
        model={
            "vocabulary_size": 10_000,
            "units": 128,
            "levels": 3,
            "window": 9,
            "heads": 8,
            "cell": "lstm",
            "dropout": 0.35,
            "embedding_value_dropout": 0.15,
            "span": 80,
            "history": 40,
        },
        **PTB_WORD,
        reported=Reported("perplexity", 84.38, "R-Transformer paper, Table 4", "3 layers of 128"),
        parameters=2_281_872,
        variants={"released": {"model.unused_weights": True, "parameters": 2_463_376}},
        notes="The rate is of {1, 2, 3} in the paper (section 4.3), 2 in the script. "
        + UNUSED_NOTE,
    ),
)


# Python's documentation

register(
    language_model,
    Recipe(
        name="rtransformer_python_docs",
        model={
            "vocabulary_size": PYTHON_DOCS_CHARACTERS,
            "units": 64,
            "levels": 2,
            "window": 5,
            "heads": 4,
            "span": 128,
            "carry_state": True,
        },
        parameters=156_579,
        notes="Settings of ours. The state of attention and recurrence is carried from window to "
        "window, so that attention looks back 128 characters.",
        **python_docs(3e-3),
        **LANGUAGE,
    ),
)


# Japanese vowels

register(
    sequence_classifier,
    Recipe(
        name="rtransformer_japanese_vowels",
        **FAMILY,
        model={
            **VOWELS,
            "units": 48,
            "levels": 1,
            "window": 5,
            "heads": 4,
            "dropout": 0.2,
            "span": 29,
        },
        parameters=43_545,
        **JAPANESE_VOWELS,
    ),
)
