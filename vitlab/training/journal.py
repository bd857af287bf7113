"""Where the lines of metrics go: into the run, and where asked for into TensorBoard's events.

The events are a copy, written anew from metrics.jsonl whenever a training starts or resumes. So
no step is in them twice, and they may be deleted at any time.
"""

import shutil
import time
from collections.abc import Mapping
from typing import Any, Self

from vitlab.errors import VitlabError
from vitlab.run import Run

TAGS = {
    "loss": "{split}/loss",
    "accuracy": "{split}/accuracy",
    "lr": "lr",
    "grad_norm": "grad_norm",
    "images_per_second": "images_per_second",
}
"""Under which tag TensorBoard shows a key of a line of metrics."""


class MetricsLogger:
    """Writes lines of metrics.

    Args:
        run: the run they belong to, its metrics cut back to where training goes on.
        tensorboard: write events as well.
    """

    def __init__(self, run: Run, tensorboard: bool):
        self.run = run
        self.events = Events(run) if tensorboard else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.events is not None:
            self.events.close()

    def add(self, line: Mapping[str, Any]) -> None:
        """Write a line."""
        self.run.append_metrics(line)
        if self.events is not None:
            self.events.add(line)


class Events:
    """Writes lines of metrics as events into a file of their own, those of the run first."""

    def __init__(self, run: Run):
        from tensorboard.summary.writer.record_writer import RecordWriter

        shutil.rmtree(run.events, ignore_errors=True)
        run.events.mkdir()
        # torch's SummaryWriter would put the name of this host into the name of the file.
        self._records = RecordWriter(open(run.events / "events.out.tfevents.vitlab", "wb"))  # noqa: SIM115
        self._write(file_version="brain.Event:2")
        for line in run.metrics:
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        """Write a line's numbers; TensorBoard sees them at once."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]

        values = [
            Summary.Value(tag=tag.format(**line), simple_value=line[key])
            for key, tag in TAGS.items()
            if key in line
        ]
        self._write(step=line["step"], summary=Summary(value=values))

    def close(self) -> None:
        """Close the file."""
        self._records.close()

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]

        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())
        self._records.flush()


def require() -> None:
    """Refuse to begin what needs the extra `tensorboard` without it."""
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise VitlabError(
            "--tensorboard needs the extra of that name: pip install 'vitlab[tensorboard]'"
        ) from error
