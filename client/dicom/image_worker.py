"""Worker for 2-D studies: each file is its own task. Started as ``python -m client.dicom.image_worker``."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from client.dicom.instance import read_images, verdict
from client.dicom.limits import FILE_CPU_S, grant_cpu
from client.dicom.walk import read_whole
from client.dicom.worker import Reply, Session, serve


def read_files(session: Session, request: Mapping[str, Any]) -> Iterator[Reply]:
    """Answer each file of ``request["files"]`` with its records, then with its verdict."""
    for name in request["files"]:
        grant_cpu(FILE_CPU_S)
        replies: list[Reply] = []
        code = verdict(lambda name=name, replies=replies: _read_file(session, name, replies))  # type: ignore[misc]
        if code is None:
            yield from replies
        yield {"end": True, "code": code or ""}, None


def _read_file(session: Session, name: bytes, replies: list[Reply]) -> None:
    content = read_whole(session.roots[0], name)
    for facts, levels in read_images(content, session.settings, session.pseudonyms.below(name)):
        grant_cpu(FILE_CPU_S)  # for the next one
        session.alive()
        replies.append(({"end": False, "facts": asdict(facts)}, levels))


if __name__ == "__main__":
    serve({"images": read_files})
