"""An export as one LiteRT file (formerly TensorFlow Lite), for devices."""

import contextlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_seq import _files
from keras_seq.export.signatures import Signature, save_signatures
from keras_seq.export.weights import StoredWeights

FILE = "model.tflite"
NAMES = ("log_probs", "outputs", "step", "initial_state")  # signatures that a file may have
TOLERANCE = 1e-4


def write_litert(
    path: Path, signatures: Mapping[str, Signature], kind: str | None = None
) -> tuple[dict[str, Signature], dict[str, str]]:
    """Writes the signatures that LiteRT's own operations can answer as one file.

    Each is converted, loaded and asked its example; it is in the file if it answers as TensorFlow
    does. Signatures that take text have no place in a file.

    Args:
        path: the file.
        signatures: signatures by name.
        kind: `"int8"` for the converter's 8-bit weights, `None` for float32.

    Returns:
        The signatures that are in the file; the names of those that are left out, and why.

    Raises:
        ValueError: if neither whole sequences nor steps can be answered; it names the reasons.
    """
    wanted = {name: signatures[name] for name in NAMES if name in signatures}
    with tempfile.TemporaryDirectory() as folder:
        save_signatures(folder, wanted)
        content, faults = _converted(folder, wanted, kind)
        if faults:
            # One that cannot be converted spoils all, so that each is tried alone.
            alone = {name: _converted(folder, {name: wanted[name]}, kind)[1] for name in wanted}
            faults = {name: found[name] for name, found in alone.items() if found}
            wanted = {name: value for name, value in wanted.items() if name not in faults}
            if wanted.keys() <= {"initial_state"}:
                listed = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
                raise ValueError(
                    f"This model cannot be a LiteRT file. {listed}. "
                    "Export it as a SavedModel, which every model can be."
                )
            content, late = _converted(folder, wanted, kind)
            if late:
                raise ValueError(f"LiteRT does not answer as TensorFlow does: {late}.")
    _files.write_bytes(path, content)
    return wanted, faults


def check_litert(weights: StoredWeights) -> None:
    """Refuses weights that a LiteRT file cannot hold.

    Raises:
        ValueError: for bfloat16.
    """
    if weights.kind == "bfloat16":
        raise ValueError(
            "A LiteRT file holds float32 or int8 weights. Received: weights_as='bfloat16', "
            "format='litert'. Give weights_as='int8' or leave it out."
        )


def _converted(
    folder: str, signatures: Mapping[str, Signature], kind: str | None
) -> tuple[bytes, dict[str, str]]:
    """The file, and what is wrong with which signature."""
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[*signatures])
    if kind == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    try:
        with _quiet():
            content = converter.convert()
    except Exception as error:  # the converter has no type of its own
        return b"", dict.fromkeys(signatures, _reason(str(error)))
    faults = {}
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # of another package that will have the interpreter
        interpreter = tf.lite.Interpreter(model_content=content)
    for name, signature in signatures.items():
        try:
            fault = _wrong(interpreter, name, signature, exact=kind is None)
        except (RuntimeError, ValueError) as error:
            fault = f"it does not run ({str(error).splitlines()[0]})"
        if fault:
            faults[name] = fault
    return content, faults


def _wrong(interpreter, name: str, signature: Signature, exact: bool) -> str:
    """What is wrong with the answer to the example; nothing if it is empty."""
    example = {key: np.asarray(value) for key, value in signature.example.items()}
    tensors = {key: tf.constant(value) for key, value in example.items()}
    expected = signature.function(**tensors)
    answer = interpreter.get_signature_runner(name)(**example)
    for key, value in expected.items():
        value, given = value.numpy(), answer[key]
        if given.shape != value.shape or not np.isfinite(given).all():
            return f"its output {key} is not that of TensorFlow"
        if exact and not np.allclose(given, value, rtol=TOLERANCE, atol=TOLERANCE):
            return f"its output {key} differs by {np.abs(given - value).max():.2g}"
    return ""


def _reason(message: str) -> str:
    """What a converter's message of many lines says."""
    found = re.search(r"TF Select ops: (.*)", message) or re.search(r"Custom ops: (.*)", message)
    if found:
        return f"LiteRT has no operation {found[1].strip()}"
    return (message.strip().splitlines() or ["the converter failed"])[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the converter's own lines, which are not written by Python, from standard error."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
