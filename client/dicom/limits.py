"""How much one file may cost, and the fence around a worker process.

A decoder that runs away (a bomb, a loop, a lying length) meets the kernel's limits and dies alone; the parent notes a
code and starts a new worker. Source of the numbers: measurements on hostile files, design/dicom.md sections 3.4, 3.5.
"""

import math
import os
import resource
import time
from pathlib import Path

from common.plan.combinations import MOST_VOXELS
from common.processes.hardening import shut_process

MIB = 1 << 20

MIN_FILE_BYTES = 133  # preamble (128), prefix (4), something
MAX_FILE_BYTES = 768 * MIB  # a breast tomosynthesis of 60 frames of 2457 x 1996, uncompressed, has 561
MAX_META_BYTES = 64 * 1024
MAX_INFLATED_BYTES = 256 * MIB
MAX_FRAME_BYTES = 256 * MIB
MAX_MASK_BYTES = 256 * MIB  # of a mask that is written: 400 slices of 512 x 512 have 13 for each class
MAX_ELEMENTS = 20_000
MAX_FRAMES = 20_000
MAX_RECORDS_PER_FILE = 256
MAX_FILE_RECORD_BYTES = 16 * MIB
MAX_FOLDER_DEPTH = 64
MAX_SERIES_SLICES = 4096
MAX_VOLUME_VOXELS = MOST_VOXELS  # plans that ask for larger volumes are refused before anybody signs them

# Largest plausible side of an image, in pixels: an RLE bomb of 16384 x 16384 costs 2.6 GB and 21 s otherwise.
MAX_SIDE_PX = {"CT": 4096, "MR": 4096, "US": 4096, "XA": 4096, "RF": 4096, "NM": 2048, "PT": 2048} | dict.fromkeys(
    ("CR", "DX", "MG", "OP", "XC"), 10_000
)

WORKER_MEMORY_BYTES = 1400 * MIB  # address space, so the resident set is below it
FILE_CPU_S = 12  # of processor time for one record (a frame, a slice): the kernel keeps it
SILENCE_WALL_S = 60.0  # of neither a message nor any processor time: a dead mount, never a busy machine
WORKER_OPEN_FILES = 64


def fence_worker(extra_memory_bytes: int = 0) -> None:
    """Give this process its limits: memory, no core file, no file writing, few descriptors.

    Guarantee: after it no file can grow under this process and no crash leaves an image of memory on the disk.
    """
    memory = WORKER_MEMORY_BYTES + extra_memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    shut_process()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (WORKER_OPEN_FILES, WORKER_OPEN_FILES))


def processor_time_s(pid: int) -> float:
    """Return the processor time a process has used, or 0 where the system does not say (no /proc, process gone)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime: proc(5)


def grant_cpu(seconds: int) -> None:
    """Let this process use ``seconds`` more of processor time; past it the kernel ends the process (SIGXCPU)."""
    used = math.ceil(time.process_time())
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, hard))
