"""Served models of Python's documentation: latency, throughput, and the cost of a late step.

    python benchmarks/run.py serving_trellisnet          # one model
    python benchmarks/bench_serving.py                   # all of them, as tables for the page
    python benchmarks/run.py serving_late_steps          # the ratios alone, of a few
    python benchmarks/run.py serving_small_weights       # size and bits with weights stored small

A model is exported, loaded again with `tf.saved_model.load`, and asked through its signatures.
"""

import statistics
import sys
import tempfile
from typing import Any

import numpy as np
from harness import Work, alternate, benchmark

BATCHES = (1, 8, 64)
LENGTH = 64  # tokens of a full pass
NEAR, FAR = 10, 10_000  # positions whose steps are compared
CHUNK = 500  # tokens of a call on the way to the far position
STEPS = 10  # steps of a turn
ROUNDS = 7
KINDS = (None, "bfloat16", "int8")
TEST_BATCHES = 20  # of 8 rows of 256 characters
POSITION_ROUNDS = 25
LATE = ("pru", "rtransformer", "transformer", "transformer_xl")
MODELS = (
    "trellisnet",
    "tcn",
    "pru",
    "rtransformer",
    "transformer",
    "transformer_xl",
    "deq_trellisnet",
    "deq_transformer",
)


class Served:
    """A loaded export and calls of its signatures that return when the answer is there."""

    def __init__(self, model: str, weights_as: str | None = None):
        import tensorflow as tf

        from keras_seq import zoo
        from keras_seq.export import export_model

        (shipped,) = zoo.weights(model)
        built = zoo.registry.find(model).build(weights=shipped.name)
        self.size = built.vocabulary_size
        with tempfile.TemporaryDirectory() as folder:
            path = export_model(
                built, None, folder, name="model", warmup=False, weights_as=weights_as
            )
            self.kib = sum(file.stat().st_size for file in path.glob("variables/*")) / 1024
            self._loaded = tf.saved_model.load(str(path))
        self._rng = np.random.default_rng(0)
        self._tf = tf

    def tensor(self, ids) -> Any:
        return self._tf.constant(ids, "int32")

    def ids(self, batch: int, length: int) -> Any:
        return self.tensor(self._rng.integers(0, self.size, (batch, length)))

    def log_probs(self, ids) -> Any:
        return self._loaded.signatures["log_probs"](ids=ids)["log_probs"].numpy()

    def start(self, batch: int) -> dict[str, Any]:
        return self._loaded.signatures["initial_state"](batch_size=self._tf.constant(batch))

    def step(self, ids, state) -> dict[str, Any]:
        """Feeds ids; returns the state after them."""
        answer = self._loaded.signatures["step"](ids=ids, **state)
        answer["log_probs"].numpy()
        return {name: part for name, part in answer.items() if name.startswith("state_")}

    def state_at(self, position: int) -> dict[str, Any]:
        """The state of one stream after so many tokens."""
        state = self.start(1)
        for begin in range(0, position, CHUNK):
            state = self.step(self.ids(1, min(CHUNK, position - begin)), state)
        return state

    def steps_from(self, state, tokens) -> Any:
        """A function that takes a step for each of `tokens` from `state`, anew each time."""

        def steps():
            now = state
            for token in tokens:
                now = self.step(token, now)

        return steps


def figures(model: str) -> dict[str, Any]:
    """Milliseconds and tokens a second by batch; the ratio of a far step's time to a near one's."""
    served = Served(model)
    works: dict[tuple[str, int], Work] = {}
    for batch in BATCHES:
        tokens = [served.ids(batch, 1) for _ in range(STEPS)]
        works["step", batch] = Work(served.steps_from(served.start(batch), tokens))
        ids = served.ids(batch, LENGTH)
        works["full", batch] = Work(lambda ids=ids: served.log_probs(ids))
    for work in works.values():
        work.function()
    alternate(ROUNDS, *works.values())
    result: dict[str, Any] = {}
    for (kind, batch), work in works.items():
        tokens = batch * (STEPS if kind == "step" else LENGTH)
        calls = STEPS if kind == "step" else 1
        result[f"{kind}_{batch}_ms"] = work.median / calls * 1e3
        result[f"{kind}_{batch}_tokens_per_second"] = tokens / work.median
    return result | positions(served)


def positions(served: Served) -> dict[str, Any]:
    """Times steps at both positions in turn; the tokens are the same at both."""
    tokens = [served.ids(1, 1) for _ in range(STEPS)]
    near, far = (
        Work(served.steps_from(served.state_at(position), tokens)) for position in (NEAR, FAR)
    )
    for work in (near, far):
        work.function()
    alternate(POSITION_ROUNDS, near, far)
    ratios = sorted(f / n for f, n in zip(far.seconds, near.seconds, strict=True))
    quarter = len(ratios) // 4
    return {
        f"step_at_{NEAR}_ms": near.median / STEPS * 1e3,
        f"step_at_{FAR}_ms": far.median / STEPS * 1e3,
        "position_ratio": statistics.median(ratios),
        "position_ratio_quickest": min(far.seconds) / min(near.seconds),
        "position_ratio_quartiles": [ratios[quarter], ratios[-1 - quarter]],
    }


def _register(model: str) -> None:
    @benchmark(f"serving_{model}", f"served {model}_python_docs: full passes, steps, a late step")
    def run():
        return figures(f"{model}_python_docs")


for _model in MODELS:
    _register(_model)


@benchmark("serving_late_steps", "the ratio of a late step's time to an early one's, once more")
def late_steps():
    """{model: [of the quickest turns, median, lower and upper quartile of all turns]}."""
    found = {}
    for name in LATE:
        timed = positions(Served(f"{name}_python_docs"))
        ratios = (
            *(timed["position_ratio_quickest"], timed["position_ratio"]),
            *timed["position_ratio_quartiles"],
        )
        found[name] = [round(ratio, 3) for ratio in ratios]
    return found


@benchmark("serving_small_weights", "size and test bits of exports with weights stored small")
def small_weights():
    """Of every model: {model: {type: [KiB of variables, bits]}}."""
    from keras_seq import pipelines

    data = pipelines.load("python_docs_char", batch_size=8, eval_batch_size=8, length=256)
    batches = [[part.numpy() for part in batch] for batch in data.test.take(TEST_BATCHES)]
    found: dict[str, Any] = {"tokens": int(sum(weight.sum() for *_, weight in batches))}
    for name in MODELS:
        model = f"{name}_python_docs"
        found[model] = {str(kind): stored(model, kind, batches) for kind in KINDS}
    return found


def stored(model: str, kind: str | None, batches) -> list[float]:
    """KiB of the variables of an export, and bits a token on some batches."""
    served = Served(model, kind)
    nll = count = 0.0
    for ids, targets, weight in batches:
        log_probs = served.log_probs(served.tensor(ids))
        nll -= (np.take_along_axis(log_probs, targets[..., None], -1)[..., 0] * weight).sum()
        count += weight.sum()
    return [round(served.kib, 1), round(float(nll / count / np.log(2)), 4)]


def tables(names: list[str]) -> str:
    """Markdown of the figures of some models, each measured in a process of its own."""
    from run import in_own_process

    head = [f"{kind}, batch {batch}" for kind in ("step", "full") for batch in BATCHES]
    rows = [f"| model | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    late = [
        f"| model | step at {NEAR} | step at {FAR:,} | ratio | middle half of the rounds |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        found = in_own_process(f"serving_{name}")
        if "error" in found:
            rows.append(f"| `{name}_python_docs` | failed: {found['error']} |")
            continue
        cells = [
            f"{found[f'{kind}_{batch}_ms']:.3g} ms, "
            f"{found[f'{kind}_{batch}_tokens_per_second']:,.0f}/s"
            for kind in ("step", "full")
            for batch in BATCHES
        ]
        rows.append(f"| `{name}_python_docs` | {' | '.join(cells)} |")
        low, high = found["position_ratio_quartiles"]
        late.append(
            f"| `{name}_python_docs` | {found[f'step_at_{NEAR}_ms']:.3g} ms | "
            f"{found[f'step_at_{FAR}_ms']:.3g} ms | {found['position_ratio']:.2f} | "
            f"{low:.2f} to {high:.2f} |"
        )
        print(f"{name}: done", file=sys.stderr, flush=True)
    return "\n".join([*rows, "", *late])


if __name__ == "__main__":
    print(tables(sys.argv[1:] or list(MODELS)))
