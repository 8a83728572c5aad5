"""Writes small saved models and what they answer, for `test_saved.py` to load with later code.

Run by hand with a release's code, never by the tests:

    python tests/saved/make_saved.py tests/saved/0.1

`NAME.keras` is a compiled model after two steps of training; `NAME.npz` holds a batch (`x`, `y`),
the model's `predictions` of it, its measures in evaluation (`metrics`, a JSON object), and the
weights' gradients of the loss in evaluation (`gradients`, one squared norm for each weight).
"""

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_seq import layers, models
from keras_seq.optimizers import Adam

VOCABULARY, WIDTH, BATCH, LENGTH = 11, 8, 3, 7


def deep_equilibrium(cell, **settings) -> layers.DeepEquilibrium:
    return layers.DeepEquilibrium(cell, max_steps=40, tolerance=1e-7, **settings)


def cores() -> dict[str, keras.layers.Layer]:
    """A core of every family, b × t × 8 → b × t × 8, with its less common settings set."""
    trellis = layers.TrellisNet(
        units=10,
        output_units=WIDTH,
        levels=5,
        dilation_rate=(1, 2),
        auxiliary_frequency=2,
        weight_normalization=True,
        hidden_dropout=0.2,
        weight_dropout=0.2,
        seed=1,
    )
    gru: Any = keras.layers.GRU(WIDTH, seed=1)
    transformer_cell = layers.DEQTransformerCell(
        WIDTH, 2, 12, memory_length=3, span=6, normalize_first=True, hidden_dropout=0.1, seed=1
    )
    return {
        "trellisnet": trellis,
        "trellisnet_gru": layers.TrellisNet(
            units=9, output_units=WIDTH, levels=4, activation="gru", state="history", seed=1
        ),
        "pru": layers.PRU(WIDTH, levels=2, groups=2, weight_dropout=0.2, seed=1),
        "lstm_stack": layers.RecurrentStack(
            [layers.LSTM(12, seed=1), layers.LSTM(WIDTH, seed=2)], dropout=0.2, seed=1
        ),
        "gru_stack": layers.RecurrentStack([layers.KerasRecurrent(gru)], output_dropout=0.1),
        "tcn": layers.TCN((6, WIDTH), kernel_size=3, dropout=0.1, spatial_dropout=True, seed=1),
        "transformer": layers.Transformer(
            units=WIDTH, levels=2, heads=2, span=4, norm_order="post", dropout=0.1, seed=1
        ),
        "transformer_xl": layers.TransformerXL(
            levels=2, heads=2, inner_units=12, memory_length=4, normalize_first=True, seed=1
        ),
        "r_transformer": layers.RTransformer(
            units=WIDTH, levels=2, window=3, heads=2, cell="lstm", norm_order="post", span=4, seed=1
        ),
        "deq_trellis": deep_equilibrium(
            layers.DEQTrellisCell(10, WIDTH, weight_normalization=True, seed=1)
        ),
        "deq_transformer": deep_equilibrium(transformer_cell, solver="anderson"),
    }


def language_model(core, **settings) -> models.LanguageModel:
    return models.LanguageModel(VOCABULARY, WIDTH, core, seed=3, **settings)


def saved_models() -> dict[str, keras.Model]:
    """Every model to save."""
    made: dict[str, keras.Model] = {
        f"language_model_{name}": language_model(core) for name, core in cores().items()
    }
    made["language_model_deep_supervision"] = language_model(
        cores()["trellisnet"], auxiliary_weight=0.1, carry_state=True, output_dropout=0.2
    )
    made["language_model_mixture"] = language_model(
        layers.PRU(WIDTH, seed=1),
        head=layers.MixtureOfSoftmaxes(VOCABULARY, experts=3, embedding_dim=WIDTH, seed=1),
    )
    adaptive: dict[str, Any] = {"cutoffs": (4, 8), "div_value": 2}
    made["language_model_adaptive"] = language_model(
        layers.LSTM(WIDTH, seed=1),
        embedding=layers.AdaptiveEmbedding(VOCABULARY, WIDTH, **adaptive),
        head=layers.AdaptiveSoftmax(
            VOCABULARY, form="projected", tied=True, embedding_dim=WIDTH, **adaptive
        ),
    )
    made["language_model_bfloat16"] = language_model(
        layers.LSTM(WIDTH, seed=1, dtype="mixed_bfloat16"), dtype="mixed_bfloat16", head="softmax"
    )
    for name in ("trellisnet", "tcn", "r_transformer"):
        made[f"classifier_{name}"] = models.SequenceClassifier(cores()[name], classes=4, seed=3)
    made["classifier_of_steps"] = models.SequenceClassifier(
        cores()["pru"], 4, vocabulary_size=VOCABULARY, embedding_dim=WIDTH, return_sequences=True
    )
    made["regressor"] = models.SequenceRegressor(cores()["transformer"], outputs=2)
    made["regressor_of_steps"] = models.SequenceRegressor(
        cores()["lstm_stack"], outputs=2, return_sequences=True
    )
    made["frames"] = models.FrameModel(cores()["r_transformer"], notes=WIDTH)
    made["frames_summed"] = models.FrameModel(cores()["tcn"], notes=WIDTH, sum_over_time=True)
    return made


def batch_for(model, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of a model."""
    rng = np.random.default_rng(len(name))
    ids = rng.integers(0, VOCABULARY, (BATCH, LENGTH)).astype("int32")
    values = rng.normal(size=(BATCH, LENGTH, WIDTH)).astype("float32")
    if isinstance(model, models.LanguageModel):
        return ids, np.roll(ids, -1, axis=1)
    if isinstance(model, models.FrameModel):
        notes = (values > 0).astype("float32")
        return notes, np.roll(notes, -1, axis=1)
    shape = (BATCH, LENGTH) if model.return_sequences else (BATCH,)
    if isinstance(model, models.SequenceClassifier):
        x = ids if model.embedding is not None else values
        return x, rng.integers(0, 4, shape).astype("int32")
    return values, rng.normal(size=(*shape, 2)).astype("float32")


def answers(model, x, y) -> dict[str, np.ndarray]:
    """What a model answers to a batch: what is stored, and what later code must answer again."""
    metrics = model.evaluate(x, y, batch_size=BATCH, verbose=0, return_dict=True)
    state = model.get_initial_state(BATCH) if model.carry_state else None
    with tf.GradientTape() as tape:
        terms = model.loss_terms(
            tf.constant(x), tf.constant(y), initial_state=state, training=False
        )
        loss = tf.reduce_mean(terms.objective)
    gradients = tape.gradient(loss, model.trainable_weights)
    norms = [0.0 if g is None else float(tf.norm(tf.convert_to_tensor(g))) for g in gradients]
    return {
        "predictions": np.asarray(model.predict(x, verbose=0), "float32"),
        "metrics": np.array(json.dumps(metrics)),
        "gradients": np.square(norms).astype("float32"),
    }


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in saved_models().items():
        keras.utils.set_random_seed(0)
        x, y = batch_for(model, name)
        model.build((None, None, WIDTH) if x.ndim == 3 else (None, None))
        model.compile(Adam(1e-2, global_clipnorm=1.0))
        model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0, shuffle=False)
        model.save(folder / f"{name}.keras")
        arrays: dict[str, Any] = {"x": x, "y": y, **answers(model, x, y)}
        np.savez_compressed(folder / f"{name}.npz", **arrays)
        print(name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
