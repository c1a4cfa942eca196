"""What opening a cache costs, with its catalogue and without one, by the number of records.

    python -m simulation.benchmarks.cache_opening --records 200000 --json

Made-up records of 8 x 8 pixels, three to a patient, in segments of 5000: a catalogue depends on their number, not on
their size. Processor time of this process, the least of some repeats for what is quick; memory is resident memory above
what the process held before, in a fork of its own.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from client.dicom.cache import Cache
from client.dicom.cache_folder import CacheFolder, open_or_create
from client.dicom.catalogue_file import FOLDER, forget_catalogues
from client.dicom.record import RecordInfo
from client.dicom.segments import SegmentWriter
from client.dicom.settings import IngestSettings
from common.plan.task import Intensity, Modality, TaskKind
from common.terminal import JsonOption, output, print_json, run
from simulation.benchmarks.peak_memory import peak_mb

SECRET: Final = bytes(range(32))
STUDY: Final = "5" * 64
RECORDS_A_PATIENT: Final = 3
RECORDS_A_SEGMENT: Final = 5000
REPEATS: Final = 5


@dataclass(frozen=True)
class Row:
    """Processor time and memory for a number of records; ``study``: of the view of a frozen study; file: on disk."""

    records: int
    open_ms: float
    study_open_ms: float
    patient_ms: float
    making_s: float
    study_making_s: float
    open_mb: float
    making_mb: float
    file_mb: float


def measure(records: int, path: Path) -> Row:
    """Make a cache up at ``path``, and open it: without a catalogue, then with one."""
    folder = _made_up(records, path)

    def make_anew() -> None:
        forget_catalogues(folder)
        Cache.open(path, SECRET)

    making_mb = peak_mb(lambda: make_anew)
    making_s = _cpu_s(make_anew, 1)
    opened = Cache.open(path, SECRET)
    study_making_s = _cpu_s(lambda: opened.freeze(STUDY), 1)
    patients = opened.patients()
    keys = list(patients)
    return Row(
        records=records,
        open_ms=1000 * _cpu_s(lambda: Cache.open(path, SECRET), REPEATS),
        study_open_ms=1000 * _cpu_s(lambda: opened.frozen(STUDY), REPEATS),
        patient_ms=1000 * _cpu_s(lambda: patients[keys[len(keys) // 2]], 1),
        making_s=making_s,
        study_making_s=study_making_s,
        open_mb=peak_mb(lambda: lambda: Cache.open(path, SECRET)),
        making_mb=making_mb,
        file_mb=(path / FOLDER / "records.sealed").stat().st_size / 1e6,
    )


def _cpu_s(step: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start_s = time.process_time()
        step()
        times.append(time.process_time() - start_s)
    return min(times)


def _made_up(records: int, path: Path) -> CacheFolder:
    settings = IngestSettings(
        kind=TaskKind.CLASSIFICATION,
        classes=("normal", "lesion"),
        modalities=(Modality.CT,),
        dimensions=2,
        size_px=(8, 8),
        intensity=Intensity.CT_WINDOW,
        window_hu=(0.0, 4000.0),
    )
    folder = open_or_create(path, SECRET, settings)
    for start in range(0, records, RECORDS_A_SEGMENT):
        writer = SegmentWriter(folder.segments, folder.vault)
        for number in range(start, min(start + RECORDS_A_SEGMENT, records)):
            blob = bytes(2 * 8 * 8)
            writer.note_record(_record(number, writer.place("levels", _key("0", 7919 * number), blob)))
        writer.commit()
    return folder


def _record(number: int, place: tuple[int, int, int]) -> RecordInfo:
    patient, (segment, offset, length) = number // RECORDS_A_PATIENT, place
    return RecordInfo(
        patient_key=_key("a", patient),
        patient_id_key=_key("b", patient),
        issuer_key="",
        likeness_key=_key("c", patient),
        accession_key="",
        study_key=_key("d", patient),
        series_key=_key("e", patient),
        instance_key=_key("f", number),
        modality="CT",
        maker="",
        laterality="",
        view="",
        record_id=_key("0", 7919 * number),
        shape=(8, 8),
        content_digest=number.to_bytes(16, "big"),
        segment=segment,
        offset=offset,
        length=length,
    )


def _key(kind: str, number: int) -> str:
    """Return a name as long as keyed ones are."""
    return f"{kind}{number:031x}"


def cache_opening(
    *,
    records: Annotated[list[int] | None, typer.Option(min=1, help="Numbers of records, each measured.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what opening a cache costs (200,000 records: minutes, nearly all of it to make them up)."""
    rows = []
    for count in records or [20_000]:
        with tempfile.TemporaryDirectory(prefix="fedward-cache-") as folder:
            rows.append(measure(count, Path(folder) / "cache"))
    if as_json:
        print_json({"rows": [asdict(row) for row in rows]})
        return
    for row in rows:
        output.print(f"{row.records} records:", {name: round(value, 2) for name, value in asdict(row).items()})


if __name__ == "__main__":
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(cache_opening)
    run(application)
