"""Event files, the way TensorBoard reads them."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Events:
    """Writes one folder's event file, which begins with the first thing that is written.

    Args:
        folder: the folder; for TensorBoard, a run of that name.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: Any = None

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes numbers by name."""
        from tensorboard.compat.proto import summary_pb2

        value = summary_pb2.Summary.Value
        self._add([value(tag=tag, simple_value=v) for tag, v in values.items()], step)

    def pictures(self, values: Mapping[str, bytes], step: int) -> None:
        """Writes PNG data by name."""
        from tensorboard.compat.proto import summary_pb2

        shown = []
        for tag, data in values.items():
            width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
            image = summary_pb2.Summary.Image(
                width=width, height=height, colorspace=4, encoded_image_string=data
            )
            shown.append(summary_pb2.Summary.Value(tag=tag, image=image))
        self._add(shown, step)

    def text(self, tag: str, markdown: str) -> None:
        """Writes a text."""
        from tensorboard.plugins.text import summary_v2

        self.summary(summary_v2.text_pb(tag, markdown))

    def summary(self, summary: Any, step: int = 0) -> None:
        """Writes a plugin's summary."""
        from tensorboard.compat.proto import summary_pb2

        # The plugins' messages are TensorFlow's where that is loaded, the writer's TensorBoard's.
        own = summary_pb2.Summary.FromString(summary.SerializeToString())
        self._add(own.value, step)

    def _add(self, values: Any, step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        if self._writer is None:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter

            self._writer = EventFileWriter(str(self.folder))
        summary = summary_pb2.Summary(value=values)
        self._writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
