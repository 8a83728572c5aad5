"""What a run writes for people and their programs: metrics.csv, TensorBoard logs, curves.png."""

import csv
import io
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_seq import _files


def write_metrics(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes `metrics.csv`. The whole file is replaced, so it always agrees with the checkpoint."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _files.write_text(path, text.getvalue())


_SOLVER = ("_residual", "_steps", "_failures", "_diverged_in_a_row")  # of deep equilibria


def _tag(name: str) -> str:
    """The name of a curve: what the solver says stands together."""
    return f"solver/{name}" if name.endswith(_SOLVER) else name


class TensorBoardLogs:
    """Scalars for TensorBoard, with the optimizer step as their x axis.

    A resumed run says where it starts again; TensorBoard then leaves out what a killed
    process had logged beyond that.

    Args:
        folder: the run's `logs` folder.
        step: the step to start at.
    """

    def __init__(self, folder: Path, step: int = 0):
        self._folder = folder
        self._start = step
        self._writers = {}

    def write(self, part: str, step: int, scalars: Mapping[str, float]) -> None:
        """Writes scalars of `"train"` or `"validation"`."""
        from tensorboard.compat.proto import event_pb2, summary_pb2

        values = [
            summary_pb2.Summary.Value(tag=_tag(name), simple_value=value)
            for name, value in scalars.items()
            if math.isfinite(value)
        ]
        event = event_pb2.Event(
            wall_time=time.time(), step=step, summary=summary_pb2.Summary(value=values)
        )
        self._writer(part).add_event(event)

    def _writer(self, part: str):
        if part not in self._writers:
            from tensorboard.compat.proto import event_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter

            writer = EventFileWriter(str(self._folder / part), flush_secs=10)
            if self._start:
                start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
                writer.add_event(
                    event_pb2.Event(wall_time=time.time(), step=self._start + 1, session_log=start)
                )
            self._writers[part] = writer
        return self._writers[part]

    def flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def draw_curves(
    path: Path, rows: Sequence[Mapping[str, float]], metric: str, title: str, best: int | None
) -> bool:
    """Draws `curves.png`: metric and learning rate by epoch.

    Returns:
        Whether it was drawn; `False` without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        return False
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    epochs = [row["epoch"] for row in rows]
    for name, label, style in ((metric, "training", "C0"), (f"val_{metric}", "validation", "C1")):
        values = [row.get(name, math.nan) for row in rows]
        if any(map(math.isfinite, values)):
            upper.plot(epochs, values, f"{style}.-", label=label)
    if best is not None:
        upper.axvline(best, color="0.7", linewidth=1, zorder=0, label=f"best: epoch {best}")
    upper.set_title(title)
    upper.set_ylabel(metric.replace("_", " "))
    upper.grid(alpha=0.3)
    if upper.lines:
        upper.legend()
    lower.step(epochs, [row.get("learning_rate", math.nan) for row in rows], "C2.-", where="mid")
    lower.set_ylabel("learning rate")
    lower.set_xlabel("epoch")
    lower.grid(alpha=0.3)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    with _files.atomic(path, suffix=".png") as temporary:
        figure.savefig(temporary, dpi=110)
    return True
