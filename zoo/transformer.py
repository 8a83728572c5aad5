"""Transformers as causal encoders: baselines of the R-Transformer paper, and their recipes.

Widths, depths and training are those of the R-Transformer models that they are compared with; what
they lack is the windowed recurrence, and what they have more are the positions.
"""

from typing import Any

from keras_seq.layers import Transformer
from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier
from keras_seq.zoo import r_transformer as r_transformer  # its protocols are used here
from keras_seq.zoo._around_core import (
    after,
    classifier_of,
    frame_model_of,
    language_model_of,
    policy_of,
    protocol_of,
)
from keras_seq.zoo.recipe import DataSpec, OptimizerSpec, Recipe, Reported, ScheduleSpec
from keras_seq.zoo.registry import entry, forwards_to

PAPER = (
    "Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin: Attention Is All You "
    "Need. NeurIPS 2017."
)


def _core(dtype: str | None, seed: int | None, **settings: Any) -> Transformer:
    return Transformer(**settings, seed=seed, dtype=policy_of(dtype), name="transformer")


def language_model(
    *,
    vocabulary_size: int,
    units: int,
    levels: int,
    heads: int,
    inner_units: int | None = None,
    dropout: float = 0.0,
    embedding_value_dropout: float = 0.0,
    norm_order: str = "pre",
    scale_input: bool = True,
    span: int | None = None,
    head: str = "tied",
    history: int = 0,
    carry_state: bool = False,
    dtype: str | None = None,
    seed: int | None = None,
    name: str | None = None,
) -> LanguageModel:
    """Builds a Transformer language model.

    Args:
        vocabulary_size: number of tokens.
        units: width of the embedding and of all blocks.
        levels: number of blocks.
        heads: attention heads.
        inner_units: inner width of the feed-forward networks; `None` for `4 * units`.
        dropout: rate in the blocks.
        embedding_value_dropout: rate for single values of the embedded tokens with their positions.
        norm_order: `"pre"` or `"post"`.
        scale_input: multiply the embedding by the square root of `units`.
        span: steps that attention sees; `None` for all.
        head: `"tied"` or `"softmax"`.
        history: leading steps of a window without loss.
        carry_state: carry the state from window to window; needs a `span`.
        dtype: a dtype policy; `None` for Keras' current one.
        seed: seed of initialisation and dropout.
        name: the model's name.
    """
    core = _core(
        dtype,
        seed,
        units=units,
        levels=levels,
        heads=heads,
        inner_units=inner_units,
        dropout=dropout,
        input_dropout=embedding_value_dropout,
        norm_order=norm_order,
        scale_input=scale_input,
        span=span,
        project_input=False,
    )
    return language_model_of(
        core,
        vocabulary_size,
        units,
        head=head,
        history=history,
        carry_state=carry_state,
        seed=after(seed),
        name=name,
    )


def sequence_classifier(
    *,
    features: int,
    classes: int,
    units: int,
    levels: int,
    heads: int,
    inner_units: int | None = None,
    dropout: float = 0.0,
    norm_order: str = "pre",
    span: int | None = None,
    dtype: str | None = None,
    seed: int | None = None,
    name: str | None = None,
) -> SequenceClassifier:
    """Builds a Transformer that classifies sequences of vectors at their last step.

    Args:
        features: width of the inputs.
        classes: number of classes.
        units: width of all blocks.
        levels: number of blocks.
        heads: attention heads.
        inner_units: inner width of the feed-forward networks; `None` for `4 * units`.
        dropout: rate in the blocks.
        norm_order: `"pre"` or `"post"`.
        span: steps that attention sees; `None` for all.
        dtype: a dtype policy; `None` for Keras' current one.
        seed: seed of initialisation and dropout.
        name: the model's name.
    """
    core = _core(
        dtype,
        seed,
        units=units,
        levels=levels,
        heads=heads,
        inner_units=inner_units,
        dropout=dropout,
        norm_order=norm_order,
        span=span,
        project_input=True,
    )
    return classifier_of(core, features, classes, seed=after(seed), name=name)


def frame_model(
    *,
    notes: int = 88,
    units: int,
    levels: int,
    heads: int,
    inner_units: int | None = None,
    dropout: float = 0.0,
    norm_order: str = "pre",
    span: int | None = None,
    sum_over_time: bool = False,
    dtype: str | None = None,
    seed: int | None = None,
    name: str | None = None,
) -> FrameModel:
    """Builds a Transformer that predicts the notes of the next frame.

    Args:
        notes: width of a frame.
        units: width of all blocks.
        levels: number of blocks.
        heads: attention heads.
        inner_units: inner width of the feed-forward networks; `None` for `4 * units`.
        dropout: rate in the blocks.
        norm_order: `"pre"` or `"post"`.
        span: steps that attention sees; `None` for all.
        sum_over_time: minimise the sum over the frames of a tune, not their mean.
        dtype: a dtype policy; `None` for Keras' current one.
        seed: seed of initialisation and dropout.
        name: the model's name.
    """
    core = _core(
        dtype,
        seed,
        units=units,
        levels=levels,
        heads=heads,
        inner_units=inner_units,
        dropout=dropout,
        norm_order=norm_order,
        span=span,
        project_input=True,
    )
    return frame_model_of(core, notes, sum_over_time=sum_over_time, seed=after(seed), name=name)


SIZES_NOTE = (
    "The R-Transformer paper gives layers and width, and says that heads, optimizer and the choice "
    "of rates are those of its own model (section 4): all else is that of {}. Normalisation stands "
    "before each sublayer. "
)


@entry(
    Recipe(
        name="transformer_seq_mnist",
        family="transformer",
        task="sequence_classifier",
        summary="MNIST digits, read pixel by pixel.",
        paper=PAPER,
        model={
            "features": 1,
            "classes": 10,
            "units": 32,
            "levels": 8,
            "heads": 2,
            "dropout": 0.05,
            "span": 784,
        },
        **protocol_of("rtransformer_seq_mnist"),
        reported=Reported("accuracy", 98.2, "R-Transformer paper, Table 1", "8 layers of 32"),
        parameters=102_090,
        notes=SIZES_NOTE.format("rtransformer_seq_mnist"),
    )
)
@forwards_to(sequence_classifier)
def transformer_seq_mnist(**settings) -> SequenceClassifier:
    """Transformer for sequential MNIST: 8 blocks of width 32, 98.2% test accuracy (Table 1)."""
    return sequence_classifier(**settings)


@entry(
    Recipe(
        name="transformer_nottingham",
        family="transformer",
        task="frame_model",
        summary="Polyphonic music, under the protocol of rtransformer_nottingham.",
        paper=PAPER,
        model={
            "notes": 88,
            "units": 160,
            "levels": 3,
            "heads": 4,
            "dropout": 0.2,
            "span": 1792,  # the longest tune less its last frame
        },
        **protocol_of("rtransformer_nottingham"),
        reported=Reported("nll_per_frame", 3.34, "R-Transformer paper, Table 2", "3 layers of 160"),
        parameters=956_568,
        notes=SIZES_NOTE.format("rtransformer_nottingham")
        + "The dropout of 0.2 is ours, the paper's is 0.1 (section 4.2).",
    )
)
@forwards_to(frame_model)
def transformer_nottingham(**settings) -> FrameModel:
    """Transformer for the Nottingham tunes: 3 blocks of width 160, 3.34 nats a frame (Table 2)."""
    return frame_model(**settings)


@entry(
    Recipe(
        name="transformer_ptb_char",
        family="transformer",
        task="language_model",
        summary="Character-level language model on Penn Treebank.",
        paper=PAPER,
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
        **protocol_of("rtransformer_ptb_char"),
        reported=Reported(
            "bits_per_character", 1.34, "R-Transformer paper, Table 3", "3 layers of 512"
        ),
        parameters=9_483_826,
        notes=SIZES_NOTE.format("rtransformer_ptb_char")
        + "The figure is that of the text submitted to ICLR 2020; another version of the paper has "
        "1.45.",
    )
)
@forwards_to(language_model)
def transformer_ptb_char(**settings) -> LanguageModel:
    """Transformer for characters of Penn Treebank: 3 blocks of width 512, 1.34 bits (Table 3)."""
    return language_model(**settings)


@entry(
    Recipe(
        name="transformer_ptb_word",
        family="transformer",
        task="language_model",
        summary="Word-level language model on Penn Treebank.",
        paper=PAPER,
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
        **protocol_of("rtransformer_ptb_word"),
        reported=Reported("perplexity", 122.37, "R-Transformer paper, Table 4", "3 layers of 128"),
        parameters=1_885_072,
        notes=SIZES_NOTE.format("rtransformer_ptb_word"),
    )
)
@forwards_to(language_model)
def transformer_ptb_word(**settings) -> LanguageModel:
    """Transformer for words of Penn Treebank: 3 blocks of width 128, 122.37 perplexity (Table
    4)."""
    return language_model(**settings)


@entry(
    Recipe(
        name="transformer_python_docs",
        family="transformer",
        task="language_model",
        summary="Small character-level language model on the documentation that ships with Python.",
        paper=PAPER,
        model={
            "vocabulary_size": 99,  # with Python 3.11; training takes it from the data
            "units": 96,
            "levels": 3,
            "heads": 4,
            "span": 128,
            "history": 64,
        },
        data=DataSpec("python_docs_char", batch_size=16, eval_batch_size=8, length=64, history=64),
        optimizer=OptimizerSpec("Adam", learning_rate=3e-3, global_clipnorm=1.0),
        schedule=ScheduleSpec("cosine", minimum=1e-4, warmup=0.05),
        epochs=6,
        reported=Reported("bits_per_character", None, "no figure in the paper", ""),
        parameters=345_315,
        notes="Settings of ours. The state is not carried from window to window, since positions "
        "would grow far beyond those of a window: 64 characters of context come before the 64 that "
        "carry loss. A text that is much longer than 128 characters leaves the trained positions.",
    )
)
@forwards_to(language_model)
def transformer_python_docs(**settings) -> LanguageModel:
    """A small character-level Transformer on Python's own documentation; settings of ours."""
    return language_model(**settings)
