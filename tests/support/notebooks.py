"""The documentation's notebooks: executed anew, judged, and written with their outputs.

`python -m tests.support.notebooks` executes each of them and writes it in place.
"""

from __future__ import annotations

import base64
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SLOW = 1800
"""Seconds that a cell may take: long, for a busy machine."""
LARGEST = 60_000
"""Bytes that a picture may have."""

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
PLACE = re.compile(r"/(?:home|opt|private|root|tmp|usr|var|work|Users)/|[A-Z]:\\|site-packages")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?")


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def write(notebook: NotebookNode, path: Path) -> None:
    nbformat.write(notebook, path)


def execute(path: Path) -> NotebookNode:
    """A notebook run in a new process of this Python; what is installed for Jupyter, and how it is
    configured, makes no difference.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    notebook = read(path)
    with tempfile.TemporaryDirectory() as folder:
        # With no folders to look in, python3 is the kernel of this process's ipykernel.
        specs = KernelSpecManager(kernel_dirs=[])
        # Sockets that are files: processes side by side take no port from one another.
        kernel = AsyncKernelManager(
            kernel_spec_manager=specs,
            kernel_name="python3",
            transport="ipc" if os.name == "posix" else "tcp",
            connection_file=str(Path(folder) / "kernel.json"),
        )
        client = NotebookClient(
            notebook,
            km=kernel,
            timeout=SLOW,
            startup_timeout=SLOW,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(path.parent)}},
        )
        environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
        client.execute(cleanup_kc=True, env={**environment, "IPYTHONDIR": folder})
    return clean(notebook)


def clean(notebook: NotebookNode) -> NotebookNode:
    """Without what an execution leaves beside the outputs."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(output: NotebookNode) -> Iterator[str]:
    """What can be read of an output, in each form that it has."""
    if output.output_type == "stream":
        yield output.text
    elif output.output_type == "error":
        yield "\n".join(output.traceback)
    else:
        yield from (data for kind, data in output.data.items() if not kind.startswith("image/png"))


def printed(notebook: NotebookNode) -> str:
    """All that its cells print."""
    return "".join(
        output.text
        for cell in code(notebook)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )


def without_numbers(text: str) -> str:
    """A text without its digits and spaces: what is printed anew has it again, in other figures."""
    return "".join(NUMBER.sub("#", text).split())


def faults(notebook: NotebookNode) -> list[str]:
    """Why a notebook should not be committed as it is."""
    return list(_faults(notebook))


def _faults(notebook: NotebookNode) -> Iterator[str]:
    if (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        yield f"its format is {notebook.nbformat}.{notebook.nbformat_minor}, not 4.5"
    if notebook.metadata != METADATA:
        yield f"its metadata are {dict(notebook.metadata)}"
    counts = [cell.execution_count for cell in code(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"its cells were not executed once and in order: {counts}"
    for cell in notebook.cells:
        if cell.metadata:
            yield f"{cell.id} has metadata: {dict(cell.metadata)}"
    for cell in code(notebook):
        for output in cell.outputs:
            yield from (f"{cell.id} {fault}" for fault in _faults_of(output))


def _faults_of(output: NotebookNode) -> Iterator[str]:
    if output.output_type == "error":
        yield f"raised {output.ename}"
    if output.output_type == "stream" and output.name == "stderr":
        yield f"wrote to stderr: {output.text}"
    for text in texts(output):
        if "Warning" in text:
            yield f"warned: {text}"
        if found := PLACE.search(text):
            yield f"shows a place on a machine: {text[found.start() : found.end() + 60]}"
    picture = output.get("data", {}).get("image/png", "")
    if len(base64.b64decode(picture)) > LARGEST:
        yield f"has a picture of more than {LARGEST} bytes"


def main() -> None:
    for path in NOTEBOOKS:
        notebook = execute(path)
        if found := faults(notebook):
            raise SystemExit("\n".join([f"{path.name} stays as it was:", *found]))
        write(notebook, path)
        print("wrote", path.name)


if __name__ == "__main__":
    main()
