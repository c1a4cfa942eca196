"""``fedward-sim`` with injected randomness and a signal at a named moment; a program, run by test_interruptions.py.

    python interrupted_run.py MOMENT SIGNAL run small.toml --out FOLDER --resume

MOMENT: NAME:NUMBER, the number-th time that NAME happens (``MOMENTS``), or ``never``. SIGNAL: KILL or INT.

Everything random that moves the model is a function of site, phase and round, so that two runs can be compared to the
last bit. A site refuses to send one vector twice; therefore each attempt adds something that cancels out between two
sites. Keys and masks stay as random as ever: they leave every sum.
"""

import functools
import hashlib
import os
import signal
import sys
from pathlib import Path

import numpy as np

import client.learning.release
import client.learning.training
import common.files
import simulation.study.running
import simulation.study.site_building
from client.learning.noise import PrivacyRandomness
from client.learning.round_randomness import RoundRandomness
from client.private_gradients.settings import EngineName, SpeedSettings
from client.round_work import StudyWork
from server.study.journal import Journal
from simulation.__main__ import main

# name -> what is called when it happens: (owner, attribute)
MOMENTS = {
    "ingest": (simulation.study.site_building, "_ingest"),
    "contribute": (StudyWork, "contribute"),
    "spend": (StudyWork, "spend"),
    "record_attempt": (Journal, "record_attempt"),
    "record_opened": (Journal, "record_opened"),
    "record_applied": (Journal, "record_applied"),
    "record_answers": (Journal, "record_answers"),
    "record_abort": (Journal, "record_abort"),
}
now = {}  # site, phase, round and attempt of the contribution that is being made


def seed(*parts):
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


class SteadyNoise(PrivacyRandomness):
    """The same noise for the same site, phase and round; what the attempt adds cancels out between odd and even."""

    def lattice_noise(self, count, *, noise_stddev, step):
        steady = np.random.default_rng(seed("noise", now["site"], now["phase"], now["round"], count))
        passing = np.random.default_rng(seed("attempt", now["attempt"], count))
        sign = -1 if int(now["site"][-1]) % 2 else 1
        drawn = np.rint(steady.normal(size=count) * noise_stddev / step).astype(np.int64)
        return drawn + sign * passing.integers(-1000, 1001, count)


def steady_sampling():
    return RoundRandomness(
        hashlib.sha256(repr(("sampling", now["site"], now["phase"], now["round"])).encode()).digest()
    )


def inject():
    whole = StudyWork.contribute

    def contribute(self, order, model, until_unix_s):
        now.update(site=self._training._site.name, phase=order.phase, round=order.round_number, attempt=order.attempt)
        return whole(self, order, model, until_unix_s)

    StudyWork.contribute = contribute
    client.learning.release.PrivacyRandomness = SteadyNoise
    client.learning.training.RoundRandomness = steady_sampling
    # the engine is otherwise chosen by timing it, and another one rounds otherwise
    one_engine = SpeedSettings(engine=EngineName.LOOP)
    simulation.study.running.Speed = functools.partial(simulation.study.running.Speed, gradients=one_engine)


def strike(moment, how):
    """Send this process the signal when it comes to the moment: before what happens, or before a file is replaced."""
    name, _, number = moment.rpartition(":")
    seen = [0]

    def count():
        seen[0] += 1
        if seen[0] == int(number):
            os.kill(os.getpid(), how)

    if name.startswith("file "):
        sync = os.fsync

        def fsync(descriptor):
            if name.removeprefix("file ") in Path(f"/proc/self/fd/{descriptor}").readlink().name:
                count()  # the new file lies beside the old one, and is not yet in its place
            sync(descriptor)

        common.files.os.fsync = fsync
        return
    owner, attribute = MOMENTS[name]
    happen = getattr(owner, attribute)

    def struck(*arguments, **named):
        count()
        return happen(*arguments, **named)

    setattr(owner, attribute, struck)


if __name__ == "__main__":
    moment, how, *arguments = sys.argv[1:]
    inject()
    if moment != "never":
        strike(moment, signal.Signals["SIG" + how])
    sys.argv = ["fedward-sim", *arguments]
    main()
