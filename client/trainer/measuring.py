"""``python -m client.trainer.measuring``: choose a plan's engines before its first order, in a process of its own.

It sees a plan and no patient, no key, no cache; what it finds goes to the site folder's ``engines`` (``verdict``),
where the process that trains reads it. It is told one line through standard input and tells the time left, a line for
each phase, through standard output; a crash, or an end for lack of memory, costs nothing but the choice: the safe
engine stands, one patient at a time.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from client.dicom.record import Stratum
from client.installation.config import SpeedSection
from client.learning.patients import NoPatients
from client.learning.speed import Speed, speed_of
from client.private_gradients.budget import Budget
from client.private_gradients.verdict import RememberedVerdicts, Verdicts
from client.private_gradients.verdict_folder import VerdictFolder
from client.trainer.device_memory import free_on, peak_of, require_device
from client.trainer.memory_limit import keep_measured, measured_bytes
from client.trainer.phases import phase_training
from common.errors import ExitCode, FedwardError, of_system
from common.faults import fault_without_text
from common.files import parsed_json
from common.plan.machines import SHARE, need_of
from common.plan.plan import Site, StudyPlan
from common.plan.shape import phase_layouts
from common.plan.start import start_network
from common.processes.hardening import shut_process

NICENESS: Final = 10  # an order that comes meanwhile goes first


def measure_engines(
    plan: StudyPlan,
    site: Site,
    speed: Speed,
    verdicts: Verdicts,
    *,
    told: Callable[[float], None] = lambda _: None,
    budget: Budget | None = None,
    engines: Path | None = None,
) -> None:
    """Choose the engines of every phase; what ``verdicts`` has is not tried again. ``told``: seconds left, at most.

    ``engines``: folder in which the memory of one patient is kept; None: it is not measured.

    Raises: TrainerFailedError for a GPU that is gone; NetworkUnsuitableError; what writing a verdict raises.
    """
    require_device(speed.device)
    budget = budget or Budget()
    if engines is not None:
        told(budget.left_s)
        _measure_memory(plan, site, speed, engines, budget)
    for index, phase in enumerate(plan.phases):
        told(budget.left_s)
        network = start_network(plan).to(speed.device)
        training = phase_training(plan, index, site, network, NoPatients(), speed=speed, verdicts=verdicts)
        steps = phase.rounds * phase.local_steps
        training.measure(
            budget,
            planned_patients={
                Stratum.LABELLED: steps * phase.labelled_sampling_rate * site.labelled_patients,
                Stratum.UNLABELLED: steps * phase.unlabelled_sampling_rate * site.unlabelled_patients,
            },
        )


def _measure_memory(plan: StudyPlan, site: Site, speed: Speed, engines: Path, budget: Budget) -> None:
    """Measure what one patient takes, in the phase that trains most: one row of a made-up one, times all rows.

    Not where the estimate does not fit: the kernel would end this process, or a patient one (``require_memory``).
    """
    known, free, need = measured_bytes(engines, plan, device=speed.device), free_on(speed.device), need_of(plan)
    if known is not None or (free is not None and need.patient_bytes > SHARE * free):
        return
    layouts = phase_layouts(plan)
    index = max(range(len(layouts)), key=lambda each: layouts[each].sum_length)
    network = start_network(plan).to(speed.device)
    training = phase_training(plan, index, site, network, NoPatients(), speed=speed, verdicts=RememberedVerdicts())
    began_s = time.process_time()
    peak = peak_of(training.one_made_up_row, speed.device)
    budget.spent_s += time.process_time() - began_s
    if peak is not None:
        rows = plan.image.taken_of_a_patient * max(phase.views_per_scan for phase in plan.phases)
        keep_measured(engines, plan, device=speed.device, patient_bytes=rows * peak)


def main() -> None:
    """Measure what the line on standard input asks for; the last line says how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the agent, which ends this process
    shut_process()
    os.umask(0o077)
    os.nice(NICENESS)
    device = "cpu"
    try:
        asked = parsed_json(sys.stdin.buffer.readline())
        plan = StudyPlan.model_validate_json(asked["plan"], strict=False)
        speed = speed_of(SpeedSection.model_validate_json(asked["speed"], strict=False))
        device = speed.device
        site = next(site for site in plan.sites if site.name == asked["site"])
        engines = Path(asked["engines"])
        measure_engines(plan, site, speed, VerdictFolder(engines), told=_tell, engines=engines)
    except FedwardError as error:
        _say({"failed": int(error.exit_code), "sentence": str(error)})
    except Exception as error:  # noqa: BLE001 (the last net: the agent learns its kind)
        _say({"failed": int(ExitCode.INTERNAL), "sentence": sentence_of(error, device)})
    else:
        _say({"done": True})


def sentence_of(error: Exception, device: str) -> str:
    """Return what the machine lacks, if that is why; a GPU that went meanwhile; else the fault's kind and place."""
    lacking = of_system(error)
    if lacking is not None:
        return str(lacking)
    try:
        require_device(device)
    except FedwardError as gone:
        return str(gone)
    return fault_without_text(error)


def _tell(left_s: float) -> None:
    _say({"left_s": round(left_s)})


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
