"""TrellisNet models: language models, pixel classifiers and the long-memory tasks.

Settings come from Table 5 of the paper (appendix D) and from the defaults of the released scripts.
Where the two disagree both are variants, `"paper"` and `"released"`. The default is the table's
where that gives the size which the paper reports; else the script's, and of the pixel models the
script's with a width of ours. What the table does not give, such as batches, epochs and the dropout
of the input, is the script's.

`core_of` makes the layer, `language_model` and `sequence_reader` the models around it; then recipe
after recipe is registered as a model of the zoo.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_seq.layers import MixtureOfSoftmaxes, TrellisNet
from keras_seq.models import LanguageModel, SequenceClassifier, SequenceRegressor
from keras_seq.zoo.builders import (
    classifier_of,
    language_model_of,
    policy_of,
    regressor_of,
    split_head,
)
from keras_seq.zoo.protocols import (
    JAPANESE_VOWELS,
    PYTHON_DOCS_CHARACTERS,
    VOWELS,
    python_docs,
)
from keras_seq.zoo.recipe import DataSpec, OptimizerSpec, Recipe, Reported, ScheduleSpec
from keras_seq.zoo.registry import register
from keras_seq.zoo.settings import split_settings, takes_settings_of

PAPER = "Bai, Kolter, Koltun: Trellis Networks for Sequence Modeling. ICLR 2019."

# Dilations of the pixel scripts: the receptive field covers 1024 steps in 11 levels.
PIXEL_DILATIONS = (1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def core_of(
    *,
    units: int,
    output_units: int,
    levels: int,
    kernel_size: int = 2,
    dilation_rate: int | Sequence[int] = 1,
    weight_normalization: bool = False,
    hidden_dropout: float = 0.0,
    weight_dropout: float = 0.0,
    temporal_weight_dropout: bool = True,
    auxiliary_frequency: int | None = None,
    injection_frequency: int = 1,
    unroll: bool = True,
    rematerialize: bool = False,
    dtype: str | None = None,
    seed: int | None = None,
    **options: Any,
) -> TrellisNet:
    """Makes the network.

    Args:
        units: hidden units of a level besides the output channels.
        output_units: output channels; the width of the embedding where a head is tied to it.
        levels: depth.
        kernel_size: taps of the convolution.
        dilation_rate: dilation of all levels, or a cycle over them.
        weight_normalization: normalise the kernels.
        hidden_dropout: variational rate of the hidden-to-hidden path.
        weight_dropout: rate for elements of the kernels.
        temporal_weight_dropout: drop only the older taps.
        auxiliary_frequency: levels between auxiliary outputs.
        injection_frequency: levels between injections of the input.
        unroll: unroll the levels in the graph instead of looping over them.
        rematerialize: recompute levels in the backward pass to save memory.
        dtype: a dtype policy; `None` for Keras' current one.
        seed: seed of initialisation and dropout.
        **options: further arguments of `TrellisNet`.
    """
    return TrellisNet(
        units,
        output_units,
        levels,
        kernel_size,
        dilation_rate,
        weight_normalization=weight_normalization,
        hidden_dropout=hidden_dropout,
        weight_dropout=weight_dropout,
        temporal_weight_dropout=temporal_weight_dropout,
        auxiliary_frequency=auxiliary_frequency,
        injection_frequency=injection_frequency,
        unroll=unroll,
        rematerialize=rematerialize,
        seed=seed,
        dtype=policy_of(dtype),
        name="trellisnet",
        **options,
    )


@takes_settings_of(core_of)
@takes_settings_of(
    language_model_of,
    *("embedding_dropout", "input_dropout", "output_dropout", "auxiliary_weight", "history"),
    *("activation_regularization", "temporal_activation_regularization", "name"),
)
def language_model(
    *,
    vocabulary_size: int,
    embedding_dim: int,
    head: str = "tied",
    experts: int = 15,
    latent_dropout: float = 0.0,
    cutoffs: Sequence[int] = (),
    carry_state: bool = False,
    seed: int | None = None,
    **settings,
) -> LanguageModel:
    """Builds a TrellisNet language model.

    Args:
        vocabulary_size: number of tokens.
        embedding_dim: width of the embedding.
        head: `"tied"`, `"softmax"`, `"mixture"` (tied mixture of softmaxes) or `"adaptive"` (tied
            split softmax).
        experts: softmaxes of the mixture.
        latent_dropout: dropout of the mixture's latent vectors.
        cutoffs: ends of all but the last split of the adaptive softmax.
        carry_state: repackage the state from window to window.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(state="history" if carry_state else "exact", seed=seed, **own)
    if head == "mixture":
        options["head"] = MixtureOfSoftmaxes(
            vocabulary_size,
            experts=experts,
            embedding_dim=embedding_dim,
            latent_dropout=latent_dropout,
            dtype=core.dtype_policy,
            name="head",
        )
    else:
        options["head"] = split_head(head, vocabulary_size, cutoffs, core.dtype_policy, "mixture")
    options["carry_state"] = carry_state
    return language_model_of(core, vocabulary_size, embedding_dim, seed=seed, **options)


@takes_settings_of(core_of)
@takes_settings_of(
    classifier_of,
    "pooling",
    *("vocabulary_size", "embedding_dim", "return_sequences", "input_dropout", "output_dropout"),
    *("auxiliary_weight", "name"),
)
def sequence_reader(
    *,
    features: int | None = None,
    classes: int | None = None,
    outputs: int | None = None,
    dilation_rate: int | Sequence[int] = PIXEL_DILATIONS,
    weight_normalization: bool = True,
    seed: int | None = None,
    **settings,
) -> SequenceClassifier | SequenceRegressor:
    """Builds a TrellisNet that reads a whole sequence: a classifier, or a regressor where `outputs`
    is given.

    Args:
        features: width of float inputs.
        classes: classes of a classifier.
        outputs: values of a regressor.
        dilation_rate: dilation of all levels, or a cycle over them.
        weight_normalization: normalise the kernels.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    if (classes is None) == (outputs is None):
        raise ValueError(
            "Either `classes` or `outputs` must be given. "
            f"Received: classes={classes}, outputs={outputs}."
        )
    own, options = split_settings(settings, core_of)
    own |= {"dilation_rate": dilation_rate, "weight_normalization": weight_normalization}
    core = core_of(seed=seed, **own)
    if classes is not None:
        return classifier_of(core, classes, features, seed=seed, **options)
    return regressor_of(core, outputs or 1, features, seed=seed, **options)


# What Table 5 and the scripts disagree in. A script's `horizon` is its number of levels, and gives
# the windows; those of the paper's variants are ours, made in the same way.


Both = Mapping[str, tuple[Any, Any]]  # what Table 5 has, and the script


def variants_of(both: Both) -> dict[str, dict[str, Any]]:
    """The variants with the one's values and the other's."""
    paper = {key: values[0] for key, values in both.items()}
    released = {key: values[1] for key, values in both.items()}
    return {"paper": paper, "released": released}


def differences(both: Both) -> str:
    """Says of each value whose it is."""
    cells = (
        f"{key.split('.')[-1]} {paper:g} / {released:g}"
        for key, (paper, released) in both.items()
        if key not in ("parameters", "model.history", "data.length", "data.history")
    )
    return f"Table 5 of the paper / default of the released script: {', '.join(cells)}. "


def choice(taken: str) -> str:
    """Says which of the two a recipe has."""
    other = {"paper": "released", "released": "paper"}[taken]
    whose = {"paper": "those of Table 5", "released": "the script's"}
    return (
        f"The values here are {whose[taken]}, as in variant='{taken}'; variant='{other}' has the "
        "others. "
    )


# Penn Treebank, words (Table 1; settings: Table 5, first column, and word_PTB)

FAMILY: dict[str, Any] = {"family": "trellisnet", "paper": PAPER}
LANGUAGE: dict[str, Any] = {"task": "language_model", **FAMILY}
PTB_WORD: dict[str, Any] = {
    "vocabulary_size": 10_000,
    "embedding_dim": 400,
    "units": 1000,
    "output_units": 400,
    "levels": 55,
    "embedding_dropout": 0.1,
    "input_dropout": 0.45,
    "hidden_dropout": 0.28,
    "output_dropout": 0.45,
    "weight_dropout": 0.5,
    "auxiliary_weight": 0.05,
    "activation_regularization": 2.0,
    "temporal_activation_regularization": 1.0,
}
PTB_WORD_VALUES: Both = {
    "model.levels": (55, 58),
    "model.auxiliary_frequency": (16, 12),
    "optimizer.l2": (1e-6, 1.2e-6),
    "model.history": (55, 58),
    "data.length": (55, 52),
    "data.history": (55, 58),
}

PTB_WORD_TRAINING: dict[str, Any] = {
    "data": DataSpec("ptb_word", batch_size=16, eval_batch_size=12, length=55, history=55),
    "optimizer": OptimizerSpec("SGD", learning_rate=20.0, global_clipnorm=0.225),
    "schedule": ScheduleSpec("plateau", factor=0.25, patience=10, minimum=0.02),
    "epochs": 500,
}
LARGER_NOTE = (
    "The paper gives only the total of {} and no settings of its own: the width that reaches it is "
    "ours, the rest that of {}. "
)

register(
    language_model,
    Recipe(
        name="trellisnet_ptb_word",
        summary="Word-level language model on Penn Treebank.",
        **LANGUAGE,
        model=PTB_WORD,
        reported=Reported("perplexity", 56.97, "TrellisNet paper, Table 1", "24M"),
        parameters=24_175_600,
        variants=variants_of(PTB_WORD_VALUES),
        notes=differences(PTB_WORD_VALUES)
        + choice("paper")
        + "Both have the same number of parameters.",
        **PTB_WORD_TRAINING,
    ).variant("paper"),
    Recipe(
        name="trellisnet_ptb_word_large",
        summary="The 1.4 times larger word-level language model on Penn Treebank.",
        **LANGUAGE,
        model={**PTB_WORD, "units": 1310},
        reported=Reported("perplexity", 56.80, "TrellisNet paper, Table 1", "33M"),
        parameters=32_881_640,
        variants=variants_of(PTB_WORD_VALUES),
        notes=LARGER_NOTE.format("33M", "trellisnet_ptb_word")
        + differences(PTB_WORD_VALUES)
        + choice("paper"),
        **PTB_WORD_TRAINING,
    ).variant("paper"),
)


# The same with a mixture of softmaxes (Table 1; settings: Table 5, second column, and word_PTB)

PTB_WORD_MOS = {
    **PTB_WORD,
    "embedding_dim": 280,
    "output_units": 480,
    "head": "mixture",
    "experts": 15,
    "latent_dropout": 0.29,
}
MOS_LARGE_VALUES: Both = {
    **PTB_WORD_VALUES,
    "model.embedding_dropout": (0.05, 0.1),
    "model.output_dropout": (0.4, 0.45),
    "model.weight_dropout": (0.45, 0.5),
    "optimizer.global_clipnorm": (0.2, 0.225),
}
MOS_VALUES: Both = {
    **MOS_LARGE_VALUES,
    "model.embedding_dim": (280, 400),
    "model.output_units": (480, 400),
    "parameters": (25_681_735, 26_587_615),
}

register(
    language_model,
    Recipe(
        name="trellisnet_ptb_word_mos",
        summary="Word-level language model on Penn Treebank with a mixture of 15 softmaxes.",
        **LANGUAGE,
        model=PTB_WORD_MOS,
        reported=Reported("perplexity", 54.67, "TrellisNet paper, Table 1", "25M"),
        parameters=25_681_735,
        variants=variants_of(MOS_VALUES),
        notes=differences(MOS_VALUES)
        + choice("paper")
        + "The script's defaults are those of the model without a mixture; its variant is the 15 "
        "experts of Table 5 with them. The dropout of the latent vectors is the script's; Table 5 "
        "has no row for it.",
        **PTB_WORD_TRAINING,
    ).variant("paper"),
    Recipe(
        name="trellisnet_ptb_word_mos_large",
        summary="The 1.4 times larger language model on Penn Treebank with a mixture of 15 "
        "softmaxes.",
        **LANGUAGE,
        model={**PTB_WORD_MOS, "units": 1290},
        reported=Reported("perplexity", 54.19, "TrellisNet paper, Table 1", "34M"),
        parameters=33_872_495,
        variants=variants_of(MOS_LARGE_VALUES),
        notes=LARGER_NOTE.format("34M", "trellisnet_ptb_word_mos")
        + differences(MOS_LARGE_VALUES)
        + choice("paper")
        + "Both have the table's widths of 280 and 480.",
        **PTB_WORD_TRAINING,
    ).variant("paper"),
)


# WikiText-103 (Table 2; settings: Table 5, third column, and word_WT103)

WT103_VALUES: Both = {
    "model.units": (2000, 1600),
    "model.levels": (70, 75),
    "model.weight_dropout": (0.1, 0.0),
    "model.auxiliary_weight": (0.08, 0.1),
    "optimizer.global_clipnorm": (0.1, 0.07),
    "data.length": (70, 75),
    "parameters": (198_150_042, 181_710_042),
}

register(
    language_model,
    Recipe(
        name="trellisnet_wt103",
        summary="Word-level language model on WikiText-103 with a tied adaptive softmax.",
        **LANGUAGE,
        model={
            "vocabulary_size": 267_735,
            "embedding_dim": 512,
            "units": 1600,
            "output_units": 512,
            "levels": 75,
            "head": "adaptive",
            "cutoffs": [2800, 20_000, 76_000],
            "weight_normalization": True,
            "input_dropout": 0.1,
            "hidden_dropout": 0.1,
            "output_dropout": 0.1,
            "auxiliary_frequency": 25,
            "carry_state": True,
        },
        data=DataSpec("wikitext103", batch_size=40, eval_batch_size=1, length=75),
        optimizer=OptimizerSpec("Adam", learning_rate=1e-3),
        # After epochs 15 and 20, as the script does it.
        schedule=ScheduleSpec("milestones", factor=0.1, milestones=(16, 21), minimum=1e-5),
        epochs=25,
        reported=Reported("perplexity", 29.19, "TrellisNet paper, Table 2", "180M"),
        parameters=181_710_042,
        variants=variants_of(WT103_VALUES),
        notes=differences(WT103_VALUES)
        + choice("released")
        + "The script's width gives the reported 180M; that of Table 5 gives 198M. The tail "
        "vectors and biases of the adaptive softmax (1,539) belong to the criterion in the release "
        "and are counted here. The script also lowers the rate after an epoch that is worse than "
        "one more than five epochs before; here only the milestones do.",
    ).variant("released"),
)


# Penn Treebank, characters (Table 3; settings: Table 5, fourth column, and char_PTB)

PTB_CHAR_VALUES: Both = {
    "model.units": (1000, 1050),
    "model.levels": (125, 140),
    "model.embedding_dropout": (0.0, 0.02),
    "model.hidden_dropout": (0.3, 0.29),
    "model.weight_dropout": (0.25, 0.26),
    "model.auxiliary_frequency": (70, 80),
    "optimizer.l2": (1e-6, 8e-7),
    "data.length": (125, 140),
    "parameters": (13_464_450, 14_525_050),
}

register(
    language_model,
    Recipe(
        name="trellisnet_ptb_char",
        summary="Character-level language model on Penn Treebank.",
        **LANGUAGE,
        model={
            "vocabulary_size": 50,
            "embedding_dim": 200,
            "units": 1000,
            "output_units": 200,
            "levels": 125,
            "weight_normalization": True,
            "input_dropout": 0.1,
            "output_dropout": 0.1,
            "auxiliary_weight": 0.3,
            "carry_state": True,
        },
        data=DataSpec("ptb_char", batch_size=24, eval_batch_size=10, length=125),
        optimizer=OptimizerSpec("Adam", learning_rate=2e-3, global_clipnorm=0.2),
        # After epochs 220 and 350, as the script does it.
        schedule=ScheduleSpec("milestones", factor=0.1, milestones=(221, 351), minimum=1e-5),
        epochs=400,
        reported=Reported("bits_per_character", 1.158, "TrellisNet paper, Table 3", "13.4M"),
        parameters=13_464_450,
        variants=variants_of(PTB_CHAR_VALUES),
        notes=differences(PTB_CHAR_VALUES)
        + choice("paper")
        + "The width of Table 5 gives the reported 13.4M, that of the script 14.5M.",
    ).variant("paper"),
)


# Pixels (Table 4; settings: Table 5, last column, and seq_MNIST_CIFAR)

PIXELS = {
    "features": 1,
    "classes": 10,
    "units": 1000,
    "output_units": 10,
    "levels": 11,
    "dilation_rate": list(PIXEL_DILATIONS),
    "weight_normalization": True,
    "input_dropout": 0.2,
    "hidden_dropout": 0.2,
    "weight_dropout": 0.1,
}
PIXELS_VALUES: Both = {
    "model.units": (100, 120),
    "model.levels": (16, 11),
    "model.output_dropout": (0.2, 0.1),
    "optimizer.learning_rate": (2e-3, 4e-3),
    "optimizer.l2": (1e-6, 0.0),
}


def _pixels(
    name: str, summary: str, accuracy: float, features: int, counts: tuple[int, int, int]
) -> Recipe:
    """A row of Table 4; the numbers of parameters here, with the table's width and the script's."""
    here, paper, released = counts
    recipe = Recipe(
        name=f"trellisnet_{name}",
        task="sequence_classifier",
        summary=summary,
        **FAMILY,
        model={**PIXELS, "features": features},
        data=DataSpec(name, batch_size=64),
        optimizer=OptimizerSpec("Adam", learning_rate=4e-3, global_clipnorm=0.5),
        # After epochs 50, 75 and 90, as the script does it.
        schedule=ScheduleSpec("milestones", factor=0.1, milestones=(51, 76, 91)),
        epochs=200,
        reported=Reported("accuracy", accuracy, "TrellisNet paper, Table 4", "8M"),
        parameters=here,
        variants=variants_of({**PIXELS_VALUES, "parameters": (paper, released)}),
        notes=differences(PIXELS_VALUES) + "Neither width gives the reported 8M "
        f"({paper:,} and {released:,} parameters); 1000 units do. The values here are the script's "
        "with this width, which is ours. The paper does not give the dilations of its 16 layers; "
        "variant='paper' repeats those of the script. The script's dropout of the input and of the "
        "logits stays on in evaluation, by mistake, here it does not; and the script never hands "
        "its weight decay to the optimizer.",
    )
    changes = {"model.units": 1000, "parameters": here}
    return recipe.variant("released").replace(**changes)


register(
    sequence_reader,
    _pixels(
        "seq_mnist",
        "MNIST digits, read pixel by pixel.",
        99.20,
        features=1,
        counts=(8_181_110, 99_110, 137_910),
    ),
    _pixels(
        "perm_mnist",
        "MNIST digits, read pixel by pixel in a fixed random order.",
        98.13,
        features=1,
        counts=(8_181_110, 99_110, 137_910),
    ),
    _pixels(
        "seq_cifar10",
        "CIFAR-10 images, read pixel by pixel.",
        73.42,
        features=3,
        counts=(8_197_270, 100_870, 139_990),
    ),
)


# Long-memory tasks (Hochreiter and Schmidhuber, 1997, in the form of Bai et al., 2018). The paper
# has no such rows.

MEMORY: dict[str, Any] = {
    "optimizer": OptimizerSpec("Adam", learning_rate=2e-3, global_clipnorm=0.5),
    "notes": "A task of Bai et al., 2018, with settings of ours; the TrellisNet paper does not "
    "report it.",
}

register(
    sequence_reader,
    Recipe(
        name="trellisnet_copy_memory",
        task="sequence_classifier",
        summary="Recall ten symbols after a long delay.",
        **FAMILY,
        model={
            "vocabulary_size": 10,
            "embedding_dim": 10,
            "classes": 10,
            "return_sequences": True,
            "units": 90,
            "output_units": 10,
            "levels": 11,
            "dilation_rate": list(PIXEL_DILATIONS),
        },
        data=DataSpec("copy_memory", batch_size=32, options={"delay": 500}),
        epochs=20,
        reported=Reported("accuracy", None, "no figure in the paper", ""),
        parameters=89_410,
        **MEMORY,
    ),
    Recipe(
        name="trellisnet_adding",
        task="sequence_regressor",
        summary="Add two marked numbers of a long sequence.",
        **FAMILY,
        model={
            "features": 2,
            "outputs": 1,
            "units": 60,
            "output_units": 20,
            "levels": 11,
            "dilation_rate": list(PIXEL_DILATIONS),
        },
        data=DataSpec("adding", batch_size=32, length=600),
        epochs=10,
        monitor="val_mse",
        reported=Reported("mse", None, "no figure in the paper", ""),
        parameters=53_461,
        **MEMORY,
    ),
)


# The default of `keras-seq train`

register(
    language_model,
    Recipe(
        name="trellisnet_python_docs",
        model={
            "vocabulary_size": PYTHON_DOCS_CHARACTERS,
            "embedding_dim": 64,
            "units": 32,
            "output_units": 64,
            "levels": 6,
            "weight_normalization": True,
            "carry_state": True,
        },
        jit_compile=True,
        parameters=130_467,
        notes="Settings of ours, for a first run in minutes on two CPU cores.",
        **python_docs(1e-2),
        **LANGUAGE,
    ),
)


# Japanese vowels

register(
    sequence_reader,
    Recipe(
        name="trellisnet_japanese_vowels",
        **FAMILY,
        model={
            **VOWELS,
            "units": 32,
            "output_units": 32,
            "levels": 6,
            "dilation_rate": 1,
            "hidden_dropout": 0.1,
            "output_dropout": 0.3,
        },
        parameters=39_977,
        **JAPANESE_VOWELS,
    ),
)
