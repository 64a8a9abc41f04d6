"""`python -m tests.support.tiny_worker FOLDER TASK BACKEND COUNT STOP_AFTER`: a tiny run in so many
processes, or on so many devices.

It goes on from a checkpoint that is there, and stops after so many batches.
"""

import sys
from importlib import import_module
from pathlib import Path

from benchmarks import processes
from benchmarks.training import Run
from tests.support import tiny_run, tiny_speech, tiny_translation

TINY = {
    "ptb": (tiny_run, tiny_run.tiny_corpus),
    "speech": (tiny_speech, tiny_speech.tiny_speech),
    "translation": (tiny_translation, tiny_translation.tiny_tatoeba),
}


def main(folder: str, task: str, backend: str, count: int, stop_after: int) -> int:
    tiny, data = TINY[task]
    import_module(f"benchmarks.{task}.presets").PRESETS["tiny"] = tiny.TINY
    config = tiny.config(backend)
    if processes.launches_processes(config, count):
        arguments = (folder, task, backend, str(count), str(stop_after))
        return processes.torchrun(count, "tests.support.tiny_worker", *arguments)
    with processes.process_group(config, count):
        made = import_module(f"benchmarks.{task}.task").make(config, None, data())
        run = Run(made, Path(folder))
        if run.checkpoint.exists():
            run.resume()
        run.train(tiny_run.hooks(stop_after), 1e9)
    return 0


if __name__ == "__main__":
    *names, count, stop_after = sys.argv[1:]
    sys.exit(main(*names, int(count), int(stop_after)))
