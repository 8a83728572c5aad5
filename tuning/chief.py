"""KerasTuner's chief, which hands trials to workers in other processes and outlives them.

The environment says who is who, as KerasTuner's users know it: `KERASTUNER_TUNER_ID` (`chief`, or
any other name for a worker), `KERASTUNER_ORACLE_IP` and `KERASTUNER_ORACLE_PORT`.
"""

import os
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

LOST_AFTER = 30.0  # seconds without a sign of life after which a worker is taken for dead
GRACE = 10.0  # seconds that idle workers have, at the end, to hear that all is done
VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def is_parallel() -> bool:
    """Whether this process is part of a search in several processes.

    Raises:
        ValueError: if the environment says only half of what it must.
    """
    given = [name for name in VARIABLES if os.environ.get(name)]
    if "KERASTUNER_ORACLE_IP" not in given:
        return False
    missing = sorted(set(VARIABLES) - set(given))
    if missing:
        raise ValueError(
            f"A search in several processes needs {', '.join(VARIABLES)} in the environment. "
            f"Missing: {', '.join(missing)}."
        )
    return True


def is_chief() -> bool:
    """Whether this process hands out the trials and runs none."""
    return is_parallel() and "chief" in os.environ["KERASTUNER_TUNER_ID"]


def is_worker() -> bool:
    """Whether this process runs trials that a chief hands out."""
    return is_parallel() and not is_chief()


class _Watch:
    """Tells which workers are gone: their trial's file has not been touched for a while.

    Times are compared with each other only, never with this machine's clock.
    """

    def __init__(self, alive_file: Callable[[str], Path]):
        self.alive_file = alive_file
        self.seen: dict[str, tuple[str, float | None, float]] = {}

    def lost(self, ongoing: dict[str, str]) -> list[str]:
        now = time.monotonic()
        gone = []
        for tuner_id, trial_id in ongoing.items():
            path = self.alive_file(trial_id)
            touched = path.stat().st_mtime if path.exists() else None
            former = self.seen.get(tuner_id)
            if former is None or former[:2] != (trial_id, touched):
                self.seen[tuner_id] = (trial_id, touched, now)
            elif now - former[2] > LOST_AFTER:
                gone.append(tuner_id)
                del self.seen[tuner_id]
        return gone


def serve(oracle: Any, alive_file: Callable[[str], Path]) -> None:
    """Hands out trials until the search is done.

    A trial whose worker is gone goes to the next one that asks, which continues it from its last
    checkpoint; a worker that comes back under the same name gets its own trial again.

    Args:
        oracle: what to try.
        alive_file: number of a trial → the file that its worker keeps touching.

    Raises:
        RuntimeError: if the port is taken.
    """
    import grpc
    from keras_tuner.src import protos
    from keras_tuner.src.distribute import oracle_chief

    address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    servicer = oracle_chief.OracleServicer(oracle)
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    if not server.add_insecure_port(address):
        raise RuntimeError(f"The chief can not listen on {address}: is the port taken?")
    server.start()
    watch = _Watch(alive_file)
    try:
        while not servicer.stop_triggered:
            time.sleep(0.5)
            ongoing = dict(oracle.ongoing_trials)
            for tuner_id in watch.lost({name: trial.trial_id for name, trial in ongoing.items()}):
                oracle.abandon(tuner_id)
        until = time.monotonic() + GRACE
        while oracle.tuner_ids and time.monotonic() < until:
            time.sleep(0.2)
    finally:
        server.stop(1.0).wait()
