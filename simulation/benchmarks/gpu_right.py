"""What must hold on a GPU before its speed counts: the bound, apartness, engines that agree, the fence."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from client.private_gradients.book_keeping import book_keeping_gradients
from client.private_gradients.budget import Budget, Spending
from client.private_gradients.clipping import LatticeSum, patient_norms
from client.private_gradients.engine import PrivateGradient
from client.private_gradients.loop import loop_gradients
from client.private_gradients.problem import Problem
from client.private_gradients.settings import SpeedSettings
from client.private_gradients.stacks import PatientRows, rows_together
from client.private_gradients.vectorised import vmap_gradients
from client.private_gradients.verdict import RememberedVerdicts
from client.trainer import fence
from common.networks.parameters import layout
from simulation.benchmarks.gpu_subjects import TINY, Subject
from simulation.benchmarks.training_subjects import cross_entropy

CLIP: Final = 0.5
STEP: Final = 2.0**-24
ENGINES_AGREE: Final = 1e-2  # of the gradient's norm, as ``client.private_gradients.choice`` demands
BFLOAT16_AGREES: Final = 0.25
FENCE_S: Final = 120
SMALL: Final = (
    Subject("small_cnn 64²", "small_cnn", dimensions=2, width=16, size=64, patients=6),
    Subject("unet 32³", "unet", dimensions=3, width=8, size=32, patients=3),
)


@dataclass(frozen=True)
class Check:
    """One thing that must hold: its name, whether it does, and what was found."""

    name: str
    ok: bool
    detail: str


def checks(device: str, *, small: bool = False) -> Iterator[Check]:
    """Yield every check; one that fails stops nothing."""
    for subject in TINY if small else SMALL:
        for autocast in (False, True):
            yield _bounded_and_apart(subject, device, autocast=autocast)
        yield _engines_agree(subject, device)
    yield _fenced(device)


def _bounded_and_apart(subject: Subject, device: str, *, autocast: bool) -> Check:
    """Add patients with and without each one: the difference is its own sum, and not longer than its clip."""
    name = f"{subject.model}{', bfloat16' if autocast else ''}: nobody moves the sum by more than the clip"
    network = subject.build(device)
    gradient = PrivateGradient(network, layout(network), SpeedSettings(autocast=autocast), RememberedVerdicts())
    patients = subject.scans(device)
    patients[0].inputs.mul_(1e4)  # far beyond the clip
    patients[-1].inputs.fill_(float("nan"))
    at_once = len(patients)
    gradient.measure(patients[1], cross_entropy, at_once=at_once, most_rows=1, spending=Spending(Budget()))

    def summed(some: list[PatientRows]) -> Tensor:
        total = LatticeSum(layout(network).num_parameters, step=STEP, device=torch.device(device))
        gradient.add(some, cross_entropy, clipping_norm=CLIP, total=total, at_once=at_once, most_rows=1)
        return total.values.double().cpu()

    everybody = summed(patients)
    most, moved = 0.0, 0.0
    for place, patient in enumerate(patients):
        difference = everybody - summed(patients[:place] + patients[place + 1 :])
        most = max(most, float(difference.norm()) * STEP)
        moved = max(moved, float((difference - summed([patient])).abs().max()))
    bound = CLIP + STEP * layout(network).num_parameters ** 0.5 / 2
    detail = f"longest {most:.6f} of {bound:.6f}; beside others {moved:.0f} steps of 2^-24 away from alone"
    return Check(name, most <= bound and moved == 0, f"{', '.join(gradient.engine_names)}; {detail}")


def _engines_agree(subject: Subject, device: str) -> Check:
    """Hold each engine, and bfloat16, against one patient after another on the processor in float64."""
    name = f"{subject.model}: engines agree with float64 on the processor"
    reference = subject.build("cpu").double()
    doubled = [PatientRows(each.inputs.double(), each.targets, each.weights.double()) for each in subject.scans("cpu")]
    expected = loop_gradients(Problem(reference, layout(reference), cross_entropy), rows_together(doubled))
    network = subject.build(device)
    stack = rows_together(subject.scans(device))
    found, ok = [], True
    engines = {"loop": loop_gradients, "vmap": vmap_gradients, "book_keeping": book_keeping_gradients}
    for label, engine in engines.items():
        for autocast in (False, True):
            problem = Problem(network, layout(network), cross_entropy, autocast)
            try:
                away = engine(problem, stack).double().cpu() - expected
            except RuntimeError as error:
                found.append(f"{label}{' bfloat16' * autocast} cannot ({type(error).__name__})")
                continue
            share = float((patient_norms(away) / patient_norms(expected)).max())
            ok = ok and (autocast or share <= ENGINES_AGREE)  # bfloat16 is used only where its own trial passes
            far = "" if share <= (BFLOAT16_AGREES if autocast else ENGINES_AGREE) else " (refused by its trial)"
            found.append(f"{label}{' bfloat16' * autocast} {share:.1e}{far}")
    return Check(name, ok, "; ".join(found))


def _fenced(device: str) -> Check:
    """Start a process behind the trainer's fence that computes on the device and may not read a key."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "site"
        for name in ("cache", "public"):
            (folder / name).mkdir(parents=True)
        (folder / "site.secret").write_bytes(b"allowed")
        (folder / "keys").mkdir()
        (folder / "keys" / "key").write_bytes(b"not allowed")
        program = (
            "import sys, torch\n"
            f"x = torch.randn(64, 64, device={device!r}, requires_grad=True)\n"
            "(x @ x).sum().backward()\n"
            f"assert bool(torch.isfinite(x.grad).all())\n"
            f"open({str(folder / 'site.secret')!r}).read()\n"
            f"try: open({str(folder / 'keys' / 'key')!r}).read()\n"
            "except PermissionError: print('fenced')\n"
            "else: print('open')\n"
        )
        command = [sys.executable, fence.__file__, str(folder), sys.executable, "-c", program]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=FENCE_S, check=False)
        except subprocess.TimeoutExpired:
            return Check("training behind its fence", ok=False, detail=f"no answer in {FENCE_S} s")
    said = ended.stdout.strip()
    wanted = "fenced" if fence.landlock_version() else "open"
    detail = {"fenced": "computes, and cannot read the key", "open": "computes; this kernel has no Landlock"}
    last = (ended.stderr.strip().splitlines() or [""])[-1][:200]
    return Check("training behind its fence", said == wanted, detail.get(said, f"exit {ended.returncode}: {last}"))
