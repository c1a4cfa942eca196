"""Has a file changed since a page read it?"""

from pathlib import Path

Mark = tuple[int, ...]


def mark_of(*files: Path) -> Mark:
    """Return what changes when one of the files does; an empty file counts as none (reading makes an empty -wal)."""
    found: list[int] = []
    for file in files:
        try:
            state = file.stat()
        except OSError:
            state = None
        found += [state.st_mtime_ns, state.st_size, state.st_ino] if state and state.st_size else [0, 0, 0]
    return tuple(found)
