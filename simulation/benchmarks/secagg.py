"""Our secure aggregation against Flower 1.41's, on the same vectors in the same process.

    python -m simulation.benchmarks.secagg --parameters 10000000 --sites 10 --dropped 1 --json

Ratios are Flower's CPU time over ours, best of several. Above 1, ours is faster.
"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from common.errors import ExitCode, FedwardError
from common.secagg.streams import fastest_mode
from common.secagg.thresholds import default_threshold
from common.secagg.vector import VectorSpec
from common.terminal import JsonOption, output, print_json, run
from simulation.benchmarks.cpu_time import progress_for_people
from simulation.benchmarks.flower_secagg import CLIPPING_RANGE, QUANTISATION_RANGE, FlowerSecAgg, flower_steps
from simulation.benchmarks.secagg_arithmetic import (
    OurMasks,
    ServerTimes,
    SiteTimes,
    site_vector,
    time_server,
    time_site,
)
from simulation.benchmarks.secagg_whole import COLLUDERS, OurFederation, WholeTimes, time_whole

GUARD_BITS = {32: 4, 21: 1, 16: 1}
COORDINATE_RANGE = 1.0

Measured = TypeVar("Measured")


class SumNotExactError(FedwardError):
    """The benchmark's own sum differs from the integer sum: its times would be of a wrong computation."""

    exit_code = ExitCode.RUN_INVALID


@dataclass(frozen=True)
class SecaggBenchmark:
    """What ``--json`` prints. ``..._ns`` and ``..._s`` are CPU time; ``_ns`` for each parameter.

    site_ratio: encode + masks, from float32 to the bytes that leave. server_ratio: add + unmask + decode, from the
    bytes that arrive to the mean. ``..._arrays``: without Flower's ``ndarray_to_bytes`` and ``bytes_to_ndarray`` (ours
    needs neither, so its time is the same). Both sides of a site start from float32. precision: the step between two
    values that a site can send, for updates in [-1, 1]; flower_precision: Flower's, always 2^22 steps over [-8, 8].
    ``..._whole_ratio``: all that a round computes, with signatures, Shamir,
    digests and journal. mask_ns_per_parameter_per_peer: one mask made and added. keystream_floor_ns: one keystream made
    and thrown away. exact: the integer sum equals the one computed without our encoder.
    """

    parameters: int
    sites: int
    dropped: int
    word_bits: int
    precision: float
    flower_precision: float
    repeats: int
    site_ratio: float
    server_ratio: float
    site_ratio_arrays: float
    server_ratio_arrays: float
    site_whole_ratio: float
    server_whole_ratio: float
    bytes_per_parameter: float
    flower_bytes_per_parameter: float
    mask_ns_per_parameter_per_peer: float
    keystream_floor_ns: float
    mask_over_floor: float
    site_ns: float
    flower_site_ns: float
    server_ns: float
    flower_server_ns: float
    site_whole_s: float
    flower_site_whole_s: float
    server_whole_s: float
    flower_server_whole_s: float
    keystream_mode: str
    flower_mean_error: float
    exact: bool


def measure(*, parameters: int, sites: int, dropped: int, word_bits: int = 32, repeats: int = 5) -> SecaggBenchmark:
    """Run the comparison.

    Raises: VectorRefusedError, PlanWeakThresholdError or RoundAbortedError where no round is possible with these
    numbers; SumNotExactError.
    """
    spec = VectorSpec(0, parameters, word_bits, GUARD_BITS.get(word_bits, 1), COORDINATE_RANGE, sites)
    spec.check()
    with progress_for_people() as progress, tempfile.TemporaryDirectory() as folder:
        task = progress.add_task("measuring", total=3)

        def shown(step: Callable[[], Measured]) -> Measured:
            progress.refresh()
            result = step()
            progress.advance(task)
            return result

        federation = OurFederation(spec, sites=sites, dropped=dropped, folder=Path(folder))
        federation.run_round()  # impossible numbers are refused before minutes are spent; and memory is warm
        flower = FlowerSecAgg(sites, dropped, default_threshold(sites, COLLUDERS))
        flower.exchange_keys()
        masks = OurMasks(sites, dropped)
        steps = flower_steps(flower, site_vector(0, parameters))
        whole = shown(lambda: time_whole(federation, steps, repeats=repeats))
        site = shown(lambda: time_site(spec, flower, masks, repeats=repeats))
        server = shown(lambda: time_server(spec, flower, masks, repeats=repeats))
    if not server.exact:
        raise SumNotExactError("the decoded sum differs from the integer sum; this is a bug, report it")
    return SecaggBenchmark(
        parameters=parameters,
        sites=sites,
        dropped=dropped,
        word_bits=word_bits,
        precision=spec.lattice.step,
        flower_precision=2 * CLIPPING_RANGE / QUANTISATION_RANGE,
        repeats=repeats,
        **_arithmetic_figures(parameters, sites, site, server),
        **_whole_figures(parameters, server, whole),
    )


def _arithmetic_figures(parameters: int, sites: int, site: SiteTimes, server: ServerTimes) -> dict[str, Any]:
    def ns(seconds: float) -> float:
        return round(seconds / parameters * 1e9, 4)

    mask_s = (site.ours_s - site.encode_s) / sites  # a site's masks: its own and one for each peer
    flower_site_s = site.flower_s + site.flower_serialise_s
    flower_server_s = server.flower_s + server.flower_deserialise_s
    return {
        "site_ratio": round(flower_site_s / site.ours_s, 2),
        "server_ratio": round(flower_server_s / server.ours_s, 2),
        "site_ratio_arrays": round(site.flower_s / site.ours_s, 2),
        "server_ratio_arrays": round(server.flower_s / server.ours_s, 2),
        "mask_ns_per_parameter_per_peer": ns(mask_s),
        "keystream_floor_ns": ns(site.keystream_s),
        "mask_over_floor": round(mask_s / site.keystream_s, 3),
        "site_ns": ns(site.ours_s),
        "flower_site_ns": ns(flower_site_s),
        "server_ns": ns(server.ours_s),
        "flower_server_ns": ns(flower_server_s),
        "keystream_mode": str(fastest_mode()),
        "flower_mean_error": server.flower_mean_error,
        "exact": server.exact,
    }


def _whole_figures(parameters: int, server: ServerTimes, whole: WholeTimes) -> dict[str, Any]:
    flower_server_s = server.flower_s + server.flower_deserialise_s + whole.flower_server_extra_s
    return {
        "site_whole_ratio": round(whole.flower_site_s / whole.site_s, 2),
        "server_whole_ratio": round(flower_server_s / whole.server_s, 2),
        "bytes_per_parameter": round(whole.masked_bytes / parameters, 4),
        "flower_bytes_per_parameter": round(whole.flower_masked_bytes / parameters, 4),
        "site_whole_s": round(whole.site_s, 4),
        "flower_site_whole_s": round(whole.flower_site_s, 4),
        "server_whole_s": round(whole.server_s, 4),
        "flower_server_whole_s": round(flower_server_s, 4),
    }


def print_table(result: SecaggBenchmark) -> None:
    """Print the comparison for people."""
    table = Table(
        "", "Flower 1.41", "Fedward", "ratio", title=f"{result.parameters:,} parameters, {result.sites} sites"
    )
    rows = [
        ("site: encode + masks (ns/parameter)", result.flower_site_ns, result.site_ns, result.site_ratio),
        (
            "server: add + unmask + decode (ns/parameter)",
            result.flower_server_ns,
            result.server_ns,
            result.server_ratio,
        ),
        ("site, whole round (s)", result.flower_site_whole_s, result.site_whole_s, result.site_whole_ratio),
        ("server, whole round (s)", result.flower_server_whole_s, result.server_whole_s, result.server_whole_ratio),
        ("upload (bytes/parameter)", result.flower_bytes_per_parameter, result.bytes_per_parameter, None),
    ]
    for name, flower, ours, ratio in rows:
        table.add_row(name, f"{flower:.3f}", f"{ours:.3f}", "" if ratio is None else f"{ratio:.1f}")
    output.print(table)
    output.print(
        f"one mask {result.mask_ns_per_parameter_per_peer:.3f} ns, keystream alone {result.keystream_floor_ns:.3f} ns; "
        f"{result.dropped} dropped; the sum is exact; both from float32: {result.word_bits}-bit words in steps of "
        f"{result.precision:.2g} (Flower {result.flower_precision:.2g})"
    )


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def benchmark(
    *,
    parameters: Annotated[int, typer.Option(min=1, help="Length of the update.")] = 1_000_000,
    sites: Annotated[int, typer.Option(min=3, help="Sites in the cohort.")] = 10,
    dropped: Annotated[int, typer.Option(min=0, help="Sites that leave before their masked vector.")] = 0,
    word_bits: Annotated[int, typer.Option(help="32, 21 or 16.")] = 32,
    repeats: Annotated[int, typer.Option(min=1, help="Best of so many.")] = 5,
    json: JsonOption = False,
) -> None:
    """Compare our secure aggregation with Flower 1.41's on the same vectors."""
    result = measure(parameters=parameters, sites=sites, dropped=dropped, word_bits=word_bits, repeats=repeats)
    if json:
        print_json(asdict(result))
    else:
        print_table(result)


if __name__ == "__main__":
    run(app)
