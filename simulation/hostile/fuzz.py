"""Every parser that reads what others wrote, fed with mutated and random bytes.

    python -m simulation.hostile.fuzz --minutes 1 --json

A parser may return, or refuse with an error of ours; anything else is a finding: another exception, a call that takes
longer than ``SLOW_S`` of processor time, or memory of this process beyond ``MAX_GROWTH_BYTES``. Exit 1 with findings.
"""

import logging
import os
import random
import resource
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from common.errors import FedwardError
from common.secagg.refusals import RefusedError
from common.secagg.wire import WireError
from common.terminal import JsonOption, output, print_json, run
from server.gateway.door import RefusedError as DoorRefusedError
from simulation.hostile.fuzz_files import document_parsers, key_parsers
from simulation.hostile.fuzz_messages import message_parsers
from simulation.hostile.fuzz_records import record_parsers
from simulation.hostile.fuzz_scans import scan_parsers
from simulation.hostile.fuzz_seeds import Parsers, TrustSeeds

SLOW_S: Final = 5.0
MAX_GROWTH_BYTES: Final = 512 << 20
MAX_BYTES: Final = 64 * 1024
# other values of JSON and TOML, numbers that no float or integer holds, text that turns around
_WORDS: Final = (b"null", b"-1", b"1e999", b"[]", b"true", b'"x"', b"NaN", b"9" * 400, "\u202e\u0000".encode())
REFUSALS: Final = (FedwardError, WireError, RefusedError, DoorRefusedError)


def parsers(place: Path) -> Parsers:
    """Return each parser with good inputs, which it takes (``tests/simulation/hostile/test_fuzz.py``).

    ``place``: an empty folder, which must last as long as the parsers are used.
    """
    trust = TrustSeeds()
    rooms = {name: place / name for name in ("messages", "keys", "records", "scans")}
    for room in rooms.values():
        room.mkdir()
    return {
        **message_parsers(trust, rooms["messages"]),
        **document_parsers(trust),
        **key_parsers(trust, rooms["keys"]),
        **record_parsers(rooms["records"]),
        **scan_parsers(rooms["scans"]),
    }


def mutated(seed: bytes, draw: random.Random) -> bytes:
    """Return a seed with some bytes changed, cut, repeated or replaced; or nothing but noise."""
    content = bytearray(seed if draw.random() < 0.9 else draw.randbytes(draw.randrange(2000)))
    for _ in range(draw.randrange(1, 8) if draw.random() < 0.5 else 1):
        at = draw.randrange(len(content) + 1)
        pieces = (b"", draw.randbytes(3), b"[" * 5000, b"9" * 5000, b'{"a":' * 500, content[at : at + 40] * 50, *_WORDS)
        content[at : at + draw.randrange(20)] = draw.choice(pieces)
    return bytes(content[:MAX_BYTES])


def fuzz(seconds: float, seed: int) -> dict[str, object]:
    """Feed all parsers in turn for so long; return how often, and what was found."""
    draw, end_s = random.Random(seed), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as good, tempfile.TemporaryDirectory() as place, _quiet_libraries():
        fed = parsers(Path(good))
        tried, findings = dict.fromkeys(fed, 0), dict[str, str]()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        while time.monotonic() < end_s:
            for name, (parse, seeds) in fed.items():
                content, began_s = mutated(draw.choice(seeds), draw), time.process_time()
                try:
                    parse(content, Path(place))
                except REFUSALS:
                    pass
                except Exception as error:  # noqa: BLE001 (any other is what is looked for)
                    findings[f"{name}: {type(error).__name__}"] = content[:200].hex()
                if time.process_time() - began_s > SLOW_S:
                    findings[f"{name}: slow"] = content[:200].hex()
                tried[name] += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > MAX_GROWTH_BYTES:
        findings["memory"] = f"{grown} bytes more"
    return {"seed": seed, "tried": tried, "findings": findings, "grown_bytes": grown}


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Let what decoders in C and Rust print go where it goes in a worker: nowhere."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    *,
    minutes: Annotated[float, typer.Option(help="How long.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the random mutations.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Feed every parser with hostile bytes; exit 1 if one does anything but return or refuse."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's and nibabel's, for each image
            found = fuzz(minutes * 60, seed)
    finally:
        logging.disable(before)
    print_json(found) if as_json else output.print(str(found), markup=False)
    if found["findings"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    run(app)
