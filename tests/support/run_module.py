"""What a module prints in a process of its own, which can hold a Keras backend of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def printed_json(module: str, backend: str) -> Any:
    """The JSON on the last line that `python -m module backend` prints."""
    done = subprocess.run(
        [sys.executable, "-m", module, backend],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])
