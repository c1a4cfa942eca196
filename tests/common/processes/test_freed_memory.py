"""What a process no longer needs is given back to the system."""

import subprocess
import sys

import pytest

from common.processes import freed_memory
from common.processes.freed_memory import LARGE_BYTES, give_back

# Small blocks, and one at the very end that keeps the whole region from going back by itself.
PROGRAM = """
import re, sys
from common.processes.freed_memory import give_back
blocks = [bytes(50_000) for _ in range(4000)]
last = bytes(50_000)
mb = lambda: int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1000
full = mb()
del blocks
kept = mb()
give_back(int(sys.argv[1]))
print(full - kept, kept - mb())
"""


def released_mb(held_bytes):
    command = [sys.executable, "-c", PROGRAM, str(held_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def test_freed_blocks_go_back_after_work_on_something_large():
    by_itself, asked = released_mb(LARGE_BYTES)
    assert by_itself < 50, "otherwise the file is no longer needed"
    assert asked > 150


def test_after_small_work_nothing_is_done():
    assert released_mb(LARGE_BYTES - 1)[1] < 1


@pytest.mark.parametrize("held_bytes", [0, 1 << 40])
def test_another_c_library_is_no_fault(monkeypatch, held_bytes):
    class NoLibrary:
        def __init__(self, _name):
            raise OSError

    monkeypatch.setattr(freed_memory.ctypes, "CDLL", NoLibrary)
    freed_memory._trim.cache_clear()
    give_back(held_bytes)
    freed_memory._trim.cache_clear()
