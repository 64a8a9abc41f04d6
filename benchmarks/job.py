"""What a launcher tells a worker: the file `job.json` in a run's folder."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from dropout_policies import PolicyError

from .checkpoint import CheckpointError
from .config import RunConfig
from .files import read_json, write_atomically

FILE = "job.json"


@dataclass(frozen=True)
class Job:
    """One run, and how it is to be run.

    Args:
        config: what decides its figures.
        data: the path of its data, if one is named.
        resume: whether it goes on from the folder's checkpoint.
        checkpoint_minutes: how often a checkpoint is written.
        processes: how many share the rows of its batches.
    """

    config: RunConfig
    data: Path | None = None
    resume: bool = False
    checkpoint_minutes: float = 5.0
    processes: int = 1

    def write(self, folder: Path) -> None:
        """Write it to a run's folder.

        Raises:
            FileError: it cannot be written.
        """
        job = {
            "config": self.config.to_dict(),
            "data": None if self.data is None else str(self.data),
            "resume": self.resume,
            "checkpoint_minutes": self.checkpoint_minutes,
            "processes": self.processes,
        }
        write_atomically(folder / FILE, json.dumps(job))

    @classmethod
    def read(cls, folder: Path) -> Job:
        """The job in a run's folder.

        Raises:
            CheckpointError: the folder has none.
            FileError: it cannot be read.
            PolicyError: its policy is not in the catalogue here.
        """
        path = folder / FILE
        try:
            there = path.is_file()
        except OSError:  # a name too long, or a folder that may not be entered
            there = False
        if not there:
            raise CheckpointError(f"{folder} is not a run's folder: it has no {FILE}.")
        data = read_json(path)
        try:
            config = RunConfig.from_dict(data["config"])
            config.check()
            job = cls(
                config,
                None if data.get("data") is None else Path(data["data"]),
                data.get("resume", cls.resume),
                data.get("checkpoint_minutes", cls.checkpoint_minutes),
                data.get("processes", cls.processes),
            )
            if type(job.resume) is not bool:
                raise ValueError(f"resume has an impossible value. Received: {job.resume!r:.60}")
            if type(job.processes) is not int or job.processes < 1:
                raise ValueError(
                    f"processes has an impossible value. Received: {job.processes!r:.60}"
                )
            minutes = job.checkpoint_minutes
            if type(minutes) not in (int, float) or not 0 <= minutes < math.inf:
                raise ValueError(
                    f"checkpoint_minutes has an impossible value. Received: {minutes!r:.60}"
                )
        except PolicyError:  # says itself what is wrong
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CheckpointError(
                f"{path} is not a job that a launcher wrote ({type(error).__name__}: {error}). "
                f"Start the run again with the command that made it."
            ) from None
        return job
