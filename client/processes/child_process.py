"""Ending a child that was started with a pipe to its standard input and that holds nothing worth keeping."""

import subprocess
from contextlib import suppress


def end(process: subprocess.Popen[bytes], *, patience_s: float, killed_s: float) -> None:
    """Close the child's input, wait ``patience_s`` for its end, then kill it and wait ``killed_s`` for the kernel.

    Edge cases: one that hangs in the kernel (a driver, a dead mount) is left; its ``returncode`` is None then.
    """
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(killed_s)
