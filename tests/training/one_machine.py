"""One machine of a training on several; `test_machines.py` starts it with `TF_CONFIG` set.

Usage: python one_machine.py FOLDER RUN CHANGES [STEPS]: it trains on the text of FOLDER to the run
folder RUN, or goes on with it, and prints the status as JSON. With STEPS, the process ends itself
with SIGKILL after so many steps. It exits with code 1 if the training fails.
"""

import json
import os
import signal
import sys
from pathlib import Path

import keras

from keras_seq import training, zoo


class Kill(keras.callbacks.Callback):
    """Ends this process."""

    def __init__(self, steps: int):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


class Noted(keras.callbacks.Callback):
    """The loss after each step."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float((logs or {})["loss"]))


def main() -> None:
    folder, run_dir, changes = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    noted = Noted()
    callbacks: list = [Kill(int(sys.argv[4]))] if len(sys.argv) > 4 else [noted]
    recipe = zoo.recipe("trellisnet_python_docs").replace(**changes)
    several = "TF_CONFIG" in os.environ
    try:
        run = training.train(
            recipe,
            folder,
            run_dir,
            resume=True,
            callbacks=callbacks,
            verbose=2,
            checkpoint_steps=2,
            strategy="multi_worker" if several else None,
        )
    except training.TrainingError as error:
        print(f"failed: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    print(json.dumps({"folder": str(run.folder), "losses": noted.losses, **run.status}), flush=True)


if __name__ == "__main__":
    main()
