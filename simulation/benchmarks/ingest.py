"""How fast scans are read: our reader with all its checks, MONAI's reader without any, and the limit of the machine.

CPU time of one process for each slice of a 512 x 512 CT, interleaved, best of several rounds.

ours    what a worker does with a file: open without following links, header, identity, budget, codestream check,
        decode, rescale, window, resize to 256 x 256. Not counted: sealing into the cache, the way between processes.
MONAI   ``PydicomReader`` alone: ``read`` and ``get_data``; no resize, no check, no identity.
limit   read the bytes, bare decoder (none for uncompressed), to float32 HU, the same resize: no header, no check.
cache   one record of 512 x 512: decrypt, to float32 in [0, 1]; against a plain memory map of the same bytes.
"""

import io
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import imagecodecs
import jpeg_ls
import numpy as np
import openjpeg.utils
import rle.utils
import typer
from monai.data.image_reader import PydicomReader
from numpy.typing import NDArray
from pydicom import dcmread
from rich.table import Table

from client.dicom.cache import Cache
from client.dicom.ingest import ingest
from client.dicom.instance import read_images
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.resize import Axis, resample
from client.dicom.settings import IngestSettings
from client.dicom.walk import read_whole
from common.plan.task import Intensity, Modality, TaskKind
from common.terminal import JsonOption, output, print_json, run
from simulation.benchmarks.cpu_time import best_seconds, progress_for_people
from simulation.hospitals.dicom_writer import Form, Names, Template, uid_for
from simulation.hospitals.phantoms import PhantomKind, render
from simulation.hostile.raw_file import RawFile

SIDE_PX = 512
RESIZED_PX = 256
INTERCEPT = -1024
SYNTAXES = {
    "uncompressed": "explicit",
    "RLE": "rle",
    "JPEG-LS": "jpeg_ls",
    "JPEG lossless": "jpeg_lossless",
    "JPEG 2000": "jpeg_2000",
}
REAL_SERIES = Path(__file__).resolve().parents[2] / "../shared/data/dicom/series_nlst_ct"

Slices = list[NDArray[np.uint16]]


def settings(size_px: int) -> IngestSettings:
    """Return what a CT study of single slices asks for."""
    return IngestSettings(
        kind=TaskKind.CLASSIFICATION,
        classes=("normal", "lesion"),
        modalities=(Modality.CT,),
        dimensions=2,
        size_px=(size_px, size_px),
        intensity=Intensity.CT_WINDOW,
        window_hu=(0.0, 2048.0),
    )


def slices_to_read(count: int) -> Slices:
    """Return stored values (12 bits, HU + 1024): a real lung series if it lies beside the checkout, or phantoms."""
    files = sorted(REAL_SERIES.glob("*.dcm"))
    if len(files) >= count:
        chosen = [dcmread(files[i * len(files) // count]) for i in range(count)]
        hounsfield = [ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in chosen]
        return [np.clip(values - INTERCEPT, 0, 4095).astype(np.uint16) for values in hounsfield]
    images = render(PhantomKind.CT, np.arange(count) % 2, np.random.default_rng(0), SIDE_PX)
    return [np.rint(image * 2048).astype(np.uint16) for image in images]


def write_slices(folder: Path, syntax: str, slices: Slices) -> None:
    """Write each slice as a CT file in one syntax."""
    folder.mkdir(parents=True)
    template = Template(Form("CT", SIDE_PX, SIDE_PX, syntax=syntax, intercept=INTERCEPT))
    for number, values in enumerate(slices):
        study, series, instance = (uid_for("benchmark", level, syntax, number) for level in "abc")
        template.write(folder / f"{number:04d}.dcm", Names(f"P{number}", study, series, instance), values)


def read_ours(folder: Path) -> Callable[[], float]:
    """Return a step that reads all files of ``folder`` as a worker does; its value is the mean, for comparison."""
    wanted, names = settings(RESIZED_PX), Pseudonyms.of_site(secrets.token_bytes(32))
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    files = sorted(os.fsencode(path.name) for path in folder.iterdir())

    def step() -> float:
        levels = [next(read_images(read_whole(root, name), wanted, names))[1] for name in files]
        return float(np.mean([array.mean() for array in levels[:2]])) / 65535 * 2048 + INTERCEPT

    return step


def read_monai(folder: Path) -> Callable[[], float]:
    """Return a step that reads all files of ``folder`` with MONAI's reader."""
    reader, files = PydicomReader(), sorted(folder.iterdir())

    def step() -> float:
        arrays = [reader.get_data(reader.read(path))[0] for path in files]
        return float(np.mean([array.mean() for array in arrays[:2]]))

    return step


def read_limit(folder: Path, syntax: str) -> Callable[[], float]:
    """Return a step that does the unavoidable: read, bare decoder, to HU, resize; places of the pixels are known."""
    axis = Axis(0.0, SIDE_PX, RESIZED_PX)
    places = []
    for path in sorted(folder.iterdir()):
        content, raw = path.read_bytes(), RawFile(path.read_bytes())
        pixels = raw.elements[0x7FE00010].value if syntax == "uncompressed" else raw.first_fragment()
        places.append((path, content.rindex(pixels), len(pixels)))
    decode = DECODERS[syntax]

    def step() -> float:
        results = []
        for path, start, length in places:
            values = decode(path.read_bytes()[start : start + length]).astype(np.float32)
            values += np.float32(INTERCEPT)
            results.append(resample(values, axis, axis))
        return float(np.mean([array.mean() for array in results[:2]]))

    return step


def as_words(content: bytes) -> NDArray[np.uint16]:
    """Return native pixels as they are."""
    return np.frombuffer(content, np.uint16).reshape(SIDE_PX, SIDE_PX)


def decode_rle(content: bytes) -> NDArray[np.uint16]:
    """Decode one RLE frame of 16-bit values."""
    return as_words(bytes(rle.utils.decode_frame(content, SIDE_PX * SIDE_PX, 16, "<")))


def decode_jpeg_ls(content: bytes) -> NDArray[np.uint16]:
    """Decode one JPEG-LS frame."""
    return as_words(bytes(jpeg_ls.decode_pixel_data(content)[0]))


DECODERS: dict[str, Callable[[bytes], NDArray[np.uint16]]] = {
    "uncompressed": as_words,
    "RLE": decode_rle,
    "JPEG-LS": decode_jpeg_ls,
    "JPEG lossless": imagecodecs.jpeg8_decode,
    "JPEG 2000": lambda content: openjpeg.utils.decode(io.BytesIO(content)),
}


def row(folder: Path, syntax: str, slices: Slices, repeats: int) -> dict[str, Any]:
    """Measure one transfer syntax."""
    write_slices(folder, SYNTAXES[syntax], slices)
    steps = {"ours": read_ours(folder), "monai": read_monai(folder), "limit": read_limit(folder, syntax)}
    means = {name: step() for name, step in steps.items()}
    if max(means.values()) - min(means.values()) > 25:  # windowing clips a little; a wrong decoder is hundreds off
        raise RuntimeError(f"the readers of {syntax} disagree about the picture: {means}")
    seconds = best_seconds(steps, repeats=repeats, clock=time.process_time)
    speed = {name: len(slices) / spent for name, spent in seconds.items()}
    return {
        "syntax": syntax,
        "ours_slices_per_s": round(speed["ours"], 1),
        "monai_slices_per_s": round(speed["monai"], 1),
        "limit_slices_per_s": round(speed["limit"], 1),
        "ratio_to_monai": round(speed["ours"] / speed["monai"], 2),
        "ratio_to_limit": round(speed["ours"] / speed["limit"], 2),
    }


def cache_ratio(folder: Path, slices: Slices, repeats: int) -> float:
    """Return our time to read a record from the cache over that of a bare memory map, both to float32 in [0, 1]."""
    write_slices(folder / "scans", "explicit", slices)
    secret = secrets.token_bytes(32)
    ingest(folder / "scans", folder / "cache", settings=settings(SIDE_PX), secret=secret)
    cache = Cache.open(folder / "cache", secret)
    identifiers = [record.record_id for record in cache.records]
    np.stack([cache.read_levels(name) for name in identifiers]).tofile(folder / "levels")
    bare = np.memmap(folder / "levels", np.uint16, "r", shape=(len(identifiers), SIDE_PX, SIDE_PX))
    order = np.random.default_rng(0).permutation(len(identifiers))

    def read_cache() -> None:
        for place in order:
            cache.read(identifiers[place])

    def read_bare() -> None:
        for place in order:
            bare[place] / np.float32(65535)

    seconds = best_seconds({"ours": read_cache, "bare": read_bare}, repeats=2 * repeats, clock=time.process_time)
    return round(seconds["ours"] / seconds["bare"], 2)


def measure(slices: int, repeats: int) -> dict[str, Any]:
    """Measure every syntax and the cache; the result has the form that the project's targets are written in."""
    pictures = slices_to_read(slices)
    with tempfile.TemporaryDirectory() as folder, progress_for_people() as bar:
        task = bar.add_task("reading scans", total=len(SYNTAXES) + 1)
        rows = []
        for syntax, name in SYNTAXES.items():
            rows.append(row(Path(folder) / name, syntax, pictures, repeats))
            bar.advance(task)
        return {"rows": rows, "cache": {"ratio_to_memmap": cache_ratio(Path(folder) / "cache", pictures, repeats)}}


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def benchmark(
    *,
    slices: Annotated[int, typer.Option(min=2, max=143, help="Slices of each transfer syntax.")] = 12,
    repeats: Annotated[int, typer.Option(min=1, help="Best of so many rounds.")] = 5,
    json: JsonOption = False,
) -> None:
    """Compare our reader of CT slices with MONAI's and with the limit, and the cache with a memory map."""
    result = measure(slices, repeats)
    if json:
        print_json(result)
        return
    table = Table("slices/s", "ours", "MONAI", "limit", "ours / MONAI", "ours / limit", title="512 x 512 CT, one core")
    for line in result["rows"]:
        table.add_row(*(str(value) for value in line.values()))
    output.print(table)
    output.print(f"cache: {result['cache']['ratio_to_memmap']} x the time of a bare memory map")


if __name__ == "__main__":
    run(app)
