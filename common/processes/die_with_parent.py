"""Become another program that the kernel ends when the process that started this one ends.

Run as a file, not as a module: ``python -I -S die_with_parent.py PARENT SIGNAL COMMAND [ARGUMENT ...]``. The standard
library only, and no import of ours: it is what a supervisor starts instead of the command, for about 20 ms.

Guarantee: after ``execvp`` the kernel sends SIGNAL when the *thread* that started this process ends, SIGKILL of the
parent included (Linux, prctl(2), PR_SET_PDEATHSIG). Elsewhere the command is started without that guarantee.
"""

import ctypes
import os
import resource
import sys

PR_SET_PDEATHSIG = 1
NOT_FOUND = 127  # the shell's custom


def main(parent: int, death_signal: int, command: list[str]) -> None:
    """Ask for the signal, see that the parent still lives, and become the command. Does not return."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # inherited: no child of ours leaves its memory in a file
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:  # it ended before we asked
            sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606 (no shell wanted)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: cannot be started ({error.strerror}); is it installed and on PATH?\n")
        sys.exit(NOT_FOUND)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
