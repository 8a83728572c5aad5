"""Transformer-XL language models: baselines of the R-Transformer and DEQ papers, and their recipes.

The WikiText-103 settings are those of the released script of the base model; the others are ours.
"""

from collections.abc import Sequence
from typing import Any

import keras

from keras_seq.layers import AdaptiveEmbedding, AdaptiveSoftmax, TransformerXL
from keras_seq.models import LanguageModel, SequenceClassifier
from keras_seq.zoo.builders import classifier_of, language_model_of, policy_of
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
    "Dai, Yang, Yang, Carbonell, Le, Salakhutdinov: Transformer-XL: Attentive Language Models "
    "Beyond a Fixed-Length Context. ACL 2019."
)


def core_of(
    *,
    levels: int,
    heads: int,
    inner_units: int,
    head_units: int | None = None,
    memory_length: int = 0,
    inference_memory_length: int | None = None,
    span: int | None = None,
    clamp_length: int | None = None,
    norm_order: str = "post",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    dtype: str | None = None,
    seed: int | None = None,
) -> TransformerXL:
    """Makes the levels.

    Args:
        levels: number of levels.
        heads: attention heads.
        inner_units: width of the feed-forward parts.
        head_units: width of a head; `None` for `units / heads`.
        memory_length: steps of the memory in training.
        inference_memory_length: steps of the memory in evaluation; `None` for those of training.
        span: how many steps a step sees at each level; `None` for all.
        clamp_length: distances beyond it count as it; `None` for none.
        norm_order: `"pre"` or `"post"`.
        dropout: rate of the dropout of values.
        attention_dropout: rate of the dropout of attention probabilities.
        dtype: a dtype policy; `None` for Keras' current one.
        seed: seed of initialisation and dropout.
    """
    return TransformerXL(
        levels,
        heads,
        inner_units,
        head_units=head_units,
        memory_length=memory_length,
        inference_memory_length=inference_memory_length,
        span=span,
        clamp_length=clamp_length,
        norm_order=norm_order,
        dropout=dropout,
        attention_dropout=attention_dropout,
        seed=seed,
        dtype=policy_of(dtype),
        name="transformer_xl",
    )


@takes_settings_of(core_of)
@takes_settings_of(language_model_of, "embedding_dropout", "name")
def language_model(
    *,
    vocabulary_size: int,
    units: int,
    head: str = "tied",
    cutoffs: Sequence[int] = (),
    div_value: float = 1,
    embedding_deviation: float = 0.02,
    carry_state: bool = True,
    seed: int | None = None,
    **settings,
) -> LanguageModel:
    """Builds a Transformer-XL language model.

    Args:
        vocabulary_size: number of tokens.
        units: width of the embedding and of all levels.
        head: `"tied"`, `"softmax"`, or `"adaptive"`: the adaptive softmax with the tables of the
            embedding.
        cutoffs: first ids of the clusters but the first, for `"adaptive"`.
        div_value: by how much vectors narrow from cluster to cluster.
        embedding_deviation: standard deviation of the word vectors at the start.
        carry_state: carry the memory from window to window.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(seed=seed, **own)
    policy = core.dtype_policy
    options |= {"head": head, "carry_state": carry_state}
    # The embedding also multiplies by the square root of the width, as the paper's code does.
    options["embedding"] = AdaptiveEmbedding(
        vocabulary_size,
        units,
        cutoffs=cutoffs if head == "adaptive" else (),
        div_value=div_value if head == "adaptive" else 1,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=embedding_deviation),
        dtype=policy,
        name="embedding",
    )
    if head == "adaptive":
        options["head"] = AdaptiveSoftmax(
            vocabulary_size,
            cutoffs=cutoffs,
            form="projected",
            tied=True,
            embedding_dim=units,
            div_value=div_value,
            tie_projections=True,
            dtype=policy,
            name="head",
        )
    return language_model_of(core, vocabulary_size, units, seed=seed, **options)


@takes_settings_of(core_of)
@takes_settings_of(classifier_of, "pooling", "input_dropout", "output_dropout", "name")
def sequence_classifier(
    *, features: int, classes: int, seed: int | None = None, **settings
) -> SequenceClassifier:
    """Builds a Transformer-XL that classifies sequences of vectors at their last step.

    Args:
        features: width of the inputs, and of all levels.
        classes: number of classes.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(seed=seed, **own)
    return classifier_of(core, classes, features, seed=seed, **options)


FAMILY: dict[str, Any] = {"family": "transformer_xl", "paper": PAPER}
LANGUAGE: dict[str, Any] = {"task": "language_model", **FAMILY}
START_NOTE = "Gains of the normalisations start at 1, those of the script from N(1, 0.02²)."

register(
    language_model,
    Recipe(
        name="transformer_xl_ptb_word",
        summary="Word-level language model on Penn Treebank.",
        **LANGUAGE,
        model={
            "vocabulary_size": 10_000,
            "units": 380,
            "levels": 16,
            "heads": 10,
            "head_units": 38,
            "inner_units": 700,
            "memory_length": 70,
            "span": 71,
            "dropout": 0.5,
            "attention_dropout": 0.2,
            "embedding_dropout": 0.2,
        },
        data=DataSpec("ptb_word", batch_size=20, eval_batch_size=10, length=70),
        optimizer=OptimizerSpec("Adam", learning_rate=2.5e-4, global_clipnorm=0.25),
        schedule=ScheduleSpec("cosine", warmup=0.02),
        epochs=300,
        reported=Reported("perplexity", 54.5, "Transformer-XL paper, abstract", "24M"),
        parameters=23_916_360,
        variants={
            "r_transformer": {
                "model.units": 128,
                "model.levels": 3,
                "model.heads": 8,
                "model.head_units": 16,
                "model.inner_units": 512,
                "model.dropout": 0.35,
                "model.attention_dropout": 0.0,
                "model.embedding_dropout": 0.0,
                "optimizer.learning_rate": 1e-3,
                "parameters": 1_932_688,
                "reported.value": 83.38,
                "reported.source": "R-Transformer paper, Table 4",
                "reported.size": "3 layers of 128",
            }
        },
        notes="No script of this model is released. Sizes are ours, for about the 24M parameters "
        "of the paper. variant='r_transformer' is the baseline of the R-Transformer paper: layers "
        "and width of Table 4, the best of its rates, no regulariser but dropout (section 4.3); "
        "heads, inner width and dropout are those of rtransformer_ptb_word. The Transformer-XL "
        "paper also has variational dropout and weight averaging as AWD-LSTM; neither is here, and "
        "the settings have not been trained to the end.",
    ),
    Recipe(
        name="transformer_xl_ptb_char",
        summary="Character-level language model on Penn Treebank.",
        **LANGUAGE,
        model={
            "vocabulary_size": 50,
            "units": 256,
            "levels": 6,
            "heads": 8,
            "inner_units": 1024,
            "memory_length": 320,
            "span": 321,
            "dropout": 0.15,
        },
        data=DataSpec("ptb_char", batch_size=16, length=160),
        optimizer=OptimizerSpec("Adam", learning_rate=2.5e-4, global_clipnorm=0.25),
        schedule=ScheduleSpec("cosine", warmup=0.02),
        epochs=30,
        reported=Reported("bits_per_character", None, "no figure in the paper", ""),
        parameters=5_138_994,
        notes="Settings of ours, which have not been trained to the end.",
    ),
    Recipe(
        name="transformer_xl_wt103",
        summary="Word-level language model on WikiText-103: the base model.",
        **LANGUAGE,
        model={
            "vocabulary_size": 267_735,
            "units": 410,
            "levels": 16,
            "heads": 10,
            "head_units": 41,
            "inner_units": 2100,
            "memory_length": 150,
            "dropout": 0.1,
            "head": "adaptive",
            "cutoffs": [20_000, 40_000, 200_000],
        },
        data=DataSpec("wikitext103", batch_size=60, eval_batch_size=10, length=150),
        optimizer=OptimizerSpec("Adam", learning_rate=2.5e-4, global_clipnorm=0.25),
        schedule=ScheduleSpec("cosine"),
        epochs=17,
        reported=Reported("perplexity", 24.03, "Transformer-XL repository, base model", "151M"),
        parameters=151_107_538,
        variants={
            "evaluation": {
                "model.inference_memory_length": 640,
                "model.span": 640,
                "model.clamp_length": 400,
                "data.length": 64,
                "data.eval_batch_size": 10,
            }
        },
        notes="Sizes and training of the released script of the base model; 200,000 steps are 17.4 "
        "epochs. The figure is that of an evaluation with a memory of 640 steps, of which, its own "
        "included, a step sees 640, and distances clamped at 400: `variant='evaluation'`. "
        + START_NOTE,
    ),
    Recipe(
        name="transformer_xl_enwik8",
        summary="Language model of the bytes of enwik8: the 12-layer model.",
        **LANGUAGE,
        model={
            "vocabulary_size": 204,
            "units": 512,
            "levels": 12,
            "heads": 8,
            "head_units": 64,
            "inner_units": 2048,
            "memory_length": 512,
            "dropout": 0.1,
        },
        data=DataSpec("text", batch_size=22, eval_batch_size=10, length=512),
        optimizer=OptimizerSpec("Adam", learning_rate=2.5e-4, global_clipnorm=0.25),
        schedule=ScheduleSpec("cosine"),
        epochs=50,
        reported=Reported("bits_per_character", 1.06, "Transformer-XL paper, Table 2", "41M"),
        parameters=41_055_436,
        variants={
            "evaluation": {
                "model.inference_memory_length": 2100,
                "model.span": 2100,
                "model.clamp_length": 820,
                "data.length": 80,
                "data.eval_batch_size": 10,
            }
        },
        notes="Sizes and training of the released script of the base model; 400,000 steps are 50 "
        "epochs of the usual 90 million bytes. Its symbols are bytes, of which 204 occur: write "
        "the bytes of train.txt, valid.txt and test.txt, in one folder, as UTF-8 first, as "
        "`iconv -f latin1 -t utf-8` does, and each is a character. The script evaluates with "
        "`variant='evaluation'`. " + START_NOTE,
    ),
    Recipe(
        name="transformer_xl_python_docs",
        model={
            "vocabulary_size": PYTHON_DOCS_CHARACTERS,
            "units": 96,
            "levels": 3,
            "heads": 4,
            "inner_units": 384,
            "memory_length": 63,
            "span": 64,
            "norm_order": "pre",
            "embedding_deviation": 0.01,
        },
        parameters=371_811,
        notes="Settings of ours. Each level looks back 63 steps, so that the memory holds all that "
        "a step sees and generation equals the full pass.",
        **python_docs(3e-3),
        **LANGUAGE,
    ),
)


# Japanese vowels

register(
    sequence_classifier,
    Recipe(
        name="transformer_xl_japanese_vowels",
        **FAMILY,
        model={
            **VOWELS,
            "levels": 2,
            "heads": 4,
            "head_units": 16,
            "inner_units": 96,
            "dropout": 0.1,
            "span": 29,
        },
        parameters=12_845,
        **JAPANESE_VOWELS,
    ),
)
