"""`load`, `names`, `options`, and how a new data set is added."""

import dataclasses
import subprocess
import sys

import pytest
import tensorflow as tf

from keras_seq import pipelines
from keras_seq.pipelines import registry
from keras_seq.pipelines.epochs import EpochSource, shuffled_batches

NAMES = {
    "adding",
    "copy_memory",
    "perm_mnist",
    "ptb_char",
    "ptb_word",
    "python_docs",
    "python_docs_char",
    "seq_cifar10",
    "seq_mnist",
    "text",
    "wikitext103",
    "wikitext2",
}


def test_names():
    assert set(pipelines.names()) >= NAMES
    assert pipelines.names() == sorted(pipelines.names())


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="ptb_word"):
        pipelines.load("ptb", batch_size=2)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_unknown_option_lists_the_known_ones(name):
    with pytest.raises(ValueError) as caught:
        pipelines.load(name, batch_size=2, bptt=3)
    for known in pipelines.options(name):
        assert f"{known}=" in str(caught.value)


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"batch_size": 2.0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"batch_size": 2, "eval_batch_size": 0}, "eval_batch_size"),
        ({"batch_size": 2, "length": -1}, "length"),
        ({"batch_size": 2, "history": -1}, "history"),
        ({"batch_size": 2}, "`length` must be given"),
    ],
)
def test_sizes_are_checked(arguments, word):
    with pytest.raises(ValueError, match=word):
        pipelines.load("python_docs", **arguments)


def test_a_new_family_is_one_registered_function(monkeypatch):
    monkeypatch.setattr(registry, "_loaders", dict(registry._loaders))

    @dataclasses.dataclass(frozen=True)
    class Options:
        size: int = 7

    @pipelines.register("squares", Options())
    def squares(request, options):
        source = EpochSource(
            lambda e: shuffled_batches(e, request.seed, options.size, request.batch_size),
            lambda rows: (rows, rows**2),
            options.size // request.batch_size,
        )
        return pipelines.Data(
            "squares", source.repeated(), None, None, info={}, epoch_fn=source.epoch
        )

    assert "squares" in pipelines.names() and pipelines.options("squares") == {"size": 7}
    data = pipelines.load("squares", batch_size=2, size=9)
    assert data.steps_per_epoch == 4 == len(list(data.train))
    x, y = next(iter(data.epoch(1)))
    assert tf.reduce_all(y == x**2)

    def other(request, options):
        raise NotImplementedError

    other.__module__ = "elsewhere"
    with pytest.raises(ValueError, match="exists already"):
        pipelines.register("squares", Options())(other)


@pytest.mark.slow
def test_import_is_light():
    code = (
        "import sys, keras_seq.pipelines as p; p.names(); "
        "heavy = {'tensorflow_datasets', 'tensorflow_text'} & set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
