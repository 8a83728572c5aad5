"""`export_model`: a model as a numbered SavedModel folder."""

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_seq._backend import portable_operations
from keras_seq.export.description import describe
from keras_seq.export.language_model import (
    TextOptions,
    default_context,
    language_model_signatures,
)
from keras_seq.export.litert import FILE, check_litert, write_litert
from keras_seq.export.sequence_reader import sequence_reader_signatures
from keras_seq.export.signatures import save_signatures
from keras_seq.export.versions import publish
from keras_seq.export.warmup import write_warmup
from keras_seq.export.weights import StoredWeights
from keras_seq.generation.stepping import check_vocabulary, input_spec, is_language_model

METADATA = "keras_seq.json"
FORMATS = ("tf_saved_model", "litert")


def export_model(
    model: keras.Model,
    vocabulary: Any = None,
    to: str | Path | None = None,
    name: str | None = None,
    version: int | None = None,
    top_k: int = 10,
    max_tokens: int | None = None,
    max_length: int = 1024,
    recipe: Any = None,
    metrics: Mapping[str, float] | None = None,
    warmup: bool = True,
    weights_as: str | None = None,
    format: str = "tf_saved_model",
    stop: Any = (),
    ban: Any = (),
    repetition_penalty: float = 1.0,
    beams: int | None = None,
) -> Path:
    """Writes a model for TensorFlow Serving, as `to/name/version/`, or as a LiteRT file.

    The folder holds `saved_model.pb`, `variables/`, the vocabulary in `assets/`, and in
    `assets.extra/` a description (`keras_seq.json`) and warm-up requests. It loads with TensorFlow
    alone. It is written beside its place and renamed when it is complete: a server that polls
    `to/name` never sees a half-written version.

    Signatures of a language model, with free batch b and length t:

    * `serving_default`, `log_probs`: ids (b, t) → log_probs (b, t, v).
    * `log_probs_of_lengths`: ids (b, t), lengths (b,) → log_probs (b, t, v), each row as if it were
      alone, without what is behind its length.
    * `text`: text (b,) → tokens, scores (log-probabilities) and ids (b, `top_k`) of what follows.
    * `generate`: text (b,), length, temperature, top_k, seed, each () or (b,) → text (b,), ids.
    * `beam_search`, with `beams`: text (b,), length () or (b,), length_penalty () → text and scores
      (b, beams), ids (b, beams, n).
    * `initial_state`: batch_size () → state tensors.
    * `step`: ids (b, t) and state tensors → log_probs (b, t, v) and state tensors.

    A classifier has `serving_default`, `log_probs`: x → log_probs and class; a `FrameModel` the
    same with log_probs and logits of each note; a regressor `serving_default`, `outputs`: x →
    outputs. All have the same with lengths, as `log_probs_of_lengths` or `outputs_of_lengths`, and
    `initial_state` and `step` unless they must see the whole sequence: with a core that is not
    causal, or `pooling`.

    With `format="litert"` the folder holds `model.tflite` in place of the SavedModel. It has
    `log_probs` (or `outputs`), `initial_state` and a `step` of one time step of one sequence.

    Args:
        model: a model of `keras_seq.models`, or any that follows the state contract. One with
            `input_spec_for_export()` is a classifier or regressor, any other a language model.
        vocabulary: its vocabulary; `None` for a model without text. Without one, a language model
            has no signature that takes text.
        to: the folder of all models, which must be given.
        name: the model's name; `None` for the recipe's, else the model's own. A LiteRT file's
            then ends in `_litert`, since a server must not find it among its versions.
        version: a positive integer; `None` for one more than the highest there is.
        top_k: number of next tokens that `text` answers with.
        max_tokens: the last so many tokens of a text are read. `None` for 1024, or for the core's
            `receptive_field` where that is smaller: what lies before it has no effect.
        max_length: most tokens that one call of `generate` makes.
        recipe: the recipe that trained the model, for the description.
        metrics: figures of its evaluation, for the description.
        warmup: whether to write warm-up requests, where `tensorflow-serving-api` is installed.
        weights_as: `"int8"` or `"bfloat16"` to store matrices and tables small, see
            `StoredWeights`; the graph computes with what they are restored to. `None` to store the
            weights as they are. A LiteRT file takes `"int8"`, the converter's own.
        format: `"tf_saved_model"` or `"litert"`.
        stop: tokens and texts of several, by name or id, that end what `generate` makes; they are
            no part of it.
        ban: tokens that `generate` never takes, such as `"<unk>"`.
        repetition_penalty: of `generate`, see `keras_seq.generation.generate`.
        beams: for a signature `beam_search` that answers with so many continuations of each text,
            under the same rules.

    Returns:
        The version's folder.

    Raises:
        ValueError: for a name, version or bound that cannot be, a vocabulary that is not the
            model's, or a model that LiteRT cannot run.
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
    if format not in FORMATS:
        raise ValueError(f"`format` must be one of {FORMATS}. Received: format={format!r}.")
    if to is None:
        raise ValueError(
            "`to` must be a folder, for the versions of the model. Received: to=None. "
            'Give one, such as to="served".'
        )
    device = format == "litert"
    if max_tokens is None:
        max_tokens = default_context(model)
    options = TextOptions(top_k, max_tokens, max_length, stop, ban, repetition_penalty, beams)
    if (options.ruled or beams is not None) and (vocabulary is None or device):
        raise ValueError(
            "`stop`, `ban`, `repetition_penalty` and `beams` are of signatures that take text. "
            f"Received: format={format!r}, vocabulary={vocabulary!r}. Leave them out, or export a "
            "SavedModel with the vocabulary."
        )
    if name is None:
        own = getattr(recipe, "name", None) or model.name
        name = f"{own}_litert" if device else str(own)
    check_name(name)
    if version is not None and (isinstance(version, bool) or version < 1):
        raise ValueError(f"`version` must be a positive integer. Received: version={version!r}.")
    if not is_language_model(model) and vocabulary is not None:
        raise ValueError(
            "`vocabulary` must be `None` for a model that is no language model. "
            f"Received: a vocabulary with a {type(model).__name__}."
        )
    if not model.built:
        spec = input_spec(model)
        model(tf.zeros([size or 1 for size in spec.shape], spec.dtype), training=False)
    weights = StoredWeights(model, weights_as)
    if device:
        check_litert(weights)
        weights = StoredWeights(model)  # the converter restores nothing: it makes them small itself
    with portable_operations() if device else contextlib.nullcontext():
        if is_language_model(model):
            if vocabulary is not None:
                check_vocabulary(model, vocabulary)
            words = None if device else vocabulary
            signatures = language_model_signatures(
                model, words, options, weights, one_stream=device
            )
        else:
            signatures = sequence_reader_signatures(model, weights, one_stream=device)
    more: dict[str, Any] = {"name": name, "format": format, "weights_as": weights_as}

    def write(folder: Path) -> None:
        extra, assets = folder / "assets.extra", folder / "assets"
        extra.mkdir()
        answered = signatures
        if device:
            answered, more["left_out"] = write_litert(folder / FILE, signatures, weights_as)
        else:
            table = None if vocabulary is None else vocabulary.table
            save_signatures(folder, signatures, table)
            more["warmup"] = warmup and write_warmup(folder, name, signatures)
        if vocabulary is not None:
            more["text"] = options.described(vocabulary) | {"level": vocabulary.level}
            # A table has its words there already; this adds what a Vocabulary needs besides.
            assets.mkdir(exist_ok=True)
            vocabulary.save(assets / "vocabulary.txt")
        description = describe(model, answered, recipe, metrics) | more
        (extra / METADATA).write_text(json.dumps(description, indent=2) + "\n")

    return publish(write, Path(to) / name, version)


def check_name(name: str) -> None:
    """Refuses a name that can be no folder's.

    Raises:
        ValueError: for a name with other characters than letters, digits, '_', '-' and '.'.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ValueError(
            "`name` must be of letters, digits, '_', '-' and '.', as it names a folder and stands "
            f"in addresses. Received: name={name!r}."
        )
