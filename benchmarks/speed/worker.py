"""One job in a process of its own.

Called as `python -m benchmarks.speed.worker FOLDER` with `FOLDER/job.json` written by the command;
leaves `FOLDER/result.json`. With `--until-input-ends` beside it, it ends when the command does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from ..files import read_json, write_atomically
from ..machine import machine, versions
from ..processes import INTERRUPTED
from ..stopping import UNTIL_INPUT_ENDS, when_input_ends
from .jobs import Job


def measure(job: Job) -> Any:
    """What a job's section measures."""
    if job.section == "keras":
        from . import keras_times

        return keras_times.steps(job)
    if job.section == "keras-memory":
        from . import keras_memory

        return keras_memory.peaks(job)
    if job.section == "gpu":
        from . import gpu_times

        return gpu_times.steps(job)
    if job.section == "memory":
        from . import memory

        return memory.peaks(job)
    if job.section == "busy":
        from . import busy

        return busy.steps(job)
    from . import torch_times

    sections = {
        "torch": torch_times.steps,
        "layers": torch_times.layers,
        "small": torch_times.small,
        "evaluation": torch_times.evaluations,
        "growth": torch_times.growth,
        "masks": torch_times.keyed_masks,
        "scopes": torch_times.scopes,
        "peers": torch_times.peers,
    }
    return sections[job.section](job)


def main(folder: Path) -> None:
    job = Job.from_dict(read_json(folder / "job.json"))
    started = time.time()
    found = _rounded(measure(job))
    result = {
        "job": job.to_dict(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "wall_seconds": round(time.time() - started, 1),
        "versions": versions(),
        "machine": machine(),
        "found": found,
    }
    write_atomically(folder / "result.json", json.dumps(result))


def _rounded(found: Any) -> Any:
    """Times to six digits."""
    if isinstance(found, dict):
        return {key: _rounded(value) for key, value in found.items()}
    if isinstance(found, list):
        return [float(f"{value:.6g}") for value in found]
    return found


if __name__ == "__main__":
    if UNTIL_INPUT_ENDS in sys.argv[2:]:
        when_input_ends(lambda: os._exit(INTERRUPTED))  # there is no more to it than a measurement
    main(Path(sys.argv[1]))
