"""KerasTuner's oracles and tuner, such that a search may be killed at any moment."""

import contextlib
import functools
import io
import json
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras

from keras_seq import _files
from keras_seq._reading import read_object
from keras_seq.gradients import graphs_released
from keras_seq.pipelines import MissingDataError
from keras_seq.tuning.chief import is_chief, is_parallel, serve
from keras_seq.tuning.hparams import log_end, log_start
from keras_seq.tuning.hypermodel import keras_tuner_module
from keras_seq.tuning.results import RESTORE
from keras_seq.tuning.trial import TrialFailed, Trials, save_result, values_of

NAMES = ("random", "hyperband", "bayesian")
RUN = "run"  # the run folder in a trial's folder
ALIVE = "alive"  # the file that a trial at work keeps touching
BEAT = 2.0  # seconds between two touches
NEVER = 10**9  # failed trials in a row after which to give up


def make_oracle(
    name: str, trials: Trials, number: int | None, epochs: int, seed: int | None
) -> Any:
    """The search algorithm of a name.

    Args:
        name: `"random"`, `"hyperband"` or `"bayesian"`.
        trials: how trials are trained.
        number: trials at most; `None` for one whole pass of Hyperband.
        epochs: epochs of a trial, for Hyperband of the longest.
        seed: seed of the values that are tried.
    """
    keras_tuner = keras_tuner_module()
    if name not in NAMES:
        raise ValueError(f"`tuner` must be one of: {', '.join(NAMES)}. Received: tuner={name!r}.")
    goal = keras_tuner.Objective(trials.objective.name, trials.objective.direction)
    options: dict[str, Any] = {
        "objective": goal,
        "seed": None if seed is None else seed + 1,  # KerasTuner takes 0 for none
        "max_consecutive_failed_trials": NEVER,
    }
    if name == "hyperband":
        passes = 1 if number is None else NEVER
        oracle = _durable(keras_tuner.oracles.HyperbandOracle)(
            max_epochs=epochs, hyperband_iterations=passes, **options
        )
        oracle.max_trials = number
    elif name == "random":
        oracle = _durable(keras_tuner.oracles.RandomSearchOracle)(max_trials=number, **options)
    else:
        first = max(2, min(3 * len(trials.space), (number or 0) // 3))
        oracle = _durable(keras_tuner.oracles.BayesianOptimizationOracle)(
            max_trials=number, num_initial_points=first, **options
        )
    oracle.verbose = 0
    return oracle


@functools.cache
def _durable(base: Any) -> Any:
    """An oracle class that never leaves half a file, and loses no trial."""
    synchronized = keras_tuner_module().synchronized

    class Durable(base):
        """Files are replaced as a whole; the first trial has the defaults."""

        def save(self):
            _write_state(self._get_oracle_fname(), self.get_state())

        def _save_trial(self, trial):
            path = Path(self._get_trial_dir(trial.trial_id), "trial.json")
            _write_state(path, trial.get_state())

        def set_state(self, state):
            super().set_state(state)
            self._running = dict(self.ongoing_trials)

        def reload(self):
            for file in (*Path(self._project_dir).glob("trial_*/trial.json"), _oracle_file(self)):
                if file.exists():
                    read_object(file, "a part of a search", RESTORE)  # its checksum
            super().reload()
            # A trial whose file is written before it is in the oracle's had not begun.
            for trial_id in set(self.trials) - set(self.start_order):
                del self.trials[trial_id]
                shutil.rmtree(self._get_trial_dir(trial_id), ignore_errors=True)
            # One that has ended is still among the running ones for a moment.
            waiting = [i for i in self._retry_queue if self.trials[i].status not in _ENDED]
            self._retry_queue = list(dict.fromkeys(waiting))
            if is_chief():  # its workers may have gone on all the while
                for tuner_id, trial in self._running.items():
                    if trial.trial_id in self._retry_queue:
                        self._retry_queue.remove(trial.trial_id)
                        self.ongoing_trials[tuner_id] = trial
                        self.tuner_ids.add(tuner_id)

        @synchronized
        def create_trial(self, tuner_id):
            trial = super().create_trial(tuner_id)
            if trial.status == "STOPPED" and self.ongoing_trials:
                trial.status = "IDLE"  # another worker may fail and leave its trial
                self.tuner_ids.add(tuner_id)
            return trial

        @synchronized
        def end_trial(self, trial):
            super().end_trial(trial)
            if trial.trial_id in self._retry_queue and trial.status in _ENDED:
                self._retry_queue.remove(trial.trial_id)

        @synchronized
        def abandon(self, tuner_id):
            """Takes a trial from a worker that is gone; the next worker goes on with it."""
            trial = self.ongoing_trials.pop(tuner_id, None)
            self.tuner_ids.discard(tuner_id)
            if trial is not None:
                self._retry_queue.append(trial.trial_id)
                self.save()

        def populate_space(self, trial_id):
            with _one_thread():
                return super().populate_space(trial_id)

        def _random_values(self):
            if self.trials:
                return super()._random_values()
            hps = keras_tuner_module().HyperParameters()
            for hp in self.hyperparameters.space:
                hps.merge([hp])
                if hps.is_active(hp):
                    hps.values[hp.name] = hp.default
            return hps.values

    Durable.__name__ = base.__name__
    return Durable


def _write_state(path: str | Path, state: Any) -> None:
    """Writes what KerasTuner reads again, with a checksum that it leaves alone."""
    state = json.loads(json.dumps(state))
    _files.write_text(path, json.dumps(_files.with_checksum(state)))


def _oracle_file(oracle: Any) -> Path:
    return Path(oracle._get_oracle_fname())


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Small matrices on many threads cost the Gaussian process many times what it needs."""
    with contextlib.ExitStack() as limits:
        with contextlib.suppress(ImportError):
            import threadpoolctl  # comes with scikit-learn

            limits.enter_context(threadpoolctl.threadpool_limits(1))
        yield


_ENDED = ("COMPLETED", "FAILED")


def make_tuner(trials: Trials, oracle: Any, folder: Path, report: Callable[[Any], None]) -> Any:
    """A tuner that trains each trial in a run folder of its own.

    Args:
        trials: how trials are trained.
        oracle: what to try.
        folder: the search folder.
        report: called with each trial that has ended here.
    """
    keras_tuner = keras_tuner_module()
    errors = keras_tuner.errors

    class RecipeTuner(keras_tuner.Tuner):
        """Trains the trials of an oracle."""

        def _populate_initial_space(self):
            hp = self.oracle.get_space()
            trials.declare(hp)
            self.oracle.update_space(hp)

        def save(self):
            if not self._is_worker():
                self.oracle.save()
            _files.write_text(self._get_tuner_fname(), "{}")

        def pre_create_trial(self):
            if is_parallel():
                time.sleep(0.3)

        def search(self):
            if is_chief():
                serve(self.oracle, lambda trial: Path(self.get_trial_dir(trial), ALIVE))
                return
            super().search()

        def _try_run_and_update_trial(self, trial):
            """As KerasTuner does it, without a traceback of what is expected to fail."""
            try:
                self._run_and_update_trial(trial)
                trial.status = "COMPLETED"
            except errors.FatalError:
                raise
            except errors.FailedTrialError as error:
                trial.status, trial.message = "FAILED", str(error)
            except Exception:
                trial.status, trial.message = "INVALID", traceback.format_exc()

        def run_trial(self, trial):
            own = Path(self.get_trial_dir(trial.trial_id))
            values = trial.hyperparameters.values
            former = values.get("tuner/trial_id")
            keras.backend.clear_session()  # graphs of former trials
            try:
                with beating(own / ALIVE), graphs_released():
                    if is_parallel():
                        wait_for(own / RUN)
                    log_start(own, trial.trial_id, values_of(trial.hyperparameters), trials)
                    result = trials.run(
                        values_of(trial.hyperparameters),
                        own / RUN,
                        former=None if former is None else Path(self.get_trial_dir(former), RUN),
                        epochs=values.get("tuner/epochs"),
                    )
            except TrialFailed as error:
                save_result(own, {"reason": str(error)})
                raise errors.FailedTrialError(str(error)) from None
            except MissingDataError as error:
                raise errors.FatalRuntimeError(str(error)) from error
            except Exception as error:
                save_result(own, {"reason": f"{type(error).__name__}: {error}"[:500]})
                raise
            save_result(own, result)
            return {trials.objective.name: result["value"]}

        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            own = Path(self.get_trial_dir(trial.trial_id))
            log_end(own, trial.status == "COMPLETED")
            report(trial)

    with contextlib.redirect_stdout(io.StringIO()):  # it says where it reloads from
        tuner = RecipeTuner(
            oracle,
            keras_tuner.HyperModel(),  # asked for, but `run_trial` needs none
            directory=str(folder.parent),
            project_name=folder.name,
        )
    tuner.save()  # so that a search which is killed in its first trial goes on, too
    return tuner


def wait_for(folder: Path) -> None:
    """Waits as long as another process trains in a run folder.

    On a machine that stands still for a while, a worker may be taken for dead that is not. The one
    that gets its trial waits, and then finds it done, or goes on with it.
    """
    while folder.is_dir():
        try:
            with _files.lock(folder):
                return
        except RuntimeError:
            time.sleep(BEAT)


@contextlib.contextmanager
def beating(path: Path) -> Iterator[None]:
    """Touches a file all the time, as a sign of life to the chief."""
    ended = threading.Event()

    def beat():
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                path.touch()

    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)
