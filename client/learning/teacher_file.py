"""The teacher on disk: a site that was started again in the middle of a phase goes on with the very teacher it had.

Released models are public, so nothing here is secret. Without the file the first model that reaches the new process
would be the teacher, and the study's result would depend on which sites were restarted.
"""

import json
import logging
from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from safetensors.torch import load, save

from client.learning.training import PhaseTraining
from common.errors import FedwardError
from common.files import parsed_json, read_bounded, replace_atomically
from common.networks.parameters import flatten, layout
from common.networks.parameters import load as put

_OVERHEAD_BYTES: Final = 64 * 1024
_log = logging.getLogger("fedward.site")


def keep_teacher(path: Path, training: PhaseTraining, phase: int) -> None:
    """Write the teacher after a round, where it is not simply the model that the next order brings.

    With decay 1 it never changes, so it is written once; durable, complete or not at all. Raises: FileUnreadableError.
    """
    decay = training.settings.teacher_decay
    if training.teacher is None or decay == 0 or (decay == 1 and kept_facts(path).get("phase") == phase):
        return
    path.parent.mkdir(mode=0o700, exist_ok=True)
    network = training.teacher.network
    weights = {"teacher": flatten(network, layout(network)).cpu()}
    facts = json.dumps({"phase": phase, "round": training.followed_round})
    replace_atomically(path, save(weights, {"fedward": facts}), 0o600)


def recall_teacher(path: Path, training: PhaseTraining, phase: int) -> None:
    """Give a new training of a phase the teacher that an earlier process left; nothing happens where there is none."""
    facts = kept_facts(path)
    if training.teacher is None or facts.get("phase") != phase:
        return
    network = training.teacher.network
    order = layout(network)
    try:
        put(network, order, load(read_bounded(path, 4 * order.num_parameters + _OVERHEAD_BYTES))["teacher"])
    except (FedwardError, SafetensorError, KeyError, RuntimeError):
        _log.warning("the teacher's file is damaged: the model of now takes its place")
        return
    training.followed_round = int(facts["round"])


def kept_facts(path: Path) -> dict[str, int]:
    """Return phase and last round of the file's teacher; empty where there is no file that can be read."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = parsed_json(file.read(min(size, _OVERHEAD_BYTES)))
        facts = parsed_json(header["__metadata__"]["fedward"])
        return {"phase": int(facts["phase"]), "round": int(facts["round"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
