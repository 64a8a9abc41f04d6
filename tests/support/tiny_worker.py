"""`python -m tests.support.tiny_worker FOLDER TASK BACKEND COUNT STOP_AFTER`: a tiny run in so many
processes, or on so many devices.

It goes on from a checkpoint that is there, and stops after so many batches.
"""

import sys
from pathlib import Path

from benchmarks import processes
from benchmarks.ptb import presets as ptb
from benchmarks.speech import presets as speech
from benchmarks.speech.task import make as make_speech
from benchmarks.training import Run
from tests.support import tiny_run, tiny_speech


def run_in(folder: Path, task: str, backend: str) -> Run:
    if task == "ptb":
        return tiny_run.run_in(folder, tiny_run.config(backend))
    return Run(make_speech(tiny_speech.config(backend), None, tiny_speech.tiny_speech()), folder)


def main(folder: str, task: str, backend: str, count: int, stop_after: int) -> int:
    ptb.PRESETS["tiny"], speech.PRESETS["tiny"] = tiny_run.TINY, tiny_speech.TINY
    config = (tiny_run if task == "ptb" else tiny_speech).config(backend)
    if processes.to_start(config, count):
        arguments = (folder, task, backend, str(count), str(stop_after))
        return processes.torchrun(count, "tests.support.tiny_worker", *arguments)
    with processes.joined(config, count):
        run = run_in(Path(folder), task, backend)
        if run.checkpoint.exists():
            run.resume()
        run.train(tiny_run.hooks(stop_after), 1e9)
    return 0


if __name__ == "__main__":
    *names, count, stop_after = sys.argv[1:]
    sys.exit(main(*names, int(count), int(stop_after)))
