"""Opening files below a folder: nothing outside it is reached, nothing blocks."""

import os
from pathlib import Path

import pytest

from client.dicom.reject import RejectCode, Rejected
from client.dicom.walk import open_beneath, read_whole, walk


@pytest.fixture
def root(tmp_path):
    """A folder with one file, a file outside it, and every kind of thing that is no file."""
    folder = tmp_path / "scans"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "a.dcm").write_bytes(bytes(500))
    (tmp_path / "outside.dcm").write_bytes(bytes(500))
    (folder / "link.dcm").symlink_to(tmp_path / "outside.dcm")
    (folder / "door").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "fifo")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor, folder
    os.close(descriptor)


REFUSED = {
    "a link to a file": (b"link.dcm", RejectCode.SYMLINK),
    "a file behind a linked folder": (b"door/outside.dcm", RejectCode.SYMLINK),
    "a loop": (b"loop/loop/deep/er/a.dcm", RejectCode.SYMLINK),
    "a FIFO": (b"fifo", RejectCode.NOT_REGULAR),
    "a folder": (b"deep", RejectCode.NOT_REGULAR),
    "a way up": (b"deep/../../outside.dcm", RejectCode.UNREADABLE),
    "an absolute name": (b"/etc/passwd", RejectCode.UNREADABLE),
    "an empty name": (b"", RejectCode.UNREADABLE),
    "a name that does not exist": (b"nothing.dcm", RejectCode.UNREADABLE),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_name_is_refused(case, root):
    name, code = REFUSED[case]
    with pytest.raises(Rejected) as refused:
        open_beneath(root[0], name)
    assert refused.value.code is code


def test_a_regular_file_below_the_folder_is_read(root):
    assert read_whole(root[0], b"deep/er/a.dcm") == bytes(500)


def test_the_walk_is_sorted_and_names_what_it_refuses(root):
    found = {file.name: file.code for file in walk(root[1])}
    assert list(found) == [b"deep/er/a.dcm", b"door", b"fifo", b"link.dcm", b"loop"]
    assert set(found.values()) == {None, RejectCode.SYMLINK, RejectCode.NOT_REGULAR}


def test_names_that_are_no_text_are_walked_and_read(tmp_path):
    name = b"\xff\xfe\x80.dcm"
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(bytes(200))
    assert [file.name for file in walk(tmp_path)] == [name]
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    assert len(read_whole(descriptor, name)) == 200
    os.close(descriptor)


def test_folders_too_deep_are_counted_and_not_entered(tmp_path):
    deep = tmp_path
    for _ in range(70):
        deep = deep / "d"
        deep.mkdir()
    assert [file.code for file in walk(tmp_path)] == [RejectCode.TOO_DEEP]


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.dcm"
    path.write_bytes(bytes(500))
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    stat = os.fstat
    calls = []

    def growing(file):
        calls.append(file)
        if len(calls) == 3:  # the state after reading
            with path.open("ab") as more:
                more.write(b"x")
        return stat(file)

    monkeypatch.setattr(os, "fstat", growing)
    with pytest.raises(Rejected) as refused:
        read_whole(descriptor, b"a.dcm")
    monkeypatch.undo()
    os.close(descriptor)
    assert refused.value.code is RejectCode.CHANGED_WHILE_READ
