"""`export_model`: a model as a numbered SavedModel folder."""

import json
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_seq._version import __version__
from keras_seq.export.language_model import (
    TextOptions,
    default_context,
    language_model_signatures,
)
from keras_seq.export.sequence_reader import sequence_reader_signatures
from keras_seq.export.signatures import Signature
from keras_seq.export.versions import publish
from keras_seq.export.warmup import write_warmup
from keras_seq.generation.stepping import is_language_model

METADATA = "keras_seq.json"


def export_model(
    model: keras.Model,
    vocabulary,
    to: str | Path,
    name: str | None = None,
    version: int | None = None,
    top_k: int = 10,
    max_tokens: int | None = None,
    max_length: int = 1024,
    recipe: Any = None,
    metrics: Mapping[str, float] | None = None,
    warmup: bool = True,
) -> Path:
    """Writes a model for TensorFlow Serving, as `to/name/version/`.

    The folder holds `saved_model.pb`, `variables/`, the vocabulary in `assets/`, and in
    `assets.extra/` a description (`keras_seq.json`) and warm-up requests. It loads with TensorFlow
    alone. It is written beside its place and renamed when it is complete: a server that polls
    `to/name` never sees a half-written version.

    Signatures of a language model, with free batch b and length t:

    * `serving_default`, `log_probs`: ids (b, t) → log_probs (b, t, v).
    * `text`: text (b,) → tokens, scores (log-probabilities) and ids (b, `top_k`) of what follows.
    * `generate`: text (b,), length, temperature, top_k, seed, each () or (b,) → text (b,), ids.
    * `initial_state`: batch_size () → state tensors.
    * `step`: ids (b, t) and state tensors → log_probs (b, t, v) and state tensors.

    A classifier has `serving_default`, `log_probs`: x → log_probs and class; a regressor
    `serving_default`, `outputs`: x → outputs; both have `initial_state` and `step`.

    Args:
        model: a model of `keras_seq.models`, or any that follows the state contract. One with
            `input_spec_for_export()` is a classifier or regressor, any other a language model.
        vocabulary: its vocabulary; `None` for a model without text.
        to: the folder of all models.
        name: the model's name; `None` for the recipe's, else the model's own.
        version: a positive integer; `None` for one more than the highest there is.
        top_k: number of next tokens that `text` answers with.
        max_tokens: the last so many tokens of a text are read. `None` for 1024, or for the core's
            `receptive_field` where that is smaller: what lies before it has no effect.
        max_length: most tokens that one call of `generate` makes.
        recipe: the recipe that trained the model, for the description.
        metrics: figures of its evaluation, for the description.
        warmup: whether to write warm-up requests, where `tensorflow-serving-api` is installed.

    Returns:
        The version's folder.

    Raises:
        ValueError: for a name, version or bound that cannot be, or a vocabulary that is not the
            model's.
        FileExistsError: if the version exists.

    Example:

    >>> core = keras_seq.layers.TrellisNet(units=12, output_units=8, levels=4)
    >>> model = keras_seq.models.LanguageModel(vocabulary_size=4, embedding_dim=8, core=core)
    >>> vocabulary = keras_seq.pipelines.Vocabulary(["<eos>", "a", "b", "c"], level="character")
    >>> folder = keras_seq.export.export_model(model, vocabulary, to="served", name="letters")
    >>> next_tokens = tf.saved_model.load(str(folder)).signatures["text"]
    >>> next_tokens(text=tf.constant(["ab"]))["tokens"].shape
    TensorShape([1, 4])
    """
    if max_tokens is None:
        max_tokens = default_context(model)
    options = TextOptions(top_k, max_tokens, max_length)
    name = _checked_name(name or getattr(recipe, "name", None) or model.name)
    if version is not None and (isinstance(version, bool) or version < 1):
        raise ValueError(f"`version` must be a positive integer. Received: version={version!r}.")
    if not is_language_model(model) and vocabulary is not None:
        raise ValueError(
            "`vocabulary` must be `None` for a model that is no language model. "
            f"Received: a vocabulary with a {type(model).__name__}."
        )
    if is_language_model(model):
        signatures = language_model_signatures(model, vocabulary, options)
    else:
        signatures = sequence_reader_signatures(model)

    def write(folder: Path) -> None:
        _save(folder, signatures, vocabulary)
        warmed = warmup and write_warmup(folder, name, signatures)
        description = _describe(model, signatures, recipe, metrics)
        description |= {"name": name, "warmup": warmed}
        if vocabulary is not None:
            description["text"] = vars(options) | {"level": vocabulary.level}
        extra = folder / "assets.extra"
        extra.mkdir(exist_ok=True)
        (extra / METADATA).write_text(json.dumps(description, indent=2) + "\n")

    return publish(write, Path(to) / name, version)


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ValueError(
            "`name` must be of letters, digits, '_', '-' and '.', as it names a folder and stands "
            f"in addresses. Received: name={name!r}."
        )
    return name


def _save(folder: Path, signatures: Mapping[str, Signature], vocabulary) -> None:
    """Writes the SavedModel with exactly what its signatures use."""
    module = tf.Module()
    functions = {key: value.function for key, value in signatures.items()}
    # Variables that no signature reads (optimizer, metrics, dropout seeds) are left behind.
    module.weights = list(
        {id(v): v for function in functions.values() for v in function.graph.variables}.values()
    )
    if vocabulary is not None:
        module.table = vocabulary.table
    tf.saved_model.save(module, str(folder), signatures=functions)
    if vocabulary is not None:
        # The table has its words there already; this adds what a Vocabulary needs besides.
        vocabulary.save(folder / "assets" / "vocabulary.txt")


def _describe(model, signatures, recipe, metrics) -> dict[str, Any]:
    if recipe is not None and hasattr(recipe, "to_json"):
        recipe = json.loads(recipe.to_json())
    return {
        "class": type(model).__name__,
        "parameters": model.count_params(),
        "precision": model.dtype_policy.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "keras_seq": __version__,
            "keras": keras.version(),
            "tensorflow": tf.version.VERSION,
            "python": platform.python_version(),
        },
        "signatures": {
            key: {
                "inputs": _shapes(value.inputs),
                "outputs": _shapes(value.outputs),
            }
            for key, value in signatures.items()
        },
        "metrics": None if metrics is None else dict(metrics),
        "recipe": recipe,
    }


def _shapes(tensors) -> dict[str, Any]:
    return {
        name: {
            "dtype": tensor.dtype.name,
            "shape": None if tensor.shape.rank is None else tensor.shape.as_list(),
        }
        for name, tensor in tensors.items()
    }
