"""A program that trains tiny models in child processes and kills them; `test_resume.py` starts it.

Keras is imported once. Each child is forked from here, trains until it is killed at the moment that
its line of the plan names, and the next one resumes. Usage: python killed_runs.py FOLDER PLAN,
where PLAN is a JSON object: run name → {"changes": recipe changes, "kills": [moment, ...]}, and
perhaps "start": the name of a run above whose weights it begins with.

A moment is `["step", n]` (after step n of the run), `["write", name, n]` (when the n-th new file
`name` is written but not yet in its place) or `["written", name, n]` (just after); an empty list
lets the run end.
"""

import json
import os
import signal
import sys
from pathlib import Path


def train(folder: Path, changes: dict, moment: list, steps: int | None, start: str | None) -> None:
    """Begins or resumes a run and kills this process at the moment."""
    import keras

    from keras_seq import _files, zoo
    from keras_seq.training import train

    class Kill(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = 0

        def on_train_batch_end(self, batch, logs=None):
            self.seen += 1
            if moment[:1] == ["step"] and int(self.model.optimizer.iterations) == moment[1]:
                die()

        def get_state(self):
            return self.seen

        def set_state(self, state):
            self.seen = state

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

    _files.os.replace = killing_replace
    recipe = zoo.recipe("trellisnet_python_docs").replace(**changes)
    train(
        recipe,
        data_dir=folder.parent,
        run_dir=folder,
        resume=True,
        start=None if start is None or (folder / "recipe.json").exists() else folder.parent / start,
        max_steps=steps,
        checkpoint_steps=2,
        callbacks=[Kill()],
        verbose=0,
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    root, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
    import keras_seq.training  # noqa: F401 - children inherit it

    for name, entry in plan.items():
        for moment in [*entry["kills"], []]:
            child = os.fork()
            if child == 0:
                try:
                    steps, start = entry.get("steps"), entry.get("start")
                    train(root / name, entry["changes"], moment, steps, start)
                except BaseException:
                    import traceback

                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            expected = -signal.SIGKILL if moment else 0
            print(f"{name} {moment}: {status}", flush=True)
            if status != expected:
                sys.exit(f"{name}: {moment} ended with {status}, not {expected}")


if __name__ == "__main__":
    main()
