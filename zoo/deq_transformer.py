"""DEQ-Transformer: a transformer layer of infinite depth, as language models and on copy memory.

The WikiText-103 settings are those of the released code; the other models and their settings are
ours.
"""

from collections.abc import Sequence
from typing import Any

import keras

from keras_seq.layers import (
    AdaptiveEmbedding,
    AdaptiveSoftmax,
    DeepEquilibrium,
    DEQTransformerCell,
)
from keras_seq.models import LanguageModel, SequenceClassifier
from keras_seq.zoo.builders import classifier_of, language_model_of, policy_of
from keras_seq.zoo.equilibria import equilibrium_of
from keras_seq.zoo.protocols import (
    JAPANESE_VOWELS,
    PYTHON_DOCS_CHARACTERS,
    VOWELS,
    python_docs,
)
from keras_seq.zoo.recipe import DataSpec, OptimizerSpec, Recipe, Reported, ScheduleSpec
from keras_seq.zoo.registry import register
from keras_seq.zoo.settings import split_settings, takes_settings_of

PAPER = "Bai, Kolter, Koltun: Deep Equilibrium Models. NeurIPS 2019."


@takes_settings_of(equilibrium_of)
def core_of(
    *,
    units: int,
    heads: int,
    inner_units: int,
    memory_length: int = 0,
    inference_memory_length: int | None = None,
    span: int | None = None,
    norm_order: str = "post",
    weight_normalization: bool = True,
    hidden_dropout: float = 0.0,
    attention_dropout: float = 0.0,
    position_dropout: float = 0.0,
    kernel_deviation: float | None = None,
    injection_deviation: float | None = None,
    position_deviation: float | None = None,
    pretrain_levels: int = 2,
    dtype: str | None = None,
    seed: int | None = None,
    **solving: Any,
) -> DeepEquilibrium:
    """Builds the equilibrium of a transformer cell.

    Args:
        units: width.
        heads: heads of the attention.
        inner_units: width of the feed-forward part.
        memory_length: steps of the memory in training.
        inference_memory_length: steps of the memory in evaluation.
        span: how many steps a step sees.
        norm_order: `"pre"` or `"post"`.
        weight_normalization: normalise the kernels.
        hidden_dropout: variational rate within the cell.
        attention_dropout: rate for attention probabilities.
        position_dropout: rate for features of the positions.
        kernel_deviation: standard deviation of the kernels at the start, without weight
            normalisation; `None` for the cell's own.
        injection_deviation: that of the injection's kernel.
        position_deviation: that of the kernel of the positions.
        pretrain_levels: levels before the first solve, if there are any.
        dtype: a dtype policy; `None` for Keras' current one.
        seed: of initialisation and dropout.
        **solving: settings of `equilibrium_of`.
    """
    policy = policy_of(dtype)

    def normal(deviation):
        return None if deviation is None else keras.initializers.RandomNormal(stddev=deviation)

    cell = DEQTransformerCell(
        units,
        heads,
        inner_units,
        memory_length=memory_length,
        inference_memory_length=inference_memory_length,
        span=span,
        norm_order=norm_order,
        weight_normalization=weight_normalization,
        hidden_dropout=hidden_dropout,
        attention_dropout=attention_dropout,
        position_dropout=position_dropout,
        kernel_initializer=normal(kernel_deviation),
        injection_initializer=normal(injection_deviation),
        position_initializer=normal(position_deviation),
        seed=seed,
        dtype=policy,
        name="cell",
    )
    return equilibrium_of(cell, pretrain_levels=pretrain_levels, seed=seed, **solving)


@takes_settings_of(core_of)
@takes_settings_of(
    language_model_of, "input_dropout", "output_dropout", "auxiliary_weight", "carry_state"
)
def language_model(
    *,
    vocabulary_size: int,
    units: int,
    embedding_dim: int | None = None,
    head: str = "tied",
    cutoffs: Sequence[int] = (),
    div_value: float = 1,
    tie_projections: bool = False,
    seed: int | None = None,
    **settings,
) -> LanguageModel:
    """Builds a DEQ-Transformer language model.

    Args:
        vocabulary_size: number of tokens.
        units: width of the equilibrium.
        embedding_dim: width of the frequent words' vectors; `units` if not given.
        head: `"tied"`, `"softmax"`, or `"adaptive"`: adaptive embedding and the projected adaptive
            softmax tied to it.
        cutoffs: first ids of the clusters but the first, for `"adaptive"`.
        div_value: by how much vectors narrow from cluster to cluster.
        tie_projections: whether embedding and softmax share the projections of the clusters.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(units=units, seed=seed, **own)
    if head not in ("tied", "softmax", "adaptive"):
        raise ValueError(
            f"`head` must be 'tied', 'softmax' or 'adaptive'. Received: head={head!r}."
        )
    options["head"] = head
    width = units if embedding_dim is None else embedding_dim
    if head == "adaptive":
        adaptive = {
            "cutoffs": cutoffs,
            "embedding_dim": width,
            "div_value": div_value,
            "dtype": core.dtype_policy,
        }
        small = {"projection_initializer": keras.initializers.RandomNormal(stddev=0.01)}
        options["embedding"] = AdaptiveEmbedding(
            vocabulary_size,
            output_dim=units,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name="embedding",
            **small,
            **adaptive,
        )
        options["head"] = AdaptiveSoftmax(
            vocabulary_size,
            form="projected",
            tied=True,
            tie_projections=tie_projections,
            name="head",
            **small,
            **adaptive,
        )
        width = units  # what the core reads
    return language_model_of(core, vocabulary_size, width, seed=seed, **options)


@takes_settings_of(core_of)
@takes_settings_of(classifier_of, "pooling", "input_dropout", "output_dropout")
def sequence_classifier(
    *,
    vocabulary_size: int | None = None,
    embedding_dim: int | None = None,
    features: int | None = None,
    classes: int,
    return_sequences: bool = True,
    seed: int | None = None,
    **settings,
) -> SequenceClassifier:
    """Builds a DEQ-Transformer that classifies sequences of ids or vectors, or their steps.

    Args:
        vocabulary_size: values of integer inputs; `None` for vectors.
        embedding_dim: width of their embedding.
        features: width of vectors.
        classes: classes of a step.
        return_sequences: predict at every step, not at the last one.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(seed=seed, **own)
    options |= {"vocabulary_size": vocabulary_size, "embedding_dim": embedding_dim}
    options |= {"return_sequences": return_sequences, "seed": seed}
    return classifier_of(core, classes, features, **options)


FAMILY: dict[str, Any] = {"family": "deq_transformer", "paper": PAPER}
LANGUAGE: dict[str, Any] = {"task": "language_model", **FAMILY}

register(
    language_model,
    Recipe(
        name="deq_transformer_ptb_word",
        summary="Word-level language model on Penn Treebank: a transformer of infinite depth.",
        **LANGUAGE,
        model={
            "vocabulary_size": 10_000,
            "units": 480,
            "heads": 8,
            "inner_units": 18_000,
            "memory_length": 70,
            "input_dropout": 0.5,
            "hidden_dropout": 0.2,
            "attention_dropout": 0.1,
            "output_dropout": 0.5,
            "max_steps": 30,
            "inference_max_steps": 40,
            "pretrain_steps": 10_000,
            "pretrain_levels": 8,
            "carry_state": True,
        },
        data=DataSpec("ptb_word", batch_size=20, eval_batch_size=10, length=70),
        optimizer=OptimizerSpec("Adam", learning_rate=2.5e-4, global_clipnorm=0.25),
        schedule=ScheduleSpec("cosine", warmup=0.05),
        epochs=150,
        reported=Reported("perplexity", None, "no figure in the paper", ""),
        parameters=23_975_440,
        notes="The paper trains only its DEQ-TrellisNet on this data set. The size is that "
        "model's 24M; all settings are ours and have not been trained to the end.",
    ),
)


# WikiText-103: the released configurations.
_REGULARIZED: dict[str, Any] = {
    "model.input_dropout": 0.06,
    "model.hidden_dropout": 0.06,
    "model.position_dropout": 0.06,
    "model.output_dropout": 0.06,
    "model.attention_dropout": 0.01,
    "model.memory_length": 300,
    "reported.value": None,
    "reported.source": "release of the regularised models",
    "reported.size": "98M",
}

register(
    language_model,
    Recipe(
        name="deq_transformer_wt103",
        summary="Word-level language model on WikiText-103: a transformer of infinite depth.",
        **LANGUAGE,
        model={
            "vocabulary_size": 267_735,
            "embedding_dim": 700,
            "units": 700,
            "heads": 10,
            "inner_units": 48_000,
            "memory_length": 150,
            "span": 1000,
            "head": "adaptive",
            "cutoffs": [20_000, 40_000, 200_000],
            "div_value": 4,
            "input_dropout": 0.05,
            "hidden_dropout": 0.05,
            "position_dropout": 0.05,
            "output_dropout": 0.05,
            "solver": "anderson",
            "max_steps": 30,
            "inference_max_steps": 30,
            "backward_solver": "broyden",
            "backward_max_steps": 35,
            "pretrain_steps": 32_000,
            "pretrain_levels": 2,
            "carry_state": True,
        },
        data=DataSpec("wikitext103", batch_size=56, eval_batch_size=16, length=150),
        optimizer=OptimizerSpec("Adam", learning_rate=2.5e-4, global_clipnorm=0.25),
        schedule=ScheduleSpec("cosine", warmup=16 / 300),
        epochs=24,
        reported=Reported("perplexity", 23.2, "DEQ paper, Table 3", "110M"),
        parameters=97_851_488,
        variants={
            "small": {
                "model.embedding_dim": 500,
                "model.units": 500,
                "model.inner_units": 2500,
                "model.div_value": 1,
                "parameters": 138_648_238,
                "reported.value": 32.4,
                "reported.size": "138M",
            },
            "medium": {
                "model.embedding_dim": 480,
                "model.units": 480,
                "model.inner_units": 43_000,
                "model.div_value": 1,
                "parameters": 171_997_418,
                "reported.value": 24.2,
                "reported.size": "172M",
            },
            "regularized": {
                **_REGULARIZED,
                "reported.value": 23.8,
                "reported.source": "DEQ repository, table of released models",
                "model.max_steps": 12,
                "model.inference_max_steps": 12,
                "model.backward_max_steps": 13,
                "model.jacobian_weight": 1.9,
                "model.jacobian_frequency": 0.35,
            },
            "pre_norm_regularized": {
                **_REGULARIZED,
                "model.norm_order": "pre",
                "model.max_steps": 14,
                "model.inference_max_steps": 14,
                "model.backward_max_steps": 14,
                "model.jacobian_weight": 2.0,
                "model.jacobian_frequency": 0.4,
            },
        },
        notes="The medium model with adaptive embedding: 23.2 in Table 3 of the paper. The release "
        "notes of 2019 say to expect 24 to 25 of their script (at most 30 solver steps forward and "
        "50 backward, chunks of 75). The repository as it is now says about 23.8 of its script, "
        "23.1 of the released weights with a memory of 300 steps, and 23.8 of the regularised "
        "model; it has no figure of the pre-norm one. The released sizes give 97.9M parameters; "
        "the paper quotes 110M, of which 70M outside the embedding, and 3.7 GB in training on 15 "
        "sequences of length 150 without the embedding. Projections of clusters 1 to 3 are two "
        "weights each, as the release counts them; `tie_projections` makes them one (97,691,888). "
        "300,000 steps are 24.4 epochs. The release raises the Jacobian weight in the course of "
        "training and varies the solver limit by two steps; here both are fixed. No script of the "
        "small and the medium model without the adaptive embedding is released: their sizes are "
        "chosen to give the 138M and 172M, of which 4.5M and 43M outside the embedding, that Table "
        "3 quotes (its memory: 1.1 and 2.7 GB).",
    ),
)

register(
    sequence_classifier,
    Recipe(
        name="deq_transformer_copy_memory",
        task="sequence_classifier",
        summary="Recall ten symbols after a long delay: a transformer of infinite depth.",
        **FAMILY,
        model={
            "vocabulary_size": 10,
            "embedding_dim": 32,
            "classes": 10,
            "units": 32,
            "heads": 4,
            "inner_units": 76,
            "injection_deviation": 16.0,
            "position_deviation": 0.3,
            "max_steps": 12,
            "inference_max_steps": 24,
        },
        data=DataSpec(
            "copy_memory",
            batch_size=8,
            options={"delay": 400, "n_train": 800, "n_validation": 104, "n_test": 1000},
        ),
        optimizer=OptimizerSpec("Adam", learning_rate=5e-3, global_clipnorm=0.5),
        schedule=ScheduleSpec("cosine", minimum=5e-5, warmup=0.04),
        epochs=15,
        reported=Reported("nll", 3.5e-6, "DEQ paper, Table 1", "14K"),
        parameters=14_274,
        notes="The delay and the size of the paper's experiment; settings of ours. The "
        "injection starts large, as the embedding starts small, and so does the kernel of the "
        "positions; else the loss stays at that of guessing for long. Table 1 calls the figure a "
        "loss without saying over what it is averaged; it has 2.7e-5 for a TCN of 16K parameters, "
        "0.0501 for an LSTM and 0.0491 for a GRU of 14K.",
    ),
)

register(
    language_model,
    Recipe(
        name="deq_transformer_python_docs",
        model={
            "vocabulary_size": PYTHON_DOCS_CHARACTERS,
            "units": 96,
            "heads": 4,
            "inner_units": 384,
            "norm_order": "pre",
            "injection_deviation": 0.5,
            "memory_length": 64,
            "inference_memory_length": 128,
            "solver": {"name": "anderson", "memory": 4},
            "max_steps": 12,
            "inference_max_steps": 24,
            "tolerance": 1e-2,
            "jacobian_weight": 0.6,
            "jacobian_frequency": 0.5,
            "carry_state": True,
        },
        jit_compile=True,
        parameters=159_075,
        notes="Settings of ours. Evaluation has a longer memory and more solver steps than "
        "training. Post-norm and without the weight of the Jacobian it reached the same loss, with "
        "solves that end at a residual of 0.09.",
        **python_docs(
            2e-3,
            summary="Small character-level transformer of infinite depth on "
            "Python's documentation.",
        ),
        **LANGUAGE,
    ),
)


# Japanese vowels

register(
    sequence_classifier,
    Recipe(
        name="deq_transformer_japanese_vowels",
        **FAMILY,
        model={
            **VOWELS,
            "units": 48,
            "heads": 4,
            "inner_units": 96,
            "return_sequences": False,
            "normalize_first": True,
            "injection_deviation": 0.5,
            "solver": {"name": "anderson", "memory": 4},
            "max_steps": 12,
            "inference_max_steps": 24,
            "tolerance": 0.01,
            "output_dropout": 0.3,
        },
        parameters=23_721,
        **JAPANESE_VOWELS,
    ),
)
