"""Temporal convolutional networks: the baselines of the R-Transformer paper, and their recipes.

Sizes are the defaults of the released scripts of Bai, Kolter and Koltun (2018).
"""

from collections.abc import Sequence
from typing import Any

import keras

from keras_seq.layers import TCN, TiedSoftmax
from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier, SequenceRegressor
from keras_seq.zoo.builders import (
    after,
    classifier_of,
    frame_model_of,
    language_model_of,
    policy_of,
    regressor_of,
)
from keras_seq.zoo.protocols import (
    JAPANESE_VOWELS,
    PYTHON_DOCS_CHARACTERS,
    VOWELS,
    python_docs,
)
from keras_seq.zoo.r_transformer import NOTTINGHAM
from keras_seq.zoo.recipe import DataSpec, OptimizerSpec, Recipe, Reported, ScheduleSpec
from keras_seq.zoo.registry import register
from keras_seq.zoo.settings import split_settings, takes_settings_of

PAPER = (
    "Bai, Kolter, Koltun: An Empirical Evaluation of Generic Convolutional and Recurrent Networks "
    "for Sequence Modeling. arXiv:1803.01271, 2018."
)


def core_of(
    *,
    units: int | Sequence[int],
    levels: int | None = None,
    kernel_size: int,
    dilation_rates: Sequence[int] | None = None,
    stacks: int = 1,
    activation: str = "relu",
    weight_normalization: bool | None = None,
    normalization: str | None = None,
    skip_connections: bool = False,
    branch_activation: bool = False,
    padding: str = "causal",
    dropout: float = 0.0,
    spatial_dropout: bool = False,
    dtype: str | None = None,
    seed: int | None = None,
    **options: Any,
) -> TCN:
    """Makes the network.

    Args:
        units: channels of all blocks, or of each of a stack.
        levels: number of blocks of a stack; `None` for as many as `units` has entries.
        kernel_size: taps of the convolutions.
        dilation_rates: the dilation of each block of a stack; `None` for 1, 2, 4, ...
        stacks: how often the blocks are repeated.
        activation: of the convolutions and of the residual sums.
        weight_normalization: normalise the kernels; `None` for where there is no `normalization`.
        normalization: of what a convolution gives, `"layer"`, `"batch"` or `None`.
        skip_connections: the output is the sum of what all blocks add to their inputs.
        branch_activation: apply the activation once more to what a block adds to its input.
        padding: `"causal"`, or `"same"` for convolutions that see as far ahead as back.
        dropout: rate after each convolution.
        spatial_dropout: drop whole channels.
        dtype: a dtype policy; `None` for Keras' current one.
        seed: seed of initialisation and dropout.
        **options: further arguments of `TCN`.
    """
    return TCN(
        units,
        levels,
        kernel_size,
        dilation_rates,
        activation,
        weight_normalization=weight_normalization,
        normalization=normalization,
        stacks=stacks,
        skip_connections=skip_connections,
        branch_activation=branch_activation,
        padding=padding,
        dropout=dropout,
        spatial_dropout=spatial_dropout,
        seed=seed,
        dtype=policy_of(dtype),
        name="tcn",
        **options,
    )


@takes_settings_of(core_of)
@takes_settings_of(language_model_of, "history", "carry_state", "name")
def language_model(
    *,
    vocabulary_size: int,
    embedding_dim: int,
    kernel_size: int = 3,
    embedding_value_dropout: float = 0.0,
    embedding_deviation: float | None = None,
    head: str = "tied",
    seed: int | None = None,
    **settings,
) -> LanguageModel:
    """Builds a language model of a temporal convolutional network.

    Args:
        vocabulary_size: number of tokens.
        embedding_dim: width of the embedding, and of the last block if the head is tied.
        kernel_size: taps of the convolutions.
        embedding_value_dropout: rate for single values of the embedded tokens.
        embedding_deviation: standard deviation of the word vectors at the start, in embedding and
            head; `None` for uniform within ± 0.1.
        head: `"tied"` or `"softmax"`.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(kernel_size=kernel_size, input_dropout=embedding_value_dropout, seed=seed, **own)
    options["head"] = head
    if embedding_deviation is not None:
        policy = core.dtype_policy
        start = keras.initializers.RandomNormal(stddev=embedding_deviation, seed=seed)
        options["embedding"] = keras.layers.ReversibleEmbedding(
            vocabulary_size,
            embedding_dim,
            embeddings_initializer=start,
            dtype=policy,
            name="embedding",
        )
        if head == "softmax":
            options["head"] = TiedSoftmax(
                vocabulary_size,
                tied=False,
                kernel_initializer=keras.initializers.RandomNormal(
                    stddev=embedding_deviation, seed=after(seed)
                ),
                dtype=policy,
                name="head",
            )
    return language_model_of(core, vocabulary_size, embedding_dim, seed=seed, **options)


@takes_settings_of(core_of)
@takes_settings_of(classifier_of, "pooling", "return_sequences", "head_initialization", "name")
def sequence_classifier(
    *, features: int, classes: int, kernel_size: int = 7, seed: int | None = None, **settings
) -> SequenceClassifier:
    """Builds a temporal convolutional network that classifies sequences at their last step.

    Args:
        features: width of the inputs.
        classes: number of classes.
        kernel_size: taps of the convolutions.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(kernel_size=kernel_size, seed=seed, **own)
    return classifier_of(core, classes, features, seed=seed, **options)


@takes_settings_of(core_of)
@takes_settings_of(classifier_of, "head_initialization", "name")
def sequence_regressor(
    *, features: int, outputs: int = 1, kernel_size: int = 7, seed: int | None = None, **settings
) -> SequenceRegressor:
    """Builds a temporal convolutional network that reads values off the last step of a sequence.

    Args:
        features: width of the inputs.
        outputs: number of values.
        kernel_size: taps of the convolutions.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(kernel_size=kernel_size, seed=seed, **own)
    return regressor_of(core, outputs, features, seed=seed, **options)


@takes_settings_of(core_of)
@takes_settings_of(frame_model_of, "sum_over_time", "head_initialization", "name")
def frame_model(
    *, notes: int = 88, kernel_size: int = 5, seed: int | None = None, **settings
) -> FrameModel:
    """Builds a temporal convolutional network that predicts the notes of the next frame.

    Args:
        notes: width of a frame.
        kernel_size: taps of the convolutions.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(kernel_size=kernel_size, seed=seed, **own)
    return frame_model_of(core, notes, seed=seed, **options)


FAMILY: dict[str, Any] = {"family": "tcn", "paper": PAPER}
LANGUAGE: dict[str, Any] = {"task": "language_model", **FAMILY}
SIZES_NOTE = (
    "Sizes are the defaults of the released script. The table's row is taken over from Bai et al. "
    "(2018). Their paper speaks of dropping whole channels (`spatial_dropout=True`); the release "
    "drops single values, as here. "
)
TRELLISNET_NOTE = "The TrellisNet paper (Table {}) has the same figure for a TCN of {}. "

register(
    sequence_classifier,
    Recipe(
        name="tcn_seq_mnist",
        task="sequence_classifier",
        summary="MNIST digits, read pixel by pixel.",
        **FAMILY,
        model={
            "features": 1,
            "classes": 10,
            "units": 25,
            "levels": 8,
            "kernel_size": 7,
            "dropout": 0.05,
            "head_initialization": "torch",
        },
        data=DataSpec("seq_mnist", batch_size=64),
        optimizer=OptimizerSpec("Adam", learning_rate=2e-3),
        # After every ten epochs, as the script does it.
        schedule=ScheduleSpec("milestones", factor=0.1, milestones=(11,)),
        epochs=20,
        monitor="val_accuracy",
        reported=Reported("accuracy", 99.0, "R-Transformer paper, Table 1", "8 layers of 25"),
        parameters=66_910,
        notes=SIZES_NOTE + "The script trains with 60,000 images; here the last "
        "5,000 are for validation.",
    ),
)

register(
    frame_model,
    Recipe(
        name="tcn_nottingham",
        task="frame_model",
        summary="Polyphonic music, under the protocol of rtransformer_nottingham.",
        **FAMILY,
        model={
            "notes": 88,
            "units": 150,
            "levels": 4,
            "kernel_size": 5,
            "dropout": 0.25,
            "head_initialization": "torch",
        },
        **NOTTINGHAM,
        reported=Reported("nll_per_frame", 3.07, "R-Transformer paper, Table 2", "4 layers of 150"),
        parameters=882_538,
        notes=SIZES_NOTE + "Training is that of rtransformer_nottingham, for comparison under one "
        "protocol; the script trains with Adam at 1e-3, one tune a step, the loss summed over it, "
        "and a clipping before the gradients are there, which has no effect.",
    ),
)

register(
    language_model,
    Recipe(
        name="tcn_ptb_char",
        summary="Character-level language model on Penn Treebank.",
        **LANGUAGE,
        model={
            "vocabulary_size": 50,
            "embedding_dim": 100,
            "units": [450, 450, 100],
            "kernel_size": 3,
            "dropout": 0.1,
            "embedding_value_dropout": 0.1,
            "history": 80,
        },
        data=DataSpec("ptb_char", batch_size=32, eval_batch_size=1, length=320, history=80),
        optimizer=OptimizerSpec("SGD", learning_rate=4.0, global_clipnorm=0.15),
        schedule=ScheduleSpec("highest", factor=0.1, patience=3, delay=5),
        epochs=100,
        reported=Reported(
            "bits_per_character", 1.31, "R-Transformer paper, Table 3", "3 layers of 450"
        ),
        parameters=2_222_100,
        notes=SIZES_NOTE
        + TRELLISNET_NOTE.format(3, "3.0M")
        + "The last of its blocks is as wide as the embedding, 100, to which the softmax is tied.",
    ),
    Recipe(
        name="tcn_ptb_word",
        summary="Word-level language model on Penn Treebank.",
        **LANGUAGE,
        model={
            "vocabulary_size": 10_000,
            "embedding_dim": 600,
            "units": 600,
            "levels": 4,
            "kernel_size": 3,
            "dropout": 0.45,
            "embedding_value_dropout": 0.25,
            "embedding_deviation": 0.01,
            "history": 40,
        },
        data=DataSpec("ptb_word", batch_size=16, eval_batch_size=10, length=40, history=40),
        optimizer=OptimizerSpec("SGD", learning_rate=4.0, global_clipnorm=0.35),
        schedule=ScheduleSpec("highest", factor=0.5, patience=5, delay=5),
        epochs=100,
        reported=Reported("perplexity", 88.68, "R-Transformer paper, Table 4", "4 layers of 600"),
        parameters=14_659_600,
        notes=SIZES_NOTE + TRELLISNET_NOTE.format(1, "13M"),
    ),
    Recipe(
        name="tcn_python_docs",
        model={
            "vocabulary_size": PYTHON_DOCS_CHARACTERS,
            "embedding_dim": 64,
            "units": [128, 128, 128, 64],
            "kernel_size": 3,
            "carry_state": True,
        },
        parameters=332_003,
        notes="Settings of ours. The state is carried from window to window, so that the first "
        "steps of a window see the last ones of the window before.",
        **python_docs(3e-3),
        **LANGUAGE,
    ),
)


# Long-memory tasks, at the defaults of the released scripts.

MEMORY_NOTE = (
    "Sizes and training are the defaults of the released script, which draws {} training examples "
    "once; the sizes of the paper's table are others. "
)

register(
    sequence_classifier,
    Recipe(
        name="tcn_copy_memory",
        task="sequence_classifier",
        summary="Recall ten symbols after a thousand steps.",
        **FAMILY,
        model={
            "features": 1,
            "classes": 10,
            "return_sequences": True,
            "units": 10,
            "levels": 8,
            "kernel_size": 8,
            "head_initialization": "small",
        },
        data=DataSpec("copy_memory", batch_size=32, options={"encoding": "float"}),
        # PyTorch adds its epsilon of 1e-8 outside of the root.
        optimizer=OptimizerSpec(
            "RMSprop",
            learning_rate=5e-4,
            global_clipnorm=1.0,
            options={"rho": 0.99, "epsilon": 1e-16},
        ),
        epochs=50,
        reported=Reported("accuracy", None, "TCN paper, Table 1, has losses alone", "16K"),
        parameters=12_530,
        notes=MEMORY_NOTE.format("10,000")
        + "The input is one channel with the symbol as a number.",
    ),
)

register(
    sequence_regressor,
    Recipe(
        name="tcn_adding",
        task="sequence_regressor",
        summary="Add two marked numbers of a long sequence.",
        **FAMILY,
        model={
            "features": 2,
            "outputs": 1,
            "units": 30,
            "levels": 8,
            "kernel_size": 7,
            "head_initialization": "small",
        },
        data=DataSpec("adding", batch_size=32, length=400),
        optimizer=OptimizerSpec("Adam", learning_rate=4e-3),
        epochs=10,
        monitor="val_mse",
        reported=Reported("mse", None, "no figure of this size and length", "70K"),
        parameters=96_001,
        notes=MEMORY_NOTE.format("50,000"),
    ),
)


# Japanese vowels

register(
    sequence_classifier,
    Recipe(
        name="tcn_japanese_vowels",
        **FAMILY,
        model={
            **VOWELS,
            "units": 32,
            "levels": 3,
            "kernel_size": 3,
            "dropout": 0.2,
        },
        parameters=17_609,
        **JAPANESE_VOWELS,
    ),
)
