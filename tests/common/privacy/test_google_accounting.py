"""Google's accountant without SciPy's statistics: every figure is the same to the bit, and nobody else notices."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import importlib, json, sys
from common.privacy.accounting import SampledGaussian, epsilon, noise_multiplier_for
from common.privacy.google_accounting import STOOD_IN_FOR, google_accounting
{before}
accounting = google_accounting()
loaded = [name for name in STOOD_IN_FOR if name in sys.modules]
histories = [
    [(0.2, 1.4993, 100)], [(0.01, 0.8, 400)], [(1e-3, 0.3, 3)], [(0.2, 1.5, 60), (0.1, 2.0, 50)],
    [(0.5, 3.0, 30), (1.0, 10.0, 4), (0.05, 1.0, 7)],
]
figures = [
    epsilon([SampledGaussian(*event) for event in events], delta, interval=1e-3).hex()
    for events in histories for delta in (1e-5, 1e-9)
]
figures.append(noise_multiplier_for(epsilon=3.0, delta=1e-5, sampling_rate=0.1, steps=50).hex())
used = [name for name in STOOD_IN_FOR if name in sys.modules]
rest = accounting.get_sigma_gaussian(1.0, 1e-5), accounting.get_epsilon_gaussian(2.0, 1e-5)
laplace = accounting.pld.PLDAccountant(accounting.NeighboringRelation.REPLACE_SPECIAL, 1e-2)
laplace.compose(accounting.LaplaceDpEvent(2.0))
rest += (laplace.get_epsilon(1e-5),)
after = [type(importlib.import_module(name)).__name__ for name in STOOD_IN_FOR]
print(json.dumps({{"loaded": loaded, "used": used, "figures": figures, "rest": rest, "after": after}}))
"""
REAL = "import scipy.stats, scipy.signal, scipy.optimize"
BUSY = """
import sys, threading
from common.privacy.google_accounting import google_accounting
threading.Thread(target=threading.Event().wait, daemon=True).start()
google_accounting()
print("scipy.stats" in sys.modules)
"""
ALL = ["scipy.stats", "scipy.signal", "scipy.optimize"]


def facts(before: str = "") -> dict:
    program = PROGRAM.format(before=before)
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def light() -> dict:
    return facts()


def test_no_figure_differs_by_a_bit_and_none_needs_the_statistics(light):
    plain = facts(REAL)
    assert (light["loaded"], light["used"]) == ([], [])
    assert (plain["loaded"], plain["used"]) == (ALL, ALL)
    assert light["figures"] == plain["figures"]
    assert light["rest"] == plain["rest"], "what the stand-ins do not have comes from the real modules"


def test_nobody_else_ever_gets_a_stand_in(light):
    assert light["after"] == ["module"] * 3


def test_beside_another_thread_nothing_is_replaced():
    done = subprocess.run((sys.executable, "-c", BUSY), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
