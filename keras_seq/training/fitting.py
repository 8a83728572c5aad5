"""One process's work on a run: the epochs from the last checkpoint to the end."""

import contextlib
from collections.abc import Iterator, Sequence

import keras

from keras_seq._tasks import metric_of
from keras_seq.pipelines import Data
from keras_seq.training import best_weights, building, starting
from keras_seq.training.checkpoint import Checkpoint
from keras_seq.training.cluster import Cluster
from keras_seq.training.data_service import Source
from keras_seq.training.interruption import Interruption
from keras_seq.training.loop import Loop
from keras_seq.training.outputs import draw_curves, write_metrics
from keras_seq.training.progress import Reporter
from keras_seq.training.run import Run
from keras_seq.training.schedules import make_schedule
from keras_seq.training.session import Limits, Session
from keras_seq.training.state import Progress, StopRun, TrainingError
from keras_seq.zoo import Recipe


class Training:
    """One process's work on a run, once recipe, data and model are there.

    Args:
        run: the run folder; for a process that is not the chief, one of its own.
        recipe: its recipe.
        data: its data.
        limits: its length.
        reporter: what shows the progress to people.
        cluster: the processes that train together.
        source: where training batches come from.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        data: Data,
        limits: Limits,
        reporter: Reporter,
        cluster: Cluster,
        source: Source,
    ):
        self.run = run
        self.recipe = recipe
        self.data = data
        self.limits = limits
        self.reporter = reporter
        self.cluster = cluster
        self.source = source

    def go(self, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Trains to the end of the run.

        Raises:
            TrainingError: if the run had to be stopped.
        """
        checkpoint = Checkpoint.load(self.run.checkpoint_file)
        progress = Progress() if checkpoint is None else Progress.from_meta(checkpoint.meta)
        if progress.epoch >= self.limits.epochs or progress.step >= self.limits.steps:
            self.reporter.note(f"{self.run.folder}: finished already.")
            self._status(progress, "finished", "all epochs are done")
            return
        schedule = make_schedule(
            self.recipe.schedule, self.recipe.optimizer.learning_rate, self.limits.steps
        )
        if checkpoint is None and starting.load(model, self.run):
            origin = self.run.status.get("start", {}).get("run", self.run.start_file)
            self.reporter.note(f"The weights are the best ones of {origin}.")
        rate, devices = schedule.optimizer_rate(), self.cluster.replicas
        building.compile_model(model, self.recipe, rate, devices)
        if devices > 1 and self.recipe.jit_compile:
            self.reporter.note(f"No XLA: it does not compile a step for {devices} devices.")
        with Interruption(self.reporter.note) as interrupted:
            session = Session(
                self.run,
                self.recipe,
                schedule,
                self.limits,
                progress,
                callbacks,
                self.reporter,
                interrupted,
                self.cluster,
            )
            session.set_model(model)
            if checkpoint is not None:
                checkpoint.restore(model)
                session.resumed = checkpoint
                self._settle(progress)
                write_metrics(self.run.metrics_file, progress.rows)
                place = f"epoch {progress.epoch + 1}, step {progress.step_in_epoch}"
                self.reporter.note(f"Resuming {self.run.folder} at {place}.")
            self._status(progress, "running", "")
            self._fit(model, session)

    def _settle(self, progress: Progress) -> None:
        """The best weights of a run that goes on are those of its rows."""
        row, run = best_weights.best_row(progress.rows, self.recipe.monitor), self.run
        found = best_weights.settle(run.weights_file, run.former_weights_file, row)
        if row is not None and not found and self.cluster.chief:
            self.reporter.note(
                f"The weights of the best epoch, {int(row['epoch'])}, are gone; those of the next "
                "better one will be kept."
            )

    def _fit(self, model: keras.Model, session: Session) -> None:
        progress = session.progress
        state, reason = "finished", "all epochs are done"
        alone = self.cluster.workers == 1
        try:
            fit = model.fit if alone else Loop(model, self.cluster, self.data).fit
            with _one_training(model):
                session.begin()
                if not progress.step:
                    session.save()
                while progress.epoch < self.limits.epochs and progress.step < self.limits.steps:
                    fit(
                        self._epoch(progress),
                        initial_epoch=progress.epoch,
                        epochs=progress.epoch + 1,
                        validation_data=self.data.validation,
                        callbacks=[session],
                        shuffle=False,  # the pipelines shuffle
                        verbose=0,
                    )
            if progress.epoch < self.limits.epochs:
                reason = f"{progress.step} steps are done"
        except StopRun as stop:
            state, reason = "finished", stop.reason
            if stop.failed or stop.reason == "interrupted":
                state = "stopped"
            if stop.failed:
                self._keep_last_good(model)
                hint = (
                    "Lower the learning rate or `optimizer.global_clipnorm`, or try another seed."
                )
                text = f"The run was stopped: {stop.reason}. {hint}"
                raise TrainingError(text) from None
        except KeyboardInterrupt:
            state, reason = "stopped", "interrupted"
            raise
        except Exception as error:
            lost = self.cluster.lost(error)
            state, reason = "stopped", lost or f"{type(error).__name__}: {error}"
            raise
        finally:
            self.reporter.close()
            session.end()
            self._status(progress, state, reason)
            self._draw(progress)

    def _epoch(self, progress: Progress):
        """The batches that are left of the present epoch and of the run."""
        done = progress.step_in_epoch
        left = self.limits.steps - progress.step
        return self.source.batches(progress.epoch, done, left)

    def _keep_last_good(self, model: keras.Model) -> None:
        checkpoint = Checkpoint.load(self.run.checkpoint_file)
        if checkpoint is not None:
            checkpoint.restore_weights(model)
            step = checkpoint.meta["step"]
            self.reporter.note(f"The last good weights, of step {step}, are kept.")

    def _status(self, progress: Progress, state: str, reason: str) -> None:
        best = self.run.best_epoch
        self.run.update_status(
            state=state,
            reason=reason,
            epoch=progress.epoch,
            step=progress.step,
            seconds=round(progress.seconds, 1),
            best_epoch=best,
            best=None if best is None else self.run.history[best - 1],
        )

    def _draw(self, progress: Progress) -> None:
        if not progress.rows or not self.cluster.chief:
            return
        metric = metric_of(self.recipe.reported.metric).key
        if metric not in progress.rows[-1]:
            metric = self.recipe.monitor.removeprefix("val_")
        drawn = draw_curves(
            self.run.folder / "curves.png",
            progress.rows,
            metric,
            self.recipe.name,
            self.run.best_epoch,
        )
        if not drawn:
            self.reporter.note(
                'No curves.png: it needs matplotlib (pip install "keras-seq[plots]").'
            )


@contextlib.contextmanager
def _one_training(model: keras.Model) -> Iterator[None]:
    """Lets `fit` be called once an epoch without the optimizer taking each time for the last."""
    optimizer = model.optimizer
    finalize = optimizer.finalize_variable_values
    optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        optimizer.finalize_variable_values = finalize
