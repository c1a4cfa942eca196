"""Whole ingests with real worker processes: what is taken, what is not, and what a second run reads."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from client.dicom import pool
from client.dicom.cache import Cache
from client.dicom.cache_folder import open_folder
from client.dicom.errors import CacheInvalidError
from client.dicom.ingest import ingest
from client.dicom.limits import SILENCE_WALL_S
from client.dicom.reject import RejectCode
from client.dicom.segments import committed
from client.dicom.vault import OVERHEAD_BYTES
from client.dicom.withdrawals import withdraw
from client.processes.frames import receive
from common.errors import FileUnreadableError

SIDE = 32


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def shard_bytes(segments: Path) -> int:
    return sum(path.stat().st_size for path in segments.glob("*.shard"))


def contents(cache: Path, secret: bytes) -> dict[str, tuple]:
    """Everything a cache says, without where it lies."""
    opened = Cache.open(cache, secret)
    return {
        record.record_id: (
            record.patient_key,
            record.label,
            record.split,
            record.stratum,
            record.content_digest,
            opened.read_levels(record.record_id).tobytes(),
        )
        for record in opened.records
    }


@pytest.fixture
def run(tmp_path, secret, settings_with):
    """Ingest ``tmp_path/scans`` into ``tmp_path/cache``."""

    def go(settings=None, **options):
        return ingest(
            tmp_path / "scans", tmp_path / "cache", settings=settings or settings_with(), secret=secret, **options
        )

    return go


def test_a_second_run_reads_only_what_is_new_or_changed(tmp_path, scan, run, secret):
    write(tmp_path / "scans", {f"{n}.dcm": scan(patient=f"P{n}", number=n) for n in range(1, 5)})
    first = run()
    assert (first.files_read, first.accepted, first.records, first.patients) == (4, 4, 4, 4)
    write(tmp_path / "scans", {"5.dcm": scan(patient="P5", number=5), "2.dcm": scan(patient="P2", number=22)})
    second = run()
    assert (second.files_read, second.accepted, second.records, second.patients) == (2, 5, 5, 5)
    assert run().files_read == 0
    assert len(contents(tmp_path / "cache", secret)) == 5, "the record of the former content of 2.dcm is gone"


def test_pixels_come_back_from_the_cache_as_they_went_in(tmp_path, scan, run, secret):
    frame = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)
    write(tmp_path / "scans", {"a.dcm": scan(frame)})
    run()
    cache = Cache.open(tmp_path / "cache", secret)
    (record,) = cache.records
    image = cache.read(record.record_id)
    assert (image.dtype, image.shape) == (np.float32, (SIDE, SIDE))
    assert np.abs(cache.read_values(record.record_id) - (frame - 1024.0)).max() < 4000 / 65535
    expected = np.clip((frame - 1024.0 + 2000) / 4000, 0, 1)
    assert np.abs(image - expected).max() < 1e-5


def test_bad_files_are_counted_and_never_stop_the_run(tmp_path, scan, changed, run):
    os.mkfifo(write(tmp_path / "scans", {"good.dcm": scan()}) / "fifo")
    (tmp_path / "scans" / "link.dcm").symlink_to("good.dcm")
    write(
        tmp_path / "scans",
        {
            "page.dcm": b"<html>" + bytes(200),
            "empty.dcm": b"",
            "nobody.dcm": changed(scan(number=2), PatientID=""),
            "cut.dcm": scan(number=3)[:-200],
            "copy.dcm": scan(),
            "conflict.dcm": scan(np.zeros((SIDE, SIDE), np.uint16)),
        },
    )
    report = run()
    # In the order of names: conflict.dcm is first and keeps the identifier it shares with copy.dcm and good.dcm.
    assert report.rejected == Counter(
        {
            RejectCode.NOT_REGULAR: 1,
            RejectCode.SYMLINK: 1,
            RejectCode.NOT_PART10: 1,
            RejectCode.FILE_SIZE: 1,
            RejectCode.NO_PATIENT_ID: 1,
            RejectCode.PIXEL_LENGTH: 1,
            RejectCode.CONFLICTING_INSTANCE: 2,
        }
    )
    assert (report.accepted, report.files_found) == (1, 9)


def test_equal_files_count_once_however_many_workers_read_them(tmp_path, scan, run, secret):
    write(tmp_path / "scans", {f"{copy}/{n}.dcm": scan(number=n) for copy in "abc" for n in range(20)})
    report = run(workers=3)
    assert (report.accepted, report.rejected) == (20, Counter({RejectCode.DUPLICATE_INSTANCE: 40}))


def test_a_dry_run_reports_the_same_and_writes_nothing(tmp_path, scan, run):
    write(tmp_path / "scans", {"a.dcm": scan(), "b.dcm": scan(), "c.dcm": b"x" * 200})
    dry = run(dry_run=True)
    assert not (tmp_path / "cache").exists()
    wet = run()
    assert (dry.accepted, dry.rejected, dry.records) == (wet.accepted, wet.rejected, wet.records)


def test_a_moved_file_keeps_its_record(tmp_path, scan, run, secret):
    write(tmp_path / "scans", {"a/1.dcm": scan()})
    run()
    before = contents(tmp_path / "cache", secret)
    (tmp_path / "scans" / "a").rename(tmp_path / "scans" / "b")
    report = run()
    assert (report.accepted, report.rejected.total()) == (1, 0)
    assert contents(tmp_path / "cache", secret) == before


def test_the_source_folder_is_only_read(tmp_path, scan, run):
    write(tmp_path / "scans", {"a.dcm": scan()})
    state = [(p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in sorted((tmp_path / "scans").iterdir())]
    (tmp_path / "scans").chmod(0o500)
    run()
    assert [(p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in sorted((tmp_path / "scans").iterdir())] == state
    with pytest.raises(CacheInvalidError, match="inside the scan folder"):
        ingest(tmp_path / "scans", tmp_path / "scans" / "cache", settings=None, secret=b"")
    with pytest.raises(FileUnreadableError):
        ingest(tmp_path / "nothing", tmp_path / "cache", settings=None, secret=b"")


KILLED = """
import sys
from pathlib import Path
from client.dicom import segments
from client.dicom.ingest import ingest
from client.dicom.settings import IngestSettings
segments.COMMIT_FILES = 8
source, cache, settings = Path(sys.argv[1]), Path(sys.argv[2]), IngestSettings.model_validate_json(sys.argv[3])
ingest(source, cache, settings=settings, secret=bytes(range(32)))
"""


@pytest.fixture(params=[False, True], ids=["pictures", "volumes"])
def settings(request, settings_with):
    return settings_with(volume=request.param)


def test_a_killed_ingest_that_is_run_again_ends_with_the_same_cache(tmp_path, scan, secret, settings, repository):
    files = {f"{patient}/{n:03}.dcm": scan(patient=patient, number=n) for patient in "ABC" for n in range(50)}
    files |= {f"Z/copy{n}.dcm": scan(patient="A", number=n) for n in range(10)}
    source = write(tmp_path / "scans", files)
    ingest(source, tmp_path / "whole", settings=settings, secret=secret)
    command = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "cache"), settings.model_dump_json()]
    segments = tmp_path / "cache" / "segments"
    for wanted in (3, 9):
        process = subprocess.Popen(command, cwd=repository)
        while process.poll() is None and len(list(segments.glob("*.index"))) < wanted:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert 0 < len(committed(segments)) < len(files) // 8, "killed in the middle"
    ingest(source, tmp_path / "cache", settings=settings, secret=secret)
    assert contents(tmp_path / "cache", secret) == contents(tmp_path / "whole", secret)
    assert {path.suffix for path in segments.iterdir()} == {".shard", ".index"}, "no leftovers"


HOSTILE_WORKER = """
import os, time
from client.dicom.limits import FILE_CPU_S, grant_cpu
from client.dicom.walk import read_whole
from client.dicom.worker import serve

def task(session, request):
    for name in request["files"]:
        grant_cpu(1)
        content = read_whole(session.roots[0], name)
        if b"abort" in content:
            os.abort()
        if b"loop" in content:
            while True:
                pass
        if b"sleep" in content:
            time.sleep(60)
        if b"memory" in content:
            try:
                bytearray(4 << 30)
            except MemoryError:
                yield {"end": True, "code": "memory"}, None
                continue
        if b"write" in content:
            with open(__file__ + ".written", "wb") as file:
                file.write(b"x" * 100)
        if b"leak" in content:
            yield {"end": False, "facts": {"patient_name": "Wang"}}, None
        if b"code" in content:
            yield {"end": True, "code": "Wang Xiaodong"}, None
            continue
        yield {"end": True, "code": "sop_class"}, None

serve({"images": task})
"""


def test_a_worker_that_dies_hangs_or_misbehaves_costs_only_its_file(tmp_path, monkeypatch, run):
    (tmp_path / "hostile_worker.py").write_text(HOSTILE_WORKER)
    environment = pool._environment()
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    monkeypatch.setattr(pool, "_environment", lambda: environment)
    monkeypatch.setattr("client.dicom.images.WORKER", "hostile_worker")
    monkeypatch.setattr("client.dicom.pool.SILENCE_WALL_S", 3.0)
    kinds = ("abort", "code", "fine", "leak", "loop", "memory", "sleep", "write")
    write(tmp_path / "scans", {f"{kind}.dcm": kind.encode() + bytes(200) for kind in kinds})
    report = run()
    assert (tmp_path / "hostile_worker.py.written").stat().st_size == 0
    assert report.rejected == Counter(
        {
            RejectCode.WORKER_DIED: 4,  # abort, code, leak, write
            RejectCode.TIME_LIMIT: 2,  # loop, sleep
            RejectCode.MEMORY: 1,
            RejectCode.SOP_CLASS: 1,
        }
    )


BUSY_WORKER = """
import time
from client.dicom.limits import grant_cpu
from client.dicom.worker import serve

def task(session, request):
    for name in request["files"]:
        grant_cpu(30)
        enough = time.process_time() + 3
        while time.process_time() < enough:
            pass
        yield {"end": True, "code": "sop_class"}, None

serve({"images": task})
"""


def test_a_worker_that_is_silent_but_busy_is_waited_for(tmp_path, monkeypatch, run):
    """On a crowded machine the clock runs while the worker does not: only processor time is limited."""
    (tmp_path / "busy_worker.py").write_text(BUSY_WORKER)
    environment = pool._environment()
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    monkeypatch.setattr(pool, "_environment", lambda: environment)
    monkeypatch.setattr("client.dicom.images.WORKER", "busy_worker")
    monkeypatch.setattr("client.dicom.pool.SILENCE_WALL_S", 1.5)
    write(tmp_path / "scans", {"a.dcm": bytes(200)})
    assert run().rejected == {RejectCode.SOP_CLASS: 1}


def test_other_settings_another_secret_or_a_second_writer_are_refused(tmp_path, scan, run, settings_with, secret):
    write(tmp_path / "scans", {"a.dcm": scan()})
    run()
    with pytest.raises(CacheInvalidError, match="other settings"):
        run(settings_with(size_px=(16, 16)))
    with pytest.raises(CacheInvalidError, match="another site secret"):
        Cache.open(tmp_path / "cache", bytes(32))
    header = tmp_path / "cache" / "cache.json"
    header.write_text(header.read_text().replace("-2000.0", "-1000.0").replace("4000.0", "2000.0"))
    with pytest.raises(CacheInvalidError, match="settings were edited"):
        Cache.open(tmp_path / "cache", secret)


def test_a_patient_who_opts_out_is_erased_and_never_taken_again(tmp_path, scan, run, secret):
    write(tmp_path / "scans", {f"{p}{n}.dcm": scan(patient=p, number=n) for p in "ABC" for n in range(3)})
    run()
    cache = Cache.open(tmp_path / "cache", secret)
    gone = cache.records[0].patient_key
    kept = {r.record_id: cache.read_levels(r.record_id) for r in cache.records if r.patient_key != gone}
    study = "ab" * 32
    assert len(cache.freeze(study).patients()[gone]) == 3
    full = shard_bytes(tmp_path / "cache" / "segments")
    assert withdraw(open_folder(tmp_path / "cache", secret), gone) == 3
    assert shard_bytes(tmp_path / "cache" / "segments") == full * 6 // 9
    report = run()
    assert (report.accepted, report.rejected) == (6, Counter({RejectCode.WITHDRAWN: 3}))
    (tmp_path / "scans" / "A0.dcm").touch()
    write(tmp_path / "scans", {"A9.dcm": scan(patient="A", number=9), "B9.dcm": scan(patient="B", number=9)})
    run()
    after = Cache.open(tmp_path / "cache", secret)
    assert gone not in {record.patient_key for record in after.records}
    assert after.frozen(study).patients()[gone] == [], "a null record in the study that was approved before"
    assert all(np.array_equal(after.read_levels(record_id), levels) for record_id, levels in kept.items())


def test_equal_names_below_two_folders_are_two_files(tmp_path, scan, settings_with, secret):
    for folder in ("north", "south"):
        source = write(tmp_path / folder, {"1.dcm": scan(patient=folder)})
        ingest(source, tmp_path / "cache", settings=settings_with(), secret=secret)
    assert len(Cache.open(tmp_path / "cache", secret).patients()) == 2
    other = write(tmp_path / "east", {"2.dcm": scan(np.zeros((SIDE, SIDE), np.uint16), patient="north")})
    clash = ingest(other, tmp_path / "cache", settings=settings_with(), secret=secret)
    assert clash.rejected == {RejectCode.CONFLICTING_INSTANCE: 1}
    again = ingest(tmp_path / "north", tmp_path / "cache", settings=settings_with(), secret=secret)
    assert (again.files_read, again.records) == (0, 2)


def test_what_only_the_clock_refused_is_tried_again(tmp_path, scan, run, monkeypatch):
    write(tmp_path / "scans", {"a.dcm": scan()})

    def too_late(*arguments, timeout_s, **settings):
        if timeout_s == SILENCE_WALL_S:
            raise TimeoutError  # what reading a file's outcome from the worker's pipe raises at the deadline
        return receive(*arguments, timeout_s=timeout_s, **settings)

    monkeypatch.setattr("client.dicom.pool.receive", too_late)
    assert run().rejected == {RejectCode.TIME_LIMIT: 1}
    monkeypatch.undo()
    assert run().accepted == 1


def test_an_opt_out_that_is_cut_off_is_finished_by_doing_it_again(tmp_path, scan, run, secret, monkeypatch):
    write(tmp_path / "scans", {f"{p}{n}.dcm": scan(patient=p, number=n) for p in "AB" for n in range(3)})
    run()
    before = contents(tmp_path / "cache", secret)
    gone = Cache.open(tmp_path / "cache", secret).records[0].patient_key
    kept = {record_id: content for record_id, content in before.items() if content[0] != gone}

    class KilledError(Exception):
        pass

    def kill(*_):
        raise KilledError

    folder = open_folder(tmp_path / "cache", secret)
    with monkeypatch.context() as patch:
        patch.setattr("client.dicom.withdrawals.remove_segments", kill)
        with pytest.raises(KilledError):
            withdraw(folder, gone)
    assert contents(tmp_path / "cache", secret) == kept, "nobody reads the scans from the first moment on"
    withdraw(folder, gone)
    assert contents(tmp_path / "cache", secret) == kept
    assert run().records == 3
    assert shard_bytes(tmp_path / "cache" / "segments") == 3 * (2 * SIDE * SIDE + OVERHEAD_BYTES), "no copy is left"


def test_a_full_disk_is_one_sentence_and_loses_nothing_committed(tmp_path, scan, run, secret, monkeypatch):
    write(tmp_path / "scans", {"1.dcm": scan(number=1)})
    run()
    before = contents(tmp_path / "cache", secret)
    write(tmp_path / "scans", {"2.dcm": scan(number=2)})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("client.dicom.segments.os.fsync", full)
        with pytest.raises(CacheInvalidError, match="No space left"):
            run()
    assert contents(tmp_path / "cache", secret) == before
    assert run().records == 2


def test_reading_scans_needs_neither_torch_nor_flower():
    code = (
        "import sys, pkgutil, importlib, client.dicom as package\n"
        "for module in pkgutil.iter_modules(package.__path__):\n"
        "    importlib.import_module(f'client.dicom.{module.name}')\n"
        "assert not {'torch', 'flwr', 'monai', 'opacus', 'gdcm'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(params=[False, True], ids=["pictures", "volumes"])
def two_patients(request, tmp_path, scan, settings_with):
    """Two patients with four slices each, in 2-D and in 3-D; returns the settings."""
    write(tmp_path / "scans", {f"{p}/{n}.dcm": scan(patient=p, number=n) for p in "AB" for n in range(4)})
    return settings_with(volume=request.param)


def test_records_without_a_file_are_counted_and_erased_only_when_asked(tmp_path, run, two_patients, secret):
    full = run(two_patients).records
    gone = tmp_path / "gone"
    (tmp_path / "scans" / "A").rename(gone)
    kept = run(two_patients)
    assert (kept.records, kept.records_without_file) == (full, full // 2)
    erased = run(two_patients, erase_missing=True)
    assert (erased.records, erased.records_without_file) == (full // 2, 0)
    assert len(Cache.open(tmp_path / "cache", secret)) == full // 2
    gone.rename(tmp_path / "scans" / "A")
    assert run(two_patients).records == full, "files that come back are read again"


def test_a_lost_mount_erases_nothing(tmp_path, run, two_patients, secret):
    full = run(two_patients).records
    (tmp_path / "scans").rename(tmp_path / "unmounted")
    (tmp_path / "scans").mkdir()
    with pytest.raises(CacheInvalidError, match="is it mounted"):
        run(two_patients, erase_missing=True)
    assert len(Cache.open(tmp_path / "cache", secret)) == full
