"""Trains a zoo model on Keras' JAX backend, from arrays: for accelerators without TensorFlow.

    KERAS_BACKEND=jax python benchmarks/train_jax.py trellisnet_ptb_word --arrays ptb_word.npz \\
        --minutes 15 --precision mixed_bfloat16 --out results

The arrays are `train`, `validation` and `test` token ids (flat), or `train_x`, `train_y`, ... of
pixels
(n, t) uint8 and labels. One JSON line an epoch goes to `<out>/<name>.jsonl`. The learning rate is
the
recipe's for `--hold` of the time, then falls to a hundredth of it by a cosine; the epoch with the
best
validation loss is scored on the test split at the end. Everything else is the recipe's.
"""

import argparse
import json
import math
import time
from pathlib import Path

import jax
import keras
import numpy as np
from jax import numpy as jnp

import keras_seq
from keras_seq import zoo


def text_windows(ids: np.ndarray, batch: int, length: int, history: int):
    """Training windows (steps, b, length + history) and their targets: contiguous lanes."""
    lane = (len(ids) - 1) // batch
    x = ids[: lane * batch].reshape(batch, lane)
    y = ids[1 : lane * batch + 1].reshape(batch, lane)
    width = length + history
    starts = range(0, lane - width + 1, length)
    return (
        np.stack([x[:, s : s + width] for s in starts]),
        np.stack([y[:, s : s + width] for s in starts]),
    )


def scored_windows(ids: np.ndarray, batch: int, length: int, history: int, eos: int):
    """Evaluation windows that score every token once, the first one after an `<eos>`."""
    stream = np.concatenate([[eos], ids])
    lane = math.ceil(math.ceil(len(ids) / batch) / length) * length
    padded = np.zeros(batch * lane + 1, stream.dtype)
    padded[: len(stream)] = stream
    scored = (np.arange(batch * lane) < len(ids)).astype("float32").reshape(batch, lane)
    x, y = padded[:-1].reshape(batch, lane), padded[1:].reshape(batch, lane)
    xs, ys, ws = [], [], []
    for start in range(0, lane, length):
        first = max(0, start + length - (length + history))
        stop = first + length + history
        pad = max(0, stop - lane)
        weight = scored[:, first:stop].copy()
        weight[:, : start - first] = 0
        weight[:, start - first + length :] = 0
        fill = ((0, 0), (0, pad))
        xs.append(np.pad(x[:, first:stop], fill))
        ys.append(np.pad(y[:, first:stop], fill))
        ws.append(np.pad(weight, fill))
    return np.stack(xs), np.stack(ys), np.stack(ws)


class Trainer:
    """Compiled training and evaluation steps of a model without carried state."""

    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer
        optimizer.build(model.trainable_variables)
        self.trainable = [v.value for v in model.trainable_variables]
        self.other = [v.value for v in model.non_trainable_variables]
        self.slots = [v.value for v in optimizer.variables]
        self._train = jax.jit(self._train_step, donate_argnums=(0, 1, 2))
        self._test = jax.jit(self._test_step)

    def _loss(self, trainable, other, x, y, weights, training):
        model = self.model
        mapping = [
            *zip(model.trainable_variables, trainable, strict=True),
            *zip(model.non_trainable_variables, other, strict=True),
        ]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            terms = model.loss_terms(x, y, sample_weight=weights, training=training)
            weight = jnp.ones_like(terms.objective) if terms.weights is None else terms.weights
            total = jnp.sum(weight)
            loss = jnp.sum(terms.objective * weight) / total
            if terms.penalty is not None:
                loss = loss + terms.penalty
            other = [
                value if (new := scope.get_current_value(v)) is None else new
                for v, value in zip(model.non_trainable_variables, other, strict=True)
            ]
        correct = jnp.zeros(())
        if terms.predictions is not None:
            hit = jnp.argmax(terms.predictions, -1) == terms.targets
            correct = jnp.sum(hit)
        return loss, (other, jnp.sum(terms.report * weight), total, correct)

    def _train_step(self, trainable, other, slots, x, y, rate):
        gradient = jax.value_and_grad(self._loss, has_aux=True)
        (_, aux), grads = gradient(trainable, other, x, y, None, True)
        slots = [
            rate if variable is self.optimizer._learning_rate else value
            for variable, value in zip(self.optimizer.variables, slots, strict=True)
        ]
        trainable, slots = self.optimizer.stateless_apply(slots, grads, trainable)
        return trainable, aux[0], slots, aux[1:]

    def _test_step(self, trainable, other, x, y, weights):
        return self._loss(trainable, other, x, y, weights, False)[1][1:]

    def train(self, x, y, rate: float):
        self.trainable, self.other, self.slots, sums = self._train(
            self.trainable, self.other, self.slots, x, y, jnp.float32(rate)
        )
        return sums

    def evaluate(self, batches, trainable) -> dict[str, float]:
        sums = [self._test(trainable, self.other, *batch) for batch in batches]
        nll, weight, correct = (float(np.sum([np.asarray(s[i]) for s in sums])) for i in range(3))
        return {"nll": nll / weight, "count": int(weight), "accuracy": correct / weight}


def load(recipe, path: str):
    """Batches: a function epoch → training batches, and lists of validation and test batches."""
    arrays, data = np.load(path), recipe.data
    if recipe.task == "language_model":
        size = (data.batch_size, data.length, data.history)
        x, y = text_windows(arrays["train"].astype("int32"), *size)
        eval_size = (data.eval_batch_size, data.length, data.history, int(arrays["eos"]))
        scored = [
            list(zip(*scored_windows(arrays[s].astype("int32"), *eval_size), strict=True))
            for s in ("validation", "test")
        ]
        return (lambda epoch: list(zip(x, y, strict=True))), *scored

    def images(split, rows=slice(None)):
        x = (arrays[f"{split}_x"][rows].astype("float32") / 255 - 0.1307) / 0.3081
        return x[..., None], arrays[f"{split}_y"][rows].astype("int32")

    def batches(x, y, size):
        edges = range(0, len(x), size)
        return [(x[i : i + size], y[i : i + size], np.ones(len(y[i : i + size]))) for i in edges]

    held_out = 5000
    x, y = images("train")
    train_x, train_y = x[:-held_out], y[:-held_out]

    def epoch_batches(epoch):
        order = np.random.default_rng((recipe.seed, epoch)).permutation(len(train_x))
        steps = len(order) // data.batch_size
        rows = order[: steps * data.batch_size].reshape(steps, data.batch_size)
        return ((train_x[r], train_y[r]) for r in rows)

    validation = batches(x[-held_out:], y[-held_out:], 500)
    return epoch_batches, validation, batches(*images("test"), 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--arrays", required=True)
    parser.add_argument("--variant")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--hold", type=float, default=0.5)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--out", default=".")
    parser.add_argument("--set", action="append", default=[], metavar="key=value")
    options = parser.parse_args()
    start = time.time()
    keras.config.set_dtype_policy(options.precision)
    changes = dict(pair.split("=", 1) for pair in options.set)
    changes = {key: json.loads(value) for key, value in changes.items()}
    recipe = zoo.recipe(options.name, options.variant).replace(**changes)
    keras.utils.set_random_seed(recipe.seed)
    model = zoo.build(recipe, seed=recipe.seed)
    spec = recipe.optimizer
    optimizer = getattr(keras_seq.optimizers, spec.name)(
        spec.learning_rate, global_clipnorm=spec.global_clipnorm, l2=spec.l2, **spec.options
    )
    trainer = Trainer(model, optimizer)
    train_batches, validation, test = load(recipe, options.arrays)
    print(f"{recipe.name}: {model.count_params():,} parameters on {jax.devices()[0]}", flush=True)

    budget = options.minutes * 60
    best = (math.inf, trainer.trainable)
    log = (Path(options.out) / f"{recipe.name}.jsonl").open("a")
    epoch, first_step = 0, None
    while (elapsed := time.time() - start) < budget:
        began, sums = time.time(), []
        for x, y in train_batches(epoch):
            # The clock runs the schedule, so that the rate has fallen when the time is up.
            elapsed = time.time() - start
            part = max(0.0, elapsed / budget - options.hold) / (1 - options.hold)
            rate = spec.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, part))))
            sums.append(trainer.train(x, y, rate))
            if first_step is None:
                jax.block_until_ready(sums)
                first_step = time.time() - began
            if len(sums) % 50 == 0:
                jax.block_until_ready(sums[-1])
                if time.time() - start > budget:
                    break
        train_nll = float(sum(np.asarray(s[0]) for s in sums) / sum(np.asarray(s[1]) for s in sums))
        scores = trainer.evaluate(validation, trainer.trainable)
        epoch += 1
        if scores["nll"] < best[0]:
            best = (scores["nll"], jax.tree.map(jnp.copy, trainer.trainable))
        line = {
            "epoch": epoch,
            "seconds": round(time.time() - start, 1),
            "steps": len(sums),
            "rate": rate,
            "train_nll": train_nll,
            **{f"validation_{k}": v for k, v in scores.items()},
            "first_step_seconds": round(first_step or 0.0, 1),
        }
        print(json.dumps(line), flush=True)
        log.write(json.dumps(line) + "\n")
        log.flush()
    scores = trainer.evaluate(test, best[1])
    line = {"test": scores, "perplexity": math.exp(min(scores["nll"], 50)), "epochs": epoch}
    print(json.dumps(line), flush=True)
    log.write(json.dumps(line) + "\n")
    log.close()


if __name__ == "__main__":
    main()
