"""Files: bounded before reading, never half written."""

import errno
import os
import stat
from pathlib import Path

import pytest

from common.errors import ExitCode, FedwardError, FileTooLargeError, FileUnreadableError
from common.files import parsed_json, read_bounded, read_text, replace_atomically, write_new


def test_a_file_of_exactly_the_limit_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bounded(tmp_path / "file", 5) == b"12345"


def test_a_file_one_byte_over_the_limit_is_refused_unread(tmp_path):
    (tmp_path / "file").write_bytes(b"123456")
    with pytest.raises(FileTooLargeError, match="6 bytes, the limit is 5"):
        read_bounded(tmp_path / "file", 5)


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(FileUnreadableError, match="not a regular file"):
        read_bounded(tmp_path, 5)


def test_a_file_that_claims_no_size_is_still_bounded():
    with pytest.raises(FedwardError):
        read_bounded(Path("/dev/zero"), 5)


def test_a_file_without_size_in_its_metadata_is_still_bounded():
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("no /proc here: no regular file that hides its size")
    with pytest.raises(FileTooLargeError, match="grew past"):
        read_bounded(Path("/proc/cpuinfo"), 5)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileUnreadableError, match="No such file"):
        read_bounded(tmp_path / "absent", 5)


def test_a_byte_order_mark_is_dropped(tmp_path):
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfplan")
    assert read_text(tmp_path / "file", 100) == "plan"


def test_a_new_file_has_exactly_the_mode_asked_for(tmp_path):
    before = os.umask(0)
    try:
        write_new(tmp_path / "file", b"x", 0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_writing_through_a_link_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(FedwardError):
        write_new(tmp_path / "link", b"x")
    assert not (tmp_path / "target").exists()


def test_half_a_file_is_none(tmp_path, monkeypatch):
    def fails(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("common.files.os.fsync", fails)
    with pytest.raises(FileUnreadableError) as caught:
        write_new(tmp_path / "site.key", b"half a key")
    assert caught.value.exit_code is ExitCode.DISK_FULL
    assert not list(tmp_path.iterdir())


def test_text_that_nests_deeply_is_a_value_error_like_any_other_that_is_no_json():
    for text in ("[" * 100_000, b'{"a":' * 5000, b"\xff", ""):
        with pytest.raises(ValueError, match=r"."):
            parsed_json(text)
    assert parsed_json(b'{"a": [1, null]}') == {"a": [1, None]}


def test_replacing_leaves_no_temporary_file_behind(tmp_path):
    replace_atomically(tmp_path / "file", b"old")
    replace_atomically(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_folder_that_is_absent_gives_a_sentence(tmp_path):
    with pytest.raises(FileUnreadableError, match="cannot be written"):
        replace_atomically(tmp_path / "absent" / "file", b"x")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, ExitCode.DISK_FULL),
        (errno.EDQUOT, ExitCode.DISK_FULL),
        (errno.EROFS, ExitCode.RIGHT_MISSING),
        (errno.EACCES, ExitCode.RIGHT_MISSING),
        (errno.EIO, ExitCode.FILE_UNREADABLE),
    ],
)
def test_a_full_disk_and_a_missing_right_have_exit_codes_of_their_own(tmp_path, monkeypatch, number, code):
    (tmp_path / "file").write_bytes(b"old")

    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("common.files.os.replace", fails)
    with pytest.raises(FileUnreadableError, match="cannot be written") as caught:
        replace_atomically(tmp_path / "file", b"new")
    assert caught.value.exit_code is code
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
