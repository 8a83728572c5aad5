"""`strategy`: on which devices a model is trained."""

import json
import os
from collections.abc import Sequence
from typing import Any

STRATEGIES = ("one", "mirrored", "multi_worker")
HEARTBEAT_SECONDS = 60  # after which a silent process is taken for dead
Devices = int | str | Sequence[str] | None

# One strategy for the same devices: TensorFlow numbers the messages of each from the start, so two
# of them in a process take each other's.
_MADE: dict[tuple[str, ...], Any] = {}


def strategy(name: str | None = "mirrored", devices: Devices = None) -> Any:
    """A `tf.distribute` strategy for `train`, or for a training loop of one's own.

    Every model of the library gives on several devices what it gives on one with the same global
    batch: each device takes its share of the rows, and gradients, clipping, weights of tokens,
    carried state and logged figures are those of the whole batch. Dropout masks differ between the
    devices.

    Asked for the same devices again, it returns the same object.

    Args:
        name: `"mirrored"` for several devices of this machine; `"multi_worker"` for all machines
            that the environment variable `TF_CONFIG` names, with all of their GPUs; `"one"` or
            `None` for one device.
        devices: a number of devices, or their names, as a list or separated by commas
            (`"GPU:0,GPU:1"`). By default all GPUs, or the CPU without any. Where there is no GPU, n
            devices are n logical ones of the CPU: good for tests, not faster. They can only be made
            before TensorFlow's first operation.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: for an unknown name, devices that are not there, or a missing `TF_CONFIG`.
        RuntimeError: if logical devices are asked for after TensorFlow's first operation.

    Example:

    ```python
    two = keras_seq.training.strategy("mirrored", devices=2)
    run = keras_seq.training.train("trellisnet_python_docs", strategy=two, max_steps=10)
    ```
    """
    import tensorflow as tf

    name = "one" if name is None else name
    if name not in STRATEGIES:
        known = ", ".join(map(repr, STRATEGIES))
        raise ValueError(f"`strategy` must be one of: {known}. Received: strategy={name!r}.")
    if name == "multi_worker":
        if devices is not None:
            raise ValueError(
                "`devices` goes with strategy 'mirrored'; 'multi_worker' takes all GPUs of each "
                f"machine. Received: devices={devices!r}. Choose among them with "
                "CUDA_VISIBLE_DEVICES."
            )
        check_cluster()
        if (name,) not in _MADE:
            _wait_longer_for_heartbeats()
            _MADE[name,] = tf.distribute.MultiWorkerMirroredStrategy()
        return _MADE[name,]
    if name == "one" and devices is None:
        return tf.distribute.get_strategy()
    names = _device_names(devices)
    if name == "one" and len(names) != 1:
        raise ValueError(
            f"strategy 'one' takes one device. Received: devices={devices!r}. "
            "Choose strategy 'mirrored'."
        )
    _make_logical_cpus(names)
    key = (name, *names)
    if key not in _MADE:
        one = tf.distribute.OneDeviceStrategy
        _MADE[key] = one(names[0]) if name == "one" else tf.distribute.MirroredStrategy(names)
    return _MADE[key]


def resolve(wanted: Any, devices: Devices = None) -> Any:
    """A strategy from what `train` is given: a name, a strategy, or `None` for the present one.

    Raises:
        ValueError: if devices are given to a strategy that has its own.
    """
    import tensorflow as tf

    if isinstance(wanted, tf.distribute.Strategy):
        if devices is not None:
            raise ValueError(
                "`devices` goes with the name of a strategy. "
                f"Received: devices={devices!r} and a {type(wanted).__name__}, which has its own."
            )
        return wanted
    if wanted is None and devices is None:
        return tf.distribute.get_strategy()  # the one in whose scope we are, or the default one
    return strategy("mirrored" if wanted is None else wanted, devices)


def check_cluster() -> None:
    """Checks that `TF_CONFIG` describes a cluster and this process's place in it.

    Raises:
        ValueError: if it does not.
    """
    text = os.environ.get("TF_CONFIG", "")
    example = (
        '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    problem = ""
    try:
        config = json.loads(text) if text else None
        if config is None:
            problem = "it is not set"
        else:
            kind, index = config["task"]["type"], int(config["task"]["index"])
            places = len(config["cluster"][kind])
            if not 0 <= index < places:
                problem = f"task {index} is not among {places} of type {kind!r}"
            elif kind not in ("chief", "worker"):
                problem = f"the task's type is {kind!r}, neither 'chief' nor 'worker'"
    except (ValueError, KeyError, TypeError) as error:
        problem = f"it can not be read ({type(error).__name__}: {error})"
    if problem:
        raise ValueError(
            "strategy 'multi_worker' needs the environment variable TF_CONFIG on every machine: "
            f"{problem}. For example: TF_CONFIG='{example}'"
        )


def _wait_longer_for_heartbeats() -> None:
    """Lets a process be silent for `HEARTBEAT_SECONDS` before it is taken for dead.

    TensorFlow's own ten seconds are too few on a machine with much to do. There is no public
    setting; if the private one moves, the ten seconds hold.
    """
    try:
        from tensorflow.python.distribute import multi_worker_util
        from tensorflow.python.eager import context

        config = json.loads(os.environ["TF_CONFIG"])
        jobs = {name: len(config["cluster"].get(name, ())) for name in ("chief", "worker")}
        present = context.context()
        if present.coordination_service is not None or sum(jobs.values()) < 2:
            return
        leader = multi_worker_util.coordination_leader(config["cluster"])
        present.configure_coordination_service(
            service_type="standalone",
            service_leader=leader,
            heartbeat_timeout_in_ms=1000 * HEARTBEAT_SECONDS,
        )
        listed = present.coordination_service.coordinated_job_list
        for name, count in jobs.items():
            if count:
                listed.add(name=name, num_tasks=count)
    except (ImportError, AttributeError, TypeError):
        return


def _device_names(devices: Devices) -> list[str]:
    """Names that TensorFlow knows; those of logical devices of the CPU, which may not be there."""
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    if devices is None:
        return [f"GPU:{i}" for i in range(gpus)] or ["CPU:0"]
    if isinstance(devices, str):
        devices = int(devices) if devices.strip().isdigit() else devices.split(",")
    if isinstance(devices, int):
        if devices < 1 or (gpus and devices > gpus):
            there = f"between 1 and {gpus}, the GPUs of this machine" if gpus else "positive"
            raise ValueError(f"`devices` must be {there}. Received: devices={devices}.")
        devices = [f"{'GPU' if gpus else 'CPU'}:{i}" for i in range(devices)]
    names = [_device_name(name) for name in devices]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`devices` must be different devices. Received: devices={names}.")
    absent = [n for n in names if n.startswith("GPU") and int(n[4:]) >= gpus]
    if absent:
        raise ValueError(f"This machine has {gpus} GPUs. Received: devices={names}.")
    return names


def _device_name(name: str) -> str:
    kind, _, number = name.strip().removeprefix("/").removeprefix("device:").partition(":")
    if kind.upper() not in ("CPU", "GPU") or not number.isdigit():
        raise ValueError(
            "`devices` must be a number, or names like GPU:0 or cpu:1 separated by commas. "
            f"Received: {name!r}."
        )
    return f"{kind.upper()}:{int(number)}"


def _make_logical_cpus(names: Sequence[str]) -> None:
    """Divides the CPU into logical devices, unless those of these names are there already."""
    import tensorflow as tf

    count = max((int(name[4:]) + 1 for name in names if name.startswith("CPU")), default=1)
    if count < 2:
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    made = tf.config.get_logical_device_configuration(cpu) or [None]
    if len(made) >= count:
        return
    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
    try:
        tf.config.set_logical_device_configuration(cpu, parts)
    except RuntimeError as error:
        raise RuntimeError(
            f"{count} logical devices of the CPU can not be made any more: TensorFlow runs "
            f"already, with {len(made)}. Call `strategy` before anything is computed, or train "
            "with `keras-seq train --devices` in a process of its own."
        ) from error
