"""A program that answers requests from exports, with TensorFlow but without Keras.

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


def state_of(answer: dict) -> dict:
    return {name: value for name, value in answer.items() if name.startswith("state_")}


def stream(model, name: str, x, chunks) -> np.ndarray:
    """The output `name` of `step` over x, chunk by chunk."""
    (argument,) = model.signatures[name].structured_input_signature[1]
    state = call(model, "initial_state", {"batch_size": np.int32(len(x))})
    outputs, start = [], 0
    for length in chunks:
        answer = call(model, "step", {argument: x[:, start : start + length]} | state)
        state = state_of(answer)
        outputs.append(answer[name])
        start += length
    return np.concatenate(outputs, axis=1) if outputs[0].ndim == 3 else outputs[-1]


def merged(model, first, second, more) -> tuple:
    """A step of two streams that are at different positions: in one batch, and each alone."""
    states = []
    for ids in (first, second):
        state = call(model, "initial_state", {"batch_size": np.int32(1)})
        states.append(state_of(call(model, "step", {"ids": ids} | state)))
    both = {name: np.concatenate([state[name] for state in states]) for name in states[0]}
    alone = [call(model, "step", {"ids": more[i : i + 1]} | states[i]) for i in range(2)]
    together = call(model, "step", {"ids": more} | both)
    return together, {name: np.concatenate([one[name] for one in alone]) for name in together}


def spoilt(model, x) -> dict:
    """A step of two rows, and what becomes of it with NaN in each part of the second one's state.

    By name of the part: an answer, or the message of the refusal.
    """
    (argument,) = {"ids", "x"} & set(model.signatures["step"].structured_input_signature[1])
    state = call(model, "initial_state", {"batch_size": np.int32(2)})
    answers = {"": call(model, "step", {argument: x} | state)}
    for name, part in state.items():
        wrong = part.copy()
        wrong[1] = np.nan
        request = {argument: x} | state | {name: wrong}
        try:
            answers[name] = call(model, "step", request)
        except tf.errors.InvalidArgumentError as failure:
            answers[name] = failure.message
    return answers


def in_threads(work, count: int = 8) -> None:
    workers = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def hammer(model, requests, rounds: int = 10) -> tuple[int, int]:
    """Answers that eight threads at once get, and how many of them are wrong."""
    expected = [call(model, signature, inputs) for signature, inputs in requests]
    right, wrong = [], []

    def work(first: int):
        for i in range(rounds):
            at = (first + i) % len(requests)
            answer = call(model, *requests[at])
            same = all((answer[key] == value).all() for key, value in expected[at].items())
            (right if same else wrong).append(at)

    in_threads(work)
    return len(right) + len(wrong), len(wrong)


def streams(model, ids) -> np.ndarray:
    """Each row in a thread of its own, a token at a time, all at once on one model."""
    answers: dict[int, np.ndarray] = {}

    def work(row: int):
        answers[row] = stream(model, "log_probs", ids[row : row + 1], [1] * ids.shape[1])

    in_threads(work, len(ids))
    return np.concatenate([answers[row] for row in range(len(ids))])


def error(model, signature: str, inputs: dict) -> str:
    """The message with which a request is refused."""
    try:
        call(model, signature, inputs)
    except tf.errors.InvalidArgumentError as failure:
        return failure.message
    return "answered"


def lite(path, signature: str, inputs: dict) -> dict:
    """The answer of a LiteRT file."""
    return tf.lite.Interpreter(str(path)).get_signature_runner(signature)(**inputs)


def lite_whole(path, *inputs) -> list[np.ndarray]:
    """The answers of a LiteRT file of Keras' own export, which has one input and one output."""
    runner = tf.lite.Interpreter(str(path)).get_signature_runner("serving_default")
    (argument,) = runner.get_input_details()
    return [next(iter(runner(**{argument: x}).values())) for x in inputs]


def lite_stream(path, ids) -> np.ndarray:
    """The log-probabilities of a LiteRT file for one row, a token at a time."""
    interpreter = tf.lite.Interpreter(str(path))
    start, step = (interpreter.get_signature_runner(name) for name in ("initial_state", "step"))
    state, outputs = start(batch_size=np.int32(1)), []
    for token in ids[0]:
        answer = step(ids=np.array([[token]], "int32"), **state)
        outputs.append(answer["log_probs"])
        state = state_of(answer)
    return np.concatenate(outputs, axis=1)


def load(folder: str):
    file = Path(folder) / "model.tflite"
    return file if file.exists() else tf.saved_model.load(folder)


def main(source: str, target: str) -> None:
    jobs = pickle.loads(Path(source).read_bytes())
    models = {}
    answers = []
    for folder, kind, arguments in jobs:
        if folder not in models:
            models[folder] = load(folder)
        answers.append(globals()[kind](models[folder], *arguments))
    present = {name.split(".")[0] for name, module in sys.modules.items() if module is not None}
    loaded = BLOCKED & present
    Path(target).write_bytes(pickle.dumps((answers, loaded)))


if __name__ == "__main__":
    main(*sys.argv[1:])
