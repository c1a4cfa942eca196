"""What a folder may hold besides files, and files that contradict each other."""

import os
import socket
from pathlib import Path

from client.dicom.reject import RejectCode as Code
from simulation.hostile.case import ACCEPTED, HostileCase, any_of, one_file
from simulation.hostile.raw_file import plain

TEBIBYTE = 1 << 40


def fifo(folder: Path, _name: str) -> None:
    """Make a FIFO, which hangs whoever opens it for reading without care."""
    os.mkfifo(folder / "image.dcm")


def unix_socket(folder: Path, _name: str) -> None:
    """Make a socket."""
    here = os.open(folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{here}/s")  # a socket's path may only be 107 bytes long
    os.close(here)


def link_to(target: str) -> HostileCase:
    """Make a case of one symbolic link."""

    def make(folder: Path, _name: str) -> None:
        (folder / "image.dcm").symlink_to(target)

    spelled = target.strip("/.").replace("/", "_") or "itself"
    return HostileCase(f"a_link_to_{spelled}", make, (any_of(Code.SYMLINK),))


def link_beside(folder: Path, name: str) -> None:
    """Make a valid image and a link to it: the image counts once, the link never."""
    (folder / "image.dcm").write_bytes(plain(name).content())
    (folder / "other.dcm").symlink_to("image.dcm")


def linked_folder(folder: Path, _name: str) -> None:
    """Make a folder that is a link to the folder above it: a loop for whoever follows."""
    (folder / "loop").symlink_to("..", target_is_directory=True)


def sparse(folder: Path, name: str) -> None:
    """Make a file of one tebibyte that takes no space."""
    with (folder / "image.dcm").open("wb") as file:
        file.write(plain(name).content())
        file.truncate(TEBIBYTE)


def deep(folder: Path, name: str) -> None:
    """Make an image 100 folders deep."""
    bottom = folder.joinpath(*["d"] * 100)
    bottom.mkdir(parents=True)
    (bottom / "image.dcm").write_bytes(plain(name).content())


def odd_names(folder: Path, name: str) -> None:
    """Make images with names that are no text, or text for a terminal."""
    for part, file_name in enumerate((b"\xff\xfe\x80.dcm", b"a\x1b[2Jb\n.dcm", b"-rf")):
        path = os.path.join(os.fsencode(folder), file_name)  # noqa: PTH118 (a name that is no text)
        Path(os.fsdecode(path)).write_bytes(plain(name, part=part).content())


def written(folder: Path, *contents: bytes) -> None:
    """Write several files, in this order of their names."""
    for number, content in enumerate(contents):
        (folder / f"image-{number}.dcm").write_bytes(content)


def same_twice(folder: Path, name: str) -> None:
    """Write one image twice."""
    written(folder, plain(name).content(), plain(name).content())


def hard_link(folder: Path, name: str) -> None:
    """Write one image under two names."""
    written(folder, plain(name).content())
    os.link(folder / "image-0.dcm", folder / "image-1.dcm")


def same_uid_other_pixels(folder: Path, name: str) -> None:
    """Write two different pictures with one SOP Instance UID."""
    first, second = plain(name), plain(name)
    written(folder, first.content(), second.pixels(bytes(8192)).content())


def same_uid_other_patient(folder: Path, name: str) -> None:
    """Write one picture under two patients."""
    written(folder, plain(name).content(), plain(name).put(0x00100020, "LO", "SOMEBODY").content())


def same_study_other_patient(folder: Path, name: str) -> None:
    """Write two pictures of one study that belong to two patients."""
    other = plain(name, part=1).put(0x00100020, "LO", "SOMEBODY")
    other.elements[0x0020000D] = plain(name).elements[0x0020000D]
    written(folder, plain(name).content(), other.content())


CASES: tuple[HostileCase, ...] = (
    HostileCase("a_fifo", fifo, (any_of(Code.NOT_REGULAR),)),
    HostileCase("a_socket", unix_socket, (any_of(Code.NOT_REGULAR),)),
    link_to("/dev/zero"),
    link_to("/etc/hostname"),
    link_to("../../secret.dcm"),
    link_to("image.dcm"),
    HostileCase("a_link_beside_its_image", link_beside, (any_of(ACCEPTED), any_of(Code.SYMLINK))),
    HostileCase("a_folder_that_links_upwards", linked_folder, (any_of(Code.SYMLINK),)),
    HostileCase("a_sparse_file_of_one_tebibyte", sparse, (any_of(Code.FILE_SIZE),)),
    HostileCase("an_image_100_folders_deep", deep, (any_of(Code.TOO_DEEP),)),
    HostileCase("file_names_that_are_no_text", odd_names, (any_of(ACCEPTED),) * 3),
    HostileCase("the_same_image_twice", same_twice, (any_of(ACCEPTED), any_of(Code.DUPLICATE_INSTANCE))),
    HostileCase("one_image_under_two_names", hard_link, (any_of(ACCEPTED), any_of(Code.DUPLICATE_INSTANCE))),
    HostileCase(
        "one_uid_for_two_pictures",
        same_uid_other_pixels,
        (any_of(ACCEPTED, Code.CONFLICTING_INSTANCE), any_of(Code.CONFLICTING_INSTANCE)),
    ),
    HostileCase(
        "one_uid_for_two_patients",
        same_uid_other_patient,
        (any_of(ACCEPTED, Code.CONFLICTING_INSTANCE), any_of(Code.CONFLICTING_INSTANCE)),
    ),
    HostileCase(
        "one_study_of_two_patients",
        same_study_other_patient,
        (any_of(ACCEPTED, Code.CONFLICTING_INSTANCE), any_of(ACCEPTED, Code.CONFLICTING_INSTANCE)),
    ),
    one_file("a_file_of_100_bytes", lambda _: bytes(100), Code.FILE_SIZE),
)
