"""`python -m dropout_policies`, and the command `dropout-policies`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line, or say what it needs."""
    try:
        from . import cli
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        print(
            f"error: the command line needs {error.name}: pip install 'dropout-policies[cli]'",
            file=sys.stderr,
        )
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
