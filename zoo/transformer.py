"""Transformers as causal encoders: baselines of the R-Transformer paper, and their recipes.

Widths, depths and training are those of the R-Transformer models that they are compared with; what
they lack is the windowed recurrence, and what they have more are the positions.
"""

from typing import Any

from keras_seq.layers import Transformer
from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier
from keras_seq.zoo.builders import classifier_of, frame_model_of, language_model_of, policy_of
from keras_seq.zoo.protocols import (
    JAPANESE_VOWELS,
    PYTHON_DOCS_CHARACTERS,
    VOWELS,
    python_docs,
)
from keras_seq.zoo.r_transformer import NOTTINGHAM, PTB_CHAR, PTB_WORD, SEQ_MNIST
from keras_seq.zoo.recipe import Recipe, Reported
from keras_seq.zoo.registry import register
from keras_seq.zoo.settings import split_settings, takes_settings_of

PAPER = (
    "Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin: Attention Is All You "
    "Need. NeurIPS 2017."
)


def core_of(
    *,
    units: int,
    levels: int,
    heads: int,
    inner_units: int | None = None,
    dropout: float = 0.0,
    norm_order: str = "pre",
    span: int | None = None,
    dtype: str | None = None,
    seed: int | None = None,
    **options: Any,
) -> Transformer:
    """Makes the encoder.

    Args:
        units: width of all blocks.
        levels: number of blocks.
        heads: attention heads.
        inner_units: inner width of the feed-forward networks; `None` for `4 * units`.
        dropout: rate in the blocks.
        norm_order: `"pre"` or `"post"`.
        span: steps that attention sees; `None` for all. A state that is carried needs one.
        dtype: a dtype policy; `None` for Keras' current one.
        seed: seed of initialisation and dropout.
        **options: further arguments of `Transformer`.
    """
    return Transformer(
        units,
        levels,
        heads,
        inner_units,
        dropout,
        norm_order=norm_order,
        span=span,
        seed=seed,
        dtype=policy_of(dtype),
        name="transformer",
        **options,
    )


@takes_settings_of(core_of)
@takes_settings_of(language_model_of, "head", "history", "carry_state", "name")
def language_model(
    *,
    vocabulary_size: int,
    units: int,
    embedding_value_dropout: float = 0.0,
    scale_input: bool = True,
    seed: int | None = None,
    **settings,
) -> LanguageModel:
    """Builds a Transformer language model.

    Args:
        vocabulary_size: number of tokens.
        units: width of the embedding and of all blocks.
        embedding_value_dropout: rate for single values of the embedded tokens with their positions.
        scale_input: multiply the embedding by the square root of `units`.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(
        units=units,
        input_dropout=embedding_value_dropout,
        scale_input=scale_input,
        project_input=False,
        seed=seed,
        **own,
    )
    return language_model_of(core, vocabulary_size, units, seed=seed, **options)


@takes_settings_of(core_of)
@takes_settings_of(classifier_of, "pooling", "name")
def sequence_classifier(
    *, features: int, classes: int, seed: int | None = None, **settings
) -> SequenceClassifier:
    """Builds a Transformer that classifies sequences of vectors at their last step.

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
@takes_settings_of(frame_model_of, "sum_over_time", "name")
def frame_model(*, notes: int = 88, seed: int | None = None, **settings) -> FrameModel:
    """Builds a Transformer that predicts the notes of the next frame.

    Args:
        notes: width of a frame.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(project_input=True, seed=seed, **own)
    return frame_model_of(core, notes, seed=seed, **options)


FAMILY: dict[str, Any] = {"family": "transformer", "paper": PAPER}
LANGUAGE: dict[str, Any] = {"task": "language_model", **FAMILY}
SIZES_NOTE = (
    "The R-Transformer paper gives layers and width, and says that heads, optimizer and the choice "
    "of rates are those of its own model (section 4): all else is that of {}. Normalisation stands "
    "before each sublayer. "
)

register(
    sequence_classifier,
    Recipe(
        name="transformer_seq_mnist",
        task="sequence_classifier",
        summary="MNIST digits, read pixel by pixel.",
        **FAMILY,
        model={
            "features": 1,
            "classes": 10,
            "units": 32,
            "levels": 8,
            "heads": 2,
            "dropout": 0.05,
            "span": 784,
        },
        **SEQ_MNIST,
        reported=Reported("accuracy", 98.2, "R-Transformer paper, Table 1", "8 layers of 32"),
        parameters=102_090,
        notes=SIZES_NOTE.format("rtransformer_seq_mnist"),
    ),
)

register(
    frame_model,
    Recipe(
        name="transformer_nottingham",
        task="frame_model",
        summary="Polyphonic music, under the protocol of rtransformer_nottingham.",
        **FAMILY,
        model={
            "notes": 88,
            "units": 160,
            "levels": 3,
            "heads": 4,
            "dropout": 0.2,
            "span": 1792,  # the longest tune less its last frame
        },
        **NOTTINGHAM,
        reported=Reported("nll_per_frame", 3.34, "R-Transformer paper, Table 2", "3 layers of 160"),
        parameters=956_568,
        notes=SIZES_NOTE.format("rtransformer_nottingham")
        + "The dropout of 0.2 is ours, the paper's is 0.1 (section 4.2).",
    ),
)

register(
    language_model,
    Recipe(
        name="transformer_ptb_char",
        summary="Character-level language model on Penn Treebank.",
        **LANGUAGE,
        model={
            "vocabulary_size": 50,
            "units": 512,
            "levels": 3,
            "heads": 8,
            "dropout": 0.15,
            "embedding_value_dropout": 0.15,
            "span": 400,
            "history": 80,
        },
        **PTB_CHAR,
        reported=Reported(
            "bits_per_character", 1.34, "R-Transformer paper, Table 3", "3 layers of 512"
        ),
        parameters=9_483_826,
        notes=SIZES_NOTE.format("rtransformer_ptb_char")
        + "The figure is that of the text submitted to ICLR 2020; another version of the paper has "
        "1.45.",
    ),
    Recipe(
        name="transformer_ptb_word",
        summary="Word-level language model on Penn Treebank.",
        **LANGUAGE,
        model={
            "vocabulary_size": 10_000,
            "units": 128,
            "levels": 3,
            "heads": 8,
            "dropout": 0.35,
            "embedding_value_dropout": 0.15,
            "span": 80,
            "history": 40,
        },
        **PTB_WORD,
        reported=Reported("perplexity", 122.37, "R-Transformer paper, Table 4", "3 layers of 128"),
        parameters=1_885_072,
        notes=SIZES_NOTE.format("rtransformer_ptb_word"),
    ),
    Recipe(
        name="transformer_python_docs",
        model={
            "vocabulary_size": PYTHON_DOCS_CHARACTERS,
            "units": 96,
            "levels": 3,
            "heads": 4,
            "span": 128,
            "history": 64,
        },
        parameters=345_315,
        notes="Settings of ours. The state is not carried from window to window, since positions "
        "would grow far beyond those of a window: 64 characters of context come before the 64 that "
        "carry loss. A text that is much longer than 128 characters leaves the trained positions.",
        **python_docs(3e-3, history=64),
        **LANGUAGE,
    ),
)


# Japanese vowels

register(
    sequence_classifier,
    Recipe(
        name="transformer_japanese_vowels",
        **FAMILY,
        model={
            **VOWELS,
            "units": 48,
            "levels": 2,
            "heads": 4,
            "dropout": 0.2,
            "span": 29,
        },
        parameters=57_705,
        **JAPANESE_VOWELS,
    ),
)
