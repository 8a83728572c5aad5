"""Several machines train as one process does; one of them dies; the run goes on."""

import csv
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from small import on_a_tiny_text

from keras_seq.training.cluster import Cluster

CHANGES = {
    **on_a_tiny_text("trellisnet_python_docs"),
    "model.auxiliary_frequency": 1,
    "model.auxiliary_weight": 0.3,
}
PATIENCE = 400  # seconds for two processes on a machine with much else to do


def start(root: Path, name: str, index: int | None, workers: list[str], *more: str):
    """Starts a process; what it prints goes into files."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("TF_CONFIG", None)
    if index is not None:
        task = {"type": "worker", "index": index}
        environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    program = Path(__file__).with_name("one_machine.py")
    # The others have a path of their own: the machines need no folder in common but the text.
    folder = root / (name if not index else f"{name}-of-{index}")
    command = [sys.executable, program, root, folder, json.dumps(CHANGES), *more]
    with (
        (root / f"{name}-{index}.out").open("w") as out,
        (root / f"{name}-{index}.err").open("w") as err,
    ):
        return subprocess.Popen([str(c) for c in command], stdout=out, stderr=err, env=environment)


def run_two(root: Path, name: str, kill: tuple[int, int] | None = None) -> list[tuple[int, float]]:
    """Two processes on this machine; `kill` is the number of one and a step. Codes and times."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    workers = [f"localhost:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    more = [[str(kill[1])] if kill and kill[0] == i else [] for i in range(2)]
    processes = [start(root, name, i, workers, *more[i]) for i in range(2)]
    ends: dict[int, tuple[int, float]] = {}
    begun = time.monotonic()
    try:
        while len(ends) < 2 and time.monotonic() - begun < PATIENCE:
            for i, process in enumerate(processes):
                if i not in ends and process.poll() is not None:
                    ends[i] = (process.returncode, time.monotonic() - begun)
            time.sleep(0.1)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    assert len(ends) == 2, f"{name}: {ends}\n{(root / f'{name}-0.err').read_text()[-2000:]}"
    return [ends[0], ends[1]]


def told(root: Path, name: str, index: int | None) -> dict:
    return json.loads((root / f"{name}-{index}.out").read_text().splitlines()[-1])


def arrays(root: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(root / name / "backup" / "checkpoint.npz") as archive:
        names = [n for n in archive.files if n != "meta" and not n.startswith("replicas")]
        return {name: archive[name] for name in names}


def rows(root: Path, name: str) -> list[dict[str, float]]:
    with (root / name / "metrics.csv").open(newline="") as file:
        found = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a text and the run of a single process."""
    root = tmp_path_factory.mktemp("machines")
    letters = np.random.default_rng(0).integers(ord("a"), ord("m"), 4 * 8 * 6 + 8 + 61)
    text = letters.astype("uint8").tobytes()
    (root / "train.txt").write_bytes(text[:-61])  # six batches
    (root / "valid.txt").write_bytes(text[-61:])
    process = start(root, "alone", None, [])
    assert process.wait(PATIENCE) == 0, (root / "alone-None.err").read_text()[-2000:]
    return root


def check_as_alone(root: Path, name: str) -> None:
    alone, ours = arrays(root, "alone"), arrays(root, name)
    assert alone.keys() == ours.keys()
    assert any(key.startswith("carried/") for key in ours)
    for key, values in alone.items():
        np.testing.assert_allclose(ours[key], values, rtol=1e-6, atol=1e-6, err_msg=key)
    for row_of_one, row in zip(rows(root, "alone"), rows(root, name), strict=True):
        assert row == pytest.approx(row_of_one, rel=1e-5)


@pytest.mark.slow
def test_two_processes_train_as_one_does(root):
    codes = [code for code, _ in run_two(root, "two")]
    assert codes == [0, 0], (root / "two-0.err").read_text()[-2000:]
    check_as_alone(root, "two")
    alone, first, second = told(root, "alone", None), told(root, "two", 0), told(root, "two", 1)
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert second["losses"] == first["losses"]
    assert first["strategy"]["workers"] == 2
    assert [first["strategy"]["index"], second["strategy"]["index"]] == [0, 1]
    # The second one has nothing: neither a run folder nor, any more, the copy it worked with.
    assert not (root / "two-of-1").exists()
    assert not Path(second["folder"]).exists()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_and_the_run_goes_on(root, killed):
    name = f"killed{killed}"
    ends = run_two(root, name, kill=(killed, 9))
    code, at = ends[killed]
    left, later = ends[1 - killed]
    assert (code, left) == (-9, 1), (root / f"{name}-{1 - killed}.err").read_text()[-2000:]
    assert later - at < 120
    message = (root / f"{name}-{1 - killed}.err").read_text()
    assert "another of the 2 processes has ended" in message
    assert "--resume" in message
    meta = json.loads(bytes(np.load(root / name / "backup" / "checkpoint.npz")["meta"]))
    assert meta["step"] == 8  # a checkpoint every two steps
    codes = [code for code, _ in run_two(root, name)]
    assert codes == [0, 0], (root / f"{name}-0.err").read_text()[-2000:]
    check_as_alone(root, name)
    assert len(told(root, name, 0)["losses"]) == 4


# Without other processes: which rows of a batch each of them takes.


def cluster_of(index: int, workers: int, devices: int) -> Cluster:
    """What a process knows of a cluster that is not there."""
    cluster = Cluster(tf.distribute.get_strategy())
    cluster.strategy = SimpleNamespace(
        experimental_distribute_values_from_function=lambda function: [
            function(SimpleNamespace(replica_id_in_sync_group=number))
            for number in cluster.local_ids
        ]
    )
    cluster.workers, cluster.index, cluster.replicas = workers, index, workers * devices
    cluster.local_ids = tuple(range(index * devices, (index + 1) * devices))
    return cluster


@pytest.mark.parametrize(("workers", "devices"), [(2, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("known", [True, False])
def test_every_row_is_on_one_device(workers, devices, known):
    """Batches of 12, 12 and 5 rows."""
    x = np.arange(29 * 2).reshape(29, 2)
    data = tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(12)
    whole = data.take(2) if known else data
    if known:
        whole = tf.data.Dataset.from_tensor_slices((x[:24], x[:24, 0]))
        whole = whole.batch(12, drop_remainder=True)
    size = 12 if known else None
    clusters = [cluster_of(index, workers, devices) for index in range(workers)]
    parts = [list(cluster.rows(whole)) for cluster in clusters]
    served = list(clusters[0].rows(whole, whole=True))
    for number, (ids, _) in enumerate(whole):
        found = []
        for cluster, part in zip(clusters, parts, strict=True):
            mine = part[number]
            again = served[number * workers + cluster.index]
            np.testing.assert_array_equal(again[0], mine[0])
            values, firsts = cluster.of_replicas(mine, size)
            assert len(values) == devices
            for value, first in zip(values, firsts, strict=True):
                np.testing.assert_array_equal(value[:, 0], first)
                found.append(value.numpy())
        if len(ids) == 12:
            assert {len(value) for value in found} == {12 // (workers * devices)}
        np.testing.assert_array_equal(np.concatenate(found), ids)
