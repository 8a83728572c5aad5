"""One process of a search in several; `test_search.py` starts a chief and workers with it.

Usage: python one_of_many.py FOLDER DATA [die | resume]; with `die`, it is killed in its first
trial's second epoch, with `resume` it goes on with the search in the folder.
"""

import os
import signal
import sys

from conftest import TINY

from keras_seq import tuning, zoo
from keras_seq.tuning import chief, trial, tuners


class Deadly(trial.EndAfter):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)


if "die" in sys.argv:
    trial.EndAfter = Deadly
chief.LOST_AFTER, tuners.BEAT = 4.0, 0.5
tuning.search(
    zoo.recipe("pru_python_docs").replace(**TINY),
    trials=4,
    epochs=2,
    space={"model.units": tuning.Int(4, 16)},
    data_dir=sys.argv[2],
    run_dir=sys.argv[1],
    seed=0,
    resume="resume" in sys.argv,
)
