"""The machine's C compiler: the one that `CC` names, or else `cc`, with a time limit."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

SECONDS = 45.0
"""How long a compiler may take for one file."""


class CompilerError(Exception):
    """The reason why there is no compiled file, as part of a sentence."""


class CompilerTimeoutError(CompilerError):
    """The compiler did not finish in time, and would not for the next file either."""


@dataclass(frozen=True)
class Compiler:
    """A C compiler.

    Args:
        command: the words that start it; the first one is the path of a program.
    """

    command: tuple[str, ...]

    def identity(self) -> str:
        """Text that changes when the compiler does: the path, the size and the modification time of
        each program in its command. This does not start it. (`CC="ccache gcc"` has two.)"""
        words = []
        for word in self.command:
            path = shutil.which(word)
            if path is None:
                words.append(word)
                continue
            path = os.path.realpath(path)
            status = os.stat(path)
            words.append(f"{word} {path} {status.st_size} {status.st_mtime_ns}")
        return "\n".join(words)

    def version(self) -> str:
        """The first line that the compiler prints about its version.

        Raises:
            CompilerError: it cannot be started, fails, or does not finish within ten seconds.
        """
        arguments = [*self.command, "--version"]
        try:
            done = subprocess.run(
                arguments,
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=10,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise CompilerError(f"{self} does not print its version ({error})") from None
        return _first_line(done.stdout)

    def build(self, source: Path, flags: tuple[str, ...], folder: Path) -> Path:
        """Compile a file to a shared library.

        Args:
            source: the file.
            flags: the compiler's arguments.
            folder: where to put the library and what the compiler prints.

        Raises:
            CompilerError: it cannot be started, or fails.
            CompilerTimeoutError: it takes too long.
        """
        target, printed = folder / f"{source.stem}.so", folder / "printed.txt"
        # Into a file, not a pipe: what a compiler leaves running (a cache's server) may hold a pipe
        # open, and a file takes whatever bytes come.
        with printed.open("wb") as output:
            code = self._run([*flags, "-shared", str(source), "-o", str(target)], output.fileno())
        if code == 0 and target.exists():
            return target
        with printed.open("rb") as output:
            said = _first_line(output.read(2**16))
        how = "made no library" if code == 0 else f"failed with exit code {code}"
        raise CompilerError(f"{self} {how} for {source.name}" + (f" ({said})" if said else ""))

    def _run(self, arguments: list[str], output: int) -> int:
        try:
            process = subprocess.Popen(
                [*self.command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that all that it starts can be ended with it
            )
        except (OSError, ValueError) as error:
            raise CompilerError(f"{self} cannot be started ({error})") from None
        try:
            return process.wait(SECONDS)
        except BaseException as error:
            _end(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise CompilerTimeoutError(
                    f"{self} did not finish within {SECONDS:g} seconds"
                ) from None
            raise

    def __str__(self) -> str:
        return shlex.join(self.command)


def find_compiler() -> Compiler:
    """Find the compiler that `CC` names, or else `cc`.

    Raises:
        CompilerError: there is none, or `CC` is not a command.
    """
    text = os.environ.get("CC", "").strip() or "cc"
    try:
        program, *arguments = shlex.split(text, posix=os.name == "posix")
    except ValueError as error:
        raise CompilerError(f"CC is not a command ({error}; received: CC={text!r})") from None
    path = shutil.which(program)
    if path is None:
        raise CompilerError(f"there is no C compiler {program!r}; install one, or name it with CC")
    try:
        return Compiler((os.path.abspath(path), *arguments))
    except OSError as error:  # of a relative path, in a folder that is gone
        raise CompilerError(f"the C compiler {path!r} cannot be found ({error})") from None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and everything that it started."""
    try:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except ProcessLookupError:
        pass
    process.wait()


def _first_line(printed: bytes) -> str:
    """The first line that mentions an error, or else the first line. Accepts any bytes."""
    lines = [
        "".join(character for character in line if character.isprintable()).strip()
        for line in printed.decode("utf-8", "replace").splitlines()
    ]
    lines = [line for line in lines if line]
    wrong = [line for line in lines if "error" in line.lower()]
    return (wrong or lines or [""])[0][:300]
