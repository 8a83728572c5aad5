"""The options of `train` about devices, and the command `data-service`."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from keras_seq import training
from keras_seq.cli.app import app

TINY = (
    "embedding_dim=8",
    "model.units=6",
    "output_units=8",
    "levels=2",
    "data.name=text",
    'data.options={"cache_dir": false}',
    "batch_size=4",
    "eval_batch_size=2",
    "length=8",
)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "keras_seq", *map(str, arguments)]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--strategy", "both"), 2, "--strategy must be one of: one, mirrored, multi_worker"),
        (("--strategy", "multi_worker"), 1, "needs the environment variable TF_CONFIG"),
        (("--devices", "TPU:0"), 1, "names like GPU:0"),
        (("--data-service-share", "a:0/2", "--max-steps", "1"), 1, "needs `data_service`"),
    ],
)
def test_what_does_not_fit(arguments, code, message, monkeypatch, tmp_path):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", *arguments])
    assert (result.exit_code, message in result.output) == (code, True), result.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_two_devices_fed_by_a_service(tmp_path):
    letters = np.random.default_rng(0).integers(ord("a"), ord("m"), 330).astype("uint8").tobytes()
    (tmp_path / "train.txt").write_bytes(letters[:210])
    (tmp_path / "valid.txt").write_bytes(letters[210:])
    settings = [word for setting in TINY for word in ("--set", setting)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    service = subprocess.Popen(
        command("data-service", "--port", 0, "--json"),
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert service.stdout is not None
        lines = iter(service.stdout.readline, "")
        address = json.loads("".join(next(lines) for _ in range(3)))["address"]
        train = ["train", "--data-dir", tmp_path, "--run-dir", tmp_path / "run", "--json"]
        steps = ["--epochs", 1, "--max-steps", 3]
        options = ["--strategy", "mirrored", "--devices", "cpu:0,cpu:1", "--data-service", address]
        for more in ([*settings, *steps, *options], ["--resume", "--max-steps", 5]):
            result = subprocess.run(
                command(*train, *more),
                capture_output=True,
                text=True,
                timeout=500,
                env=environment,
                check=False,
            )
            assert result.returncode == 0, result.stderr[-2000:]
            status = json.loads(result.stdout)
            # The second time, the devices are those that the run remembers.
            assert status["strategy"]["replicas"] == 2
            assert status["strategy"]["devices"] == "cpu:0,cpu:1"
    finally:
        service.send_signal(signal.SIGINT)
    assert service.wait(60) == 0
    assert status["step"] == 5
    assert training.evaluate(tmp_path / "run", split="validation")["tokens"] == 120
