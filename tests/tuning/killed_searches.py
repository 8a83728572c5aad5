"""A program that searches in child processes and kills them; `test_search.py` starts it.

Keras is imported once, each child is forked from here. Usage: python killed_searches.py FOLDER
DATA PLAN, where PLAN is a JSON list of moments: `["write", name, n]` (when the n-th new file `name`
is written but not yet in its place), `["written", name, n]` (just after), `["epoch", trial, n]` (at
the end of the n-th epoch of a trial). The last child runs to the end.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

from conftest import TINY


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def search(folder: Path, data: Path, moment: list) -> None:
    """Begins or resumes the search and kills this process at the moment."""
    from keras_seq import _files, tuning, zoo
    from keras_seq.tuning import trial

    left = {"count": moment[2] if moment[:1] in (["write"], ["written"]) else 0}
    replace = os.replace

    def killing_replace(source, target):
        matches = left["count"] and Path(target).name == moment[1]
        left["count"] -= bool(matches)
        if matches and not left["count"] and moment[0] == "write":
            die()
        replace(source, target)
        if matches and not left["count"]:
            die()

    class KillingEnd(trial.EndAfter):
        def on_epoch_begin(self, epoch, logs=None):
            if moment[:1] == ["epoch"] and epoch == moment[2] and len(list_trials()) == moment[1]:
                die()

    def list_trials():
        return list(folder.glob("trial_*"))

    _files.os.replace = killing_replace
    trial.EndAfter = KillingEnd
    tuning.search(
        zoo.recipe("pru_python_docs").replace(**TINY),
        trials=2,
        epochs=2,
        space={"model.units": tuning.Choice((8, 16)), "model.layers": tuning.Int(1, 2)},
        data_dir=data,
        run_dir=folder,
        seed=0,
        resume=True,
        verbose=0,
    )


def main() -> None:
    folder, data, plan = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    import keras_tuner  # noqa: F401 - children inherit it

    import keras_seq.tuning  # noqa: F401

    for moment in [*plan, []]:
        child = os.fork()
        if child == 0:
            try:
                search(folder, data, moment)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(f"{moment}: {status}", flush=True)
        if status != (-signal.SIGKILL if moment else 0):
            sys.exit(f"{moment} ended with {status}")


if __name__ == "__main__":
    main()
