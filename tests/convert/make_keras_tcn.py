"""Writes fixtures/keras_tcn.keras. Needs keras-tcn, which nothing else here does.

python -m venv --system-site-packages other && other/bin/pip install --no-deps keras-tcn==3.5.7
other/bin/python tests/convert/make_keras_tcn.py
"""

import zipfile
from pathlib import Path

import keras
import numpy as np
from tcn import TCN

HERE = Path(__file__).resolve().parent


def model() -> keras.Model:
    """Layers in both directions, with each normalisation, skip connections and stacks."""
    return keras.Sequential(
        [
            keras.Input((None, 3)),
            keras.layers.Bidirectional(
                TCN(4, 2, 2, (1,), return_sequences=True, activation="tanh", use_batch_norm=True)
            ),
            keras.layers.Dropout(0.1),
            TCN([5, 6], 3, 1, (1, 4), "same", False, 0.1, True, use_layer_norm=True),
            keras.layers.Dense(2),
        ]
    )


def main() -> None:
    rng = np.random.default_rng(0)
    made = model()
    for weight in made.weights:
        if weight.dtype == "float32":
            values = rng.normal(size=weight.shape) * 0.4
            weight.assign(np.abs(values) + 0.1 if "variance" in weight.path else values)
    path = HERE / "fixtures" / "keras_tcn.keras"
    made.save(path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # Keras does not compress
        for name, data in content.items():
            archive.writestr(name, data)
    x = rng.normal(size=(2, 9, 3)).astype("float32")
    np.savez_compressed(HERE / "fixtures" / "keras_tcn_answers.npz", x=x, y=made(x))


if __name__ == "__main__":
    main()
