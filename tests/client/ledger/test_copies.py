"""Parts of a ledger put back from different moments: what is missing is noticed, whichever file it was in."""

import shutil

import pytest

from client.ledger.budget import Stratum
from client.ledger.errors import LedgerInvalidError
from client.ledger.ledger import Ledger, charge

STUDY, DELTA = "a" * 64, 1e-5
COST = [charge(Stratum.LABELLED, sampling_rate=1.0, noise_multiplier=10.0, steps=1)]
FILE, WAL, SHM, ANCHOR = "ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "ledger.sqlite.anchor"


def copied(folder, to):
    shutil.copytree(folder, to)
    return to


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    """Copies of the folder of a ledger in use, as a backup takes them: ``early`` (two attempts), ``late`` (four).

    The process holds the file open, so what is newest is in SQLite's write-ahead log only.
    """
    root = tmp_path_factory.mktemp("moments")
    (root / "now").mkdir()
    Ledger.create(root / "now" / FILE).close()
    with Ledger.open(root / "now" / FILE, ceiling=100.0) as ledger:
        for attempt in range(1, 5):
            ledger.spend(ledger.reserve(STUDY, attempt, COST, delta=DELTA))
            if attempt == 2:
                copied(root / "now", root / "early")
        copied(root / "now", root / "late")
        assert (root / "late" / WAL).stat().st_size > 0
    return root


def take(*names):
    """Bring these files back to the early moment (or, where it had none, take them away)."""

    def change(folder, early):
        for name in names:
            (folder / name).unlink(missing_ok=True)
            if (early / name).exists():
                shutil.copy2(early / name, folder / name)

    return change


def lose(*names):
    def change(folder, _):
        for name in names:
            (folder / name).unlink()

    return change


def cut(size):
    def change(folder, _):
        content = (folder / WAL).read_bytes()
        (folder / WAL).write_bytes(content[: int(size * len(content))])
        (folder / SHM).unlink(missing_ok=True)

    return change


def garbled(folder, _):
    content = bytearray((folder / WAL).read_bytes())
    content[len(content) // 3] ^= 1
    (folder / WAL).write_bytes(content)
    (folder / SHM).unlink(missing_ok=True)


NOTICED = {
    "the write-ahead log is lost": lose(WAL, SHM),
    "an older write-ahead log is put back": take(WAL, SHM),
    "half of the write-ahead log is lost": cut(0.5),
    "the write-ahead log is empty": cut(0.0),
    "a bit of the write-ahead log is another": garbled,
    "file and write-ahead log are put back, the anchor is not": take(FILE, WAL, SHM),
    "the anchor is lost": lose(ANCHOR),
    "everything but the write-ahead log is lost": lose(FILE, ANCHOR, SHM),
    "everything but the anchor is lost": lose(FILE, WAL, SHM),
}


@pytest.mark.parametrize("case", NOTICED)
def test_nothing_is_spent_from_a_ledger_where(case, moments, tmp_path):
    folder = copied(moments / "late", tmp_path / "site")
    NOTICED[case](folder, moments / "early")
    with pytest.raises(LedgerInvalidError):
        Ledger.open(folder / FILE, ceiling=100.0)


WHOLE = {
    "a copy of all files": lambda *_: None,
    "a copy without SQLite's shared memory, which is made again": lose(SHM),
    "an older anchor, which allows more than it saw": take(ANCHOR),
}


@pytest.mark.parametrize("case", WHOLE)
def test_all_that_was_spent_is_in(case, moments, tmp_path):
    folder = copied(moments / "late", tmp_path / "site")
    WHOLE[case](folder, moments / "early")
    with Ledger.open(folder / FILE, ceiling=100.0) as ledger:
        assert list(ledger.spending()[0].attempts) == [1, 2, 3, 4]
