"""A program that answers requests from SavedModels, with TensorFlow but without Keras.

It reads a pickled list of (folder, kind, what) and writes the pickled answers.
"""

import pickle
import sys
import threading
from pathlib import Path

BLOCKED = {"keras", "keras_seq", "tf_keras", "tensorflow_text"}


# With None in its place, an import of a module fails.
sys.modules.update(dict.fromkeys(BLOCKED))  # pyright: ignore[reportCallIssue, reportArgumentType]

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402


def call(model, signature: str, inputs: dict) -> dict:
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    return {k: v.numpy() for k, v in model.signatures[signature](**tensors).items()}


def stream(model, name: str, x, chunks) -> np.ndarray:
    """The output `name` of `step` over x, chunk by chunk."""
    state = call(model, "initial_state", {"batch_size": np.int32(len(x))})
    outputs, start = [], 0
    for length in chunks:
        chunk = {"x" if x.ndim == 3 else "ids": x[:, start : start + length]}
        answer = call(model, "step", chunk | state)
        state = {key: value for key, value in answer.items() if key.startswith("state_")}
        outputs.append(answer[name])
        start += length
    return np.concatenate(outputs, axis=1) if outputs[0].ndim == 3 else outputs[-1]


def hammer(model, requests, threads: int = 8, rounds: int = 10) -> int:
    """Number of answers that many threads at once get wrong."""
    expected = [call(model, signature, inputs) for signature, inputs in requests]
    wrong = []

    def work(first: int):
        for i in range(rounds):
            at = (first + i) % len(requests)
            answer = call(model, *requests[at])
            if any((answer[key] != value).any() for key, value in expected[at].items()):
                wrong.append(at)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return len(wrong)


def error(model, signature: str, inputs: dict) -> str:
    """The message with which a request is refused."""
    try:
        call(model, signature, inputs)
    except tf.errors.InvalidArgumentError as failure:
        return failure.message
    return "answered"


def main(source: str, target: str) -> None:
    jobs = pickle.loads(Path(source).read_bytes())
    models = {}
    answers = []
    for folder, kind, arguments in jobs:
        if folder not in models:
            models[folder] = tf.saved_model.load(folder)
        answers.append(globals()[kind](models[folder], *arguments))
    present = {name.split(".")[0] for name, module in sys.modules.items() if module is not None}
    loaded = BLOCKED & present
    Path(target).write_bytes(pickle.dumps((answers, loaded)))


if __name__ == "__main__":
    main(*sys.argv[1:])
