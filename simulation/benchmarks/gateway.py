"""Memory of gateway and SuperLink, and another hospital's heartbeat: quiet, and under a hostile admitted hospital.

    python -m simulation.benchmarks.gateway --json      # about a minute

A federation of two hospitals is made in a temporary folder; `fedward-server up` runs as it does for people. The load is
in ``simulation.benchmarks.gateway_load``. Both sides of each ratio come from one run. Linux only (/proc).
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Final

import typer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from common.flower.environment import child_environment
from common.processes.ports import first_free
from common.terminal import JsonOption, output, print_json, run
from common.trust.enrolment import Enrolment, signed_enrolment
from server.deployment.federation_status import process_of
from server.deployment.loopback_tls import loopback_authority
from server.deployment.superlink_client import AwayError, SuperLinkClient
from server.federation.admission import admit, sign_next_roster
from server.federation.config import coordinator_config_text, read_coordinator_config
from server.federation.folder import FederationFolder
from server.federation.setup import create_federation
from simulation.benchmarks.gateway_load import Visitor, beats, press

SITES: Final = ("hostile", "other")
WATCHED: Final = ("gateway", "superlink")
START_TIMEOUT_S: Final = 180.0
FIRST_PORT: Final = 21_000


@dataclass(frozen=True)
class Measured:
    """Resident memory of both processes in MiB (largest so far, at the end of each part), and heartbeats in seconds."""

    seconds: float
    quiet_mib: dict[str, float]
    hostile_mib: dict[str, float]
    memory_ratio: dict[str, float]
    quiet_heartbeat_s: float
    heartbeat_median_s: float
    heartbeat_worst_s: float
    heartbeats: int
    answers: dict[str, int]


def measure(seconds: float) -> Measured:
    """Run a federation, quiet for a quarter of the time and under load for the rest."""
    with tempfile.TemporaryDirectory() as place, _running(Path(place)) as (folder, hostile, other):
        quiet = beats(other, seconds / 4)
        before = _peaks(folder)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as own_process:
            pressing = own_process.submit(press, hostile, seconds * 3 / 4)
            meanwhile = [beat for _ in iter(pressing.done, True) for beat in beats(other, 1.0)]
            after = _peaks(folder)
    return Measured(
        seconds=seconds,
        quiet_mib=before,
        hostile_mib=after,
        memory_ratio={name: round(after[name] / before[name], 2) for name in WATCHED},
        quiet_heartbeat_s=round(median(quiet), 3),
        heartbeat_median_s=round(median(meanwhile), 3),
        heartbeat_worst_s=round(max(meanwhile), 3),
        heartbeats=len(meanwhile),
        answers=pressing.result(),
    )


@contextmanager
def _running(place: Path) -> Iterator[tuple[FederationFolder, Visitor, Visitor]]:
    """Make a federation and keep it up; yields its folder and the two hospitals."""
    folder = FederationFolder(place / "coordinator")
    gateway, superlink = (first_free("127.0.0.1", start) for start in (FIRST_PORT, FIRST_PORT + 500))
    text = coordinator_config_text(
        "load", f"localhost:{gateway}", gateway_port=None, superlink_port=superlink, status_port=0
    )
    create_federation(folder, text)
    keys = {name: ec.generate_private_key(ec.SECP384R1()) for name in SITES}
    for name, key in keys.items():
        _admit(folder, place / f"{name}.json", name, key)
    sign_next_roster(folder, "load")
    line = (sys.executable, "-m", "server", "up", "--folder", str(folder.path))
    log = (place / "up.log").open("wb")
    environment = child_environment() | ({"FEDWARD_ALLOW_ROOT": "1"} if os.geteuid() == 0 else {})
    up = subprocess.Popen(line, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        nodes = _nodes(folder)
        pem = {n: k.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for n, k in keys.items()}
        hostile, other = (Visitor(nodes[name], pem[name], gateway, folder.ca_certificate) for name in SITES)
        yield folder, hostile, other
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(60)
        log.close()


def _admit(folder: FederationFolder, file: Path, name: str, key: ec.EllipticCurvePrivateKey) -> None:
    site_key = Ed25519PrivateKey.generate()
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    enrolment = Enrolment(name, site_key.public_key(), line)
    file.write_bytes(signed_enrolment(enrolment, site_key))
    admit(folder, file, enrolment.fingerprint())


def _nodes(folder: FederationFolder) -> dict[str, int]:
    """Wait until the executor has registered both hospitals; return their node numbers. Raises: TimeoutError."""
    end_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end_s:
        time.sleep(0.5)
        if not loopback_authority(folder).exists() or any(process_of(folder, name) is None for name in WATCHED):
            continue
        address = read_coordinator_config(folder.config).superlink_address
        authority, secret = loopback_authority(folder).read_bytes(), folder.executor_secret.read_bytes()
        client = SuperLinkClient(address, authority=authority, secret=secret)
        try:
            found = {node.name: node.number for node in client.nodes()}
        except AwayError:
            continue
        finally:
            client.close()
        if found.keys() >= set(SITES):
            return found
    raise TimeoutError(f"the SuperLink knew no nodes within {START_TIMEOUT_S:g} s")


def _peaks(folder: FederationFolder) -> dict[str, float]:
    found = {}
    for name in WATCHED:
        status = Path(f"/proc/{process_of(folder, name)}/status").read_text("ascii").splitlines()
        found[name] = round(next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024, 1)
    return found


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    *,
    seconds: Annotated[float, typer.Option(help="How long to measure, a quarter of it quiet.")] = 40.0,
    as_json: JsonOption = False,
) -> None:
    """Measure what one hostile admitted hospital does to the gateway, the SuperLink and another hospital."""
    found = asdict(measure(seconds))
    print_json(found) if as_json else output.print(str(found), markup=False)


if __name__ == "__main__":
    run(app)
