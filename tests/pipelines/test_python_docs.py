"""The embedded corpus: disjoint topics, no leak. Its counts differ by Python version."""

import numpy as np
import pytest
from pipeline_files import scored_ids

from keras_seq import pipelines
from keras_seq.pipelines.python_docs import topic_splits


def test_topics_are_split_once_and_for_all():
    from pydoc_data.topics import topics

    splits = topic_splits()
    names = [name for split in splits.values() for name in split]
    assert sorted(names) == sorted(topics)
    sizes = {split: sum(map(len, texts.values())) for split, texts in splits.items()}
    total = sum(sizes.values())
    assert sizes["train"] > 0.8 * total
    for split in ("validation", "test"):
        assert 0.03 < sizes[split] / total < 0.12
        assert len(splits[split]) >= 3
    assert topic_splits() == splits


def test_no_paragraph_is_in_two_splits():
    paragraphs = {
        split: {" ".join(p.split()) for text in texts.values() for p in text.split("\n\n")} - {""}
        for split, texts in topic_splits().items()
    }
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not paragraphs[one] & paragraphs[other]


@pytest.mark.parametrize("name", ["python_docs", "python_docs_char"])
def test_load(name):
    data = pipelines.load(name, batch_size=8, eval_batch_size=1, length=64, history=16)
    for split, dataset in (("validation", data.validation), ("test", data.test)):
        ids = scored_ids(dataset)
        assert len(ids) == data.info["tokens"][split]
        assert len(list(dataset)) == int(dataset.cardinality())
    assert ids.max() < data.vocabulary.size and data.vocabulary.unk_id is not None
    assert np.mean(ids == data.vocabulary.unk_id) < (0.35 if name == "python_docs" else 0.01)
    x, y = next(iter(data.train))
    assert x.shape == (8, 80)
    assert np.array_equal(x[:, 1:], y[:, :-1])
    text = data.vocabulary.decode(ids).numpy().decode()
    words = {w for t in topic_splits()["test"].values() for w in t.split()}
    seen = text.replace("<unk>", " ").split()
    assert np.mean([word in words for word in seen]) > 0.9


def test_random_lengths_and_resume():
    data = pipelines.load("python_docs", batch_size=4, length=35, random_lengths=True, seed=3)
    shapes = [x.shape[1] for x, _ in data.epoch(1)]
    assert len(set(shapes)) > 5 and len(shapes) == data.steps_per_epoch
    rest = list(data.epoch(1, skip=10))
    whole = list(data.epoch(1))[10:]
    assert len(rest) == len(whole)
    for (a, b), (c, d) in zip(rest, whole, strict=True):
        assert np.array_equal(a, c) and np.array_equal(b, d)
