"""A process without Keras that answers from exports."""

import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Exported:
    """A model and its folder."""

    model: Any
    vocabulary: Any
    folder: Path


@dataclass
class Bare:
    """Collects requests, sends them to one process, and hands out the answers."""

    folder: Path
    jobs: list = field(default_factory=list)

    def ask(self, folder: Path, kind: str, *arguments) -> int:
        """Puts a request on the list; returns its number."""
        self.jobs.append((str(folder), kind, arguments))
        return len(self.jobs) - 1

    def run(self) -> list:
        """Sends all requests; returns the answers by number."""
        source, target = self.folder / "jobs", self.folder / "answers"
        source.write_bytes(pickle.dumps(self.jobs))
        program = Path(__file__).with_name("loader.py")
        # -P: nothing is imported from the folder of the checkout.
        done = subprocess.run(
            [sys.executable, "-P", str(program), str(source), str(target)],
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
            cwd=self.folder,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        answers, loaded = pickle.loads(target.read_bytes())
        assert not loaded
        return answers
