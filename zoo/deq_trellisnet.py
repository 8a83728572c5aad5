"""DEQ-TrellisNet: the trellis network of infinite depth, as language models and on copy memory.

Only the WikiText-103 settings of the released code are known; the others are those of the
TrellisNet of the same size, with a solver in place of the levels.
"""

from collections.abc import Sequence
from typing import Any

from keras_seq.layers import DeepEquilibrium, DEQTrellisCell
from keras_seq.models import LanguageModel, SequenceClassifier
from keras_seq.zoo.builders import classifier_of, language_model_of, policy_of, split_head
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
    output_units: int,
    kernel_size: int = 2,
    weight_normalization: bool = True,
    hidden_dropout: float = 0.0,
    weight_dropout: float = 0.0,
    state: str = "exact",
    dtype: str | None = None,
    seed: int | None = None,
    **solving: Any,
) -> DeepEquilibrium:
    """Builds the equilibrium of a trellis cell.

    Args:
        units: hidden units besides the output channels.
        output_units: output channels.
        kernel_size: taps of the convolutions.
        weight_normalization: normalise the kernels.
        hidden_dropout: variational rate of the hidden-to-hidden path.
        weight_dropout: rate for elements of the hidden kernel.
        state: the kind of state carried in training, `"exact"` or `"history"`.
        dtype: a dtype policy; `None` for Keras' current one.
        seed: of initialisation and dropout.
        **solving: settings of `equilibrium_of`.
    """
    policy = policy_of(dtype)
    cell = DEQTrellisCell(
        units,
        output_units,
        kernel_size,
        weight_normalization=weight_normalization,
        hidden_dropout=hidden_dropout,
        weight_dropout=weight_dropout,
        state=state,
        seed=seed,
        dtype=policy,
        name="cell",
    )
    return equilibrium_of(cell, seed=seed, **solving)


@takes_settings_of(core_of)
@takes_settings_of(
    language_model_of,
    *("embedding_dropout", "input_dropout", "output_dropout", "auxiliary_weight"),
    *("activation_regularization", "temporal_activation_regularization"),
    *("history", "carry_state"),
)
def language_model(
    *,
    vocabulary_size: int,
    embedding_dim: int,
    head: str = "tied",
    cutoffs: Sequence[int] = (),
    seed: int | None = None,
    **settings,
) -> LanguageModel:
    """Builds a DEQ-TrellisNet language model.

    Args:
        vocabulary_size: number of tokens.
        embedding_dim: width of the embedding; `output_units` with a tied head.
        head: `"tied"`, `"softmax"` or `"adaptive"` (tied split softmax).
        cutoffs: ends of all but the last split of the adaptive softmax.
        seed: seed of initialisation and dropout.
        **settings: of core and model.
    """
    own, options = split_settings(settings, core_of)
    core = core_of(seed=seed, **own)
    options["head"] = split_head(head, vocabulary_size, cutoffs, core.dtype_policy)
    return language_model_of(core, vocabulary_size, embedding_dim, seed=seed, **options)


@takes_settings_of(core_of)
@takes_settings_of(classifier_of, "pooling", "input_dropout", "output_dropout", "auxiliary_weight")
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
    """Builds a DEQ-TrellisNet that classifies sequences of ids or vectors, or their steps.

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


FAMILY: dict[str, Any] = {"family": "deq_trellisnet", "paper": PAPER}
LANGUAGE: dict[str, Any] = {"task": "language_model", **FAMILY}

register(
    language_model,
    Recipe(
        name="deq_trellisnet_ptb_word",
        summary="Word-level language model on Penn Treebank, of infinite depth.",
        **LANGUAGE,
        model={
            "vocabulary_size": 10_000,
            "embedding_dim": 400,
            "units": 1000,
            "output_units": 400,
            "weight_normalization": False,
            "embedding_dropout": 0.1,
            "input_dropout": 0.45,
            "hidden_dropout": 0.28,
            "output_dropout": 0.45,
            "weight_dropout": 0.5,
            "activation_regularization": 2.0,
            "temporal_activation_regularization": 1.0,
            "max_steps": 45,
            "inference_max_steps": 60,
            "pretrain_steps": 30_000,
            "pretrain_levels": 40,
            "history": 55,
        },
        data=DataSpec("ptb_word", batch_size=16, eval_batch_size=12, length=55, history=55),
        optimizer=OptimizerSpec("SGD", learning_rate=20.0, global_clipnorm=0.225, l2=1.2e-6),
        schedule=ScheduleSpec("plateau", factor=0.25, patience=10, minimum=0.02),
        epochs=500,
        reported=Reported("perplexity", 57.1, "DEQ paper, Table 2", "24M"),
        parameters=24_181_200,
        notes="No settings for this data set are released: these are those of TrellisNet's "
        "released script, on the windows of `trellisnet_ptb_word`, with the solver limits and the "
        "pre-training of the released WikiText-103 script. The second bias of the cell makes it "
        "5,600 parameters larger than the TrellisNet. Table 2 has 24M parameters, of "
        "which 20M outside the embedding, and 1.2 GB in training, against 57.0 and 8.5 GB of a "
        "TrellisNet of 60 levels; the memory is that of 15 sequences of length 150, without the "
        "embedding.",
    ),
    Recipe(
        name="deq_trellisnet_wt103",
        summary="Word-level language model on WikiText-103, of infinite depth.",
        **LANGUAGE,
        model={
            "vocabulary_size": 267_735,
            "embedding_dim": 500,
            "units": 1500,
            "output_units": 500,
            "head": "adaptive",
            "cutoffs": [2800, 20_000, 76_000],
            "input_dropout": 0.1,
            "hidden_dropout": 0.1,
            "output_dropout": 0.1,
            "state": "history",
            "max_steps": 45,
            "inference_max_steps": 60,
            "stop": "absolute",
            "tolerance": 4.5e-4,
            "backward_tolerance": 1e-6,
            "subsequence_length": 50,
            "pretrain_steps": 30_000,
            "pretrain_levels": 40,
            "carry_state": True,
        },
        data=DataSpec("wikitext103", batch_size=49, eval_batch_size=4, length=100),
        optimizer=OptimizerSpec("Adam", learning_rate=1e-3, global_clipnorm=0.07),
        # After epochs 15, 20 and 23, as the script does it.
        schedule=ScheduleSpec("milestones", factor=0.1, milestones=(16, 21, 24), minimum=1e-5),
        epochs=25,
        reported=Reported("perplexity", 29.0, "DEQ paper, Table 3", "180M"),
        parameters=174_168_738,
        notes="The released script's sizes give 174M; the paper quotes 180M. Its tolerance, "
        "1e-6 for each element of a batch, is that of a chunk here: 1e-6 √(50 · 4000). Its "
        "backward one, 2e-10, is below what float32 resolves. It also lowers the rate after five "
        "epochs without progress. Table 3 has 180M parameters, of which 45M outside the embedding, "
        "and 3.3 GB in training, against 29.2 and 24.7 GB of a TrellisNet of 70 levels (5.2 GB "
        "with gradient checkpointing), all at 15 sequences of length 150 and without the "
        "embedding.",
    ),
    Recipe(
        name="deq_trellisnet_ptb_char",
        summary="Character-level language model on Penn Treebank, of infinite depth.",
        **LANGUAGE,
        model={
            "vocabulary_size": 50,
            "embedding_dim": 200,
            "units": 1000,
            "output_units": 200,
            "embedding_dropout": 0.02,
            "input_dropout": 0.1,
            "hidden_dropout": 0.29,
            "output_dropout": 0.1,
            "weight_dropout": 0.26,
            "max_steps": 45,
            "inference_max_steps": 60,
            "pretrain_steps": 30_000,
            "pretrain_levels": 40,
            "carry_state": True,
        },
        data=DataSpec("ptb_char", batch_size=24, eval_batch_size=10, length=125),
        optimizer=OptimizerSpec("Adam", learning_rate=2e-3, global_clipnorm=0.2, l2=8e-7),
        # After epochs 220 and 350, as TrellisNet's script does it.
        schedule=ScheduleSpec("milestones", factor=0.1, milestones=(221, 351), minimum=1e-5),
        epochs=400,
        reported=Reported("bits_per_character", None, "no figure in the paper", ""),
        parameters=13_469_250,
        notes="The paper does not report this data set: the width is that of the TrellisNet paper "
        "(Table 5), the other settings are those of TrellisNet's released script, with the solver "
        "limits and the pre-training of the released WikiText-103 script.",
    ),
)

register(
    sequence_classifier,
    Recipe(
        name="deq_trellisnet_copy_memory",
        task="sequence_classifier",
        summary="Recall ten symbols after a long delay, with a model of infinite depth.",
        **FAMILY,
        model={
            "vocabulary_size": 10,
            "embedding_dim": 10,
            "classes": 10,
            "units": 18,
            "output_units": 18,
            "weight_normalization": False,
            "max_steps": 30,
            "inference_max_steps": 60,
        },
        data=DataSpec("copy_memory", batch_size=32, options={"delay": 400}),
        optimizer=OptimizerSpec("Adam", learning_rate=2e-3, global_clipnorm=0.5),
        epochs=20,
        reported=Reported("accuracy", None, "no figure in the paper", ""),
        parameters=13_826,
        notes="The delay of the paper's experiment, in which a DEQ-Transformer has 14K "
        "parameters; the DEQ-TrellisNet and its settings are ours.",
    ),
)

register(
    language_model,
    Recipe(
        name="deq_trellisnet_python_docs",
        model={
            "vocabulary_size": PYTHON_DOCS_CHARACTERS,
            "embedding_dim": 64,
            "units": 32,
            "output_units": 64,
            "solver": {"name": "broyden", "memory": 10},
            "max_steps": 16,
            "inference_max_steps": 30,
            "tolerance": 1e-2,
            "pretrain_steps": 1092,  # three epochs of five
            "pretrain_levels": 12,
            "carry_state": True,
        },
        jit_compile=True,
        parameters=130_851,
        variants={
            "unrolled": {
                "model.gradient": "unrolled",
                "model.max_steps": 12,
                "model.inference_max_steps": 12,
                "model.pretrain_steps": 0,
            }
        },
        notes="Settings of ours, near `trellisnet_python_docs`. `variant='unrolled'` is the "
        "network of 12 levels with the same weights in all of them.",
        **python_docs(
            1e-2,
            epochs=5,
            summary="Small character-level language model of infinite depth on "
            "Python's documentation.",
        ),
        **LANGUAGE,
    ),
)


# Japanese vowels

register(
    sequence_classifier,
    Recipe(
        name="deq_trellisnet_japanese_vowels",
        **FAMILY,
        model={
            **VOWELS,
            "units": 32,
            "output_units": 32,
            "return_sequences": False,
            "solver": {"name": "broyden", "memory": 10},
            "max_steps": 16,
            "inference_max_steps": 30,
            "tolerance": 0.01,
            "hidden_dropout": 0.1,
            "output_dropout": 0.3,
        },
        parameters=40_233,
        **JAPANESE_VOWELS,
    ),
)
