"""Parsers of what our programs keep on disk, as if somebody had changed it, each with good inputs for the fuzz run.

Digests, MACs and hash chains refuse most changes; a checkpoint is read under the digest of whatever it holds.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save

from client.agent.claim import read_claim
from client.dicom.cache_folder import open_folder, open_or_create
from client.final_model.own_scores import read_own_scores, why_worse
from client.installation.folder import SiteFolder
from client.installation.training_faults import training_faults
from client.learning.teacher_file import kept_facts
from client.ledger.budget import Charge, Stratum
from client.ledger.ledger import Ledger
from client.secagg.journal import SiteJournal
from common.plan.figure_file import FigureFile
from common.privacy.accounting import SampledGaussian
from common.processes.failing import failing
from common.trust.hash_chain import HashChain
from server.deployment.endings import read_ending, write_ending
from server.deployment.federation_status import process_of
from server.federation.folder import FederationFolder
from server.model.checkpoint import checkpoint_name, open_checkpoint, write_checkpoint
from server.model.state import state_from
from server.study.journal import Journal
from server.study.journal_rows import AbortRow, Details, SuspicionKind, SuspicionRow
from server.study.live_status import LiveStatus, read_live_status
from simulation.hostile.fuzz_seeds import IMAGE, Parser, Parsers, of_file

_SECRET: Final = bytes(range(32))
_STUDY: Final = "5" * 64
_PLAN: Final = bytes.fromhex(_STUDY)
_PARAMETERS: Final = 8


def record_parsers(place: Path) -> Parsers:
    """Return the parsers; ``place``: an empty folder for what good inputs are made from."""
    return _small_files(place) | _histories(place) | {"study: checkpoint": (_checkpoint, [_written_checkpoint(place)])}


def _small_files(place: Path) -> Parsers:
    """Return the parsers of JSON that our own programs wrote."""
    write_ending(place, None, "stopped")
    open_or_create(place / "cache", _SECRET, IMAGE)
    figures = place / "figures"
    FigureFile(figures).keep(b"question", 1.5)
    cached = (place / "cache" / "cache.json").read_bytes()
    fault = {"time_s": 1, "plan": _STUDY, "round_number": 1, "fault": "KeyError at training.py:120"}
    score = {"phase": 0, "round_number": 1, "score": 0.8, "standard_error": 0.02, "unix_s": 1.0}
    teacher = save({"teacher": torch.zeros(3)}, {"fedward": '{"phase": 0, "round": 1}'})
    return {
        "supervisor's note": (_failing, [b'{"agent":"ended"}']),
        "number of a process": (_process, [b"4194303\n"]),
        "agent: claim": (of_file(read_claim), [b'{"token": "t", "metadata": null}']),
        "site: training faults": (_faults, [json.dumps([fault]).encode()]),
        "site: own scores": (of_file(_scores), [json.dumps(score).encode() + b"\n"]),
        "site: teacher": (of_file(kept_facts), [teacher]),
        "cache: header": (of_file(lambda file: open_folder(file.parent, _SECRET), "cache.json"), [cached]),
        "figures": (_figures(figures), [(figures / "figures.json").read_bytes()]),
        "study: live status": (_in_folder(read_live_status, "live.json"), [json.dumps(asdict(LiveStatus())).encode()]),
        "study: ending": (_in_folder(read_ending, "ended.json"), [(place / "ended.json").read_bytes()]),
    }


def _histories(place: Path) -> Parsers:
    """Return the parsers of hash chains and databases."""
    chain = HashChain(place / "chain", "audit")
    for what in ("joined", "approved"):
        chain.append({"what": what, "plan": _STUDY, "time": 1})
    chain.close()
    charges = [Charge(Stratum.LABELLED, SampledGaussian(0.2, 20.0, 1))]
    with Ledger.create(place / "ledger", ceiling=8.0) as ledger:
        ledger.spend(ledger.reserve(_STUDY, 1, charges, delta=1e-5))
    with closing(SiteJournal(place / "journal")) as journal:
        journal.record_attempt(_PLAN, 0, 1)
        journal.record_release(_PLAN, bytes(32), 1)
    with closing(Journal(place / "study.sqlite", _PLAN)) as study:
        study.record_attempt(phase=0, round_number=1, cohort=["east", "north"], model_digest=bytes(32))
        study.record_abort(AbortRow(1, 30, "a sum failed its check", ("east",)), Details(summed=("east", "north")))
        study.record_suspicion(SuspicionRow(1, SuspicionKind.MUTUAL, (("east",), ("north",)), 17, "both", 0.0))
    anchor = (place / "ledger.anchor").read_bytes()
    ledger_file = (place / "ledger").read_bytes()
    return {
        "audit log, outbox": (of_file(_links), [(place / "chain").read_bytes()]),
        "ledger": (_ledger_with(anchor=anchor), [ledger_file]),
        "ledger: anchor": (_ledger_with(ledger=ledger_file), [anchor]),
        "site: journal": (_database(_site_journal), [(place / "journal").read_bytes()]),
        "study: journal": (_database(_study_journal), [(place / "study.sqlite").read_bytes()]),
    }


def _in_folder(read: Callable[[Path], object], name: str) -> Parser:
    return of_file(lambda file: read(file.parent), name)


def _failing(content: bytes, place: Path) -> object:
    (place / "supervisor.pid").write_text(str(os.getpid()))
    (place / "failing.json").write_bytes(content)
    return failing(place)


def _process(content: bytes, place: Path) -> object:
    folder = FederationFolder(place)
    folder.state.mkdir(exist_ok=True)
    (folder.state / "gateway.pid").write_bytes(content)
    return process_of(folder, "gateway")


def _faults(content: bytes, place: Path) -> object:
    folder = SiteFolder(place)
    folder.state.mkdir(exist_ok=True)
    (folder.state / "training-faults.json").write_bytes(content)
    return training_faults(folder)


def _scores(file: Path) -> object:
    scores = read_own_scores(file)
    return scores, why_worse(scores)


def _figures(folder: Path) -> Parser:
    def parse(content: bytes, _: Path) -> object:
        (folder / "figures.json").write_bytes(content)
        return FigureFile(folder).known(b"question")

    return parse


def _links(file: Path) -> object:
    with closing(HashChain(file, "audit")) as chain:
        return list(chain.links())


def _ledger_with(*, ledger: bytes = b"", anchor: bytes = b"") -> Parser:
    """Return the parser of a ledger's file beside a good anchor, or of an anchor beside a good ledger."""

    def parse(content: bytes, place: Path) -> object:
        file = place / "ledger"
        file.write_bytes(ledger or content)
        file.with_name("ledger.anchor").write_bytes(anchor or content)
        with Ledger.open(file, ceiling=8.0) as opened:
            return opened.spending(), opened.entries()

    return _without_leftovers(parse, "ledger")


def _database(read: Callable[[Path], object]) -> Parser:
    return _without_leftovers(of_file(read, "database"), "database")


def _without_leftovers(parse: Parser, name: str) -> Parser:
    """Remove what SQLite leaves beside a file that it could not close."""

    def clean(content: bytes, place: Path) -> object:
        for ending in ("-wal", "-shm", "-journal"):
            (place / f"{name}{ending}").unlink(missing_ok=True)
        return parse(content, place)

    return clean


def _site_journal(file: Path) -> object:
    with closing(SiteJournal(file)) as journal:
        plans = journal.plans()
        return [journal.counts(plan) for plan in plans], journal.last_announcement(_PLAN)


def _study_journal(file: Path) -> object:
    with closing(Journal(file, _PLAN, only_reads=True)) as journal:
        looks: list[Any] = [journal.attempts, journal.aborts, journal.opened, journal.applied, journal.medians]
        looks += [journal.answers, journal.refusals, journal.unsound, journal.suspicions, journal.last_heads]
        return [look() for look in looks]


def _written_checkpoint(place: Path) -> bytes:
    write_checkpoint(place, state_from(np.zeros(_PARAMETERS, np.float32)))
    return (place / checkpoint_name(0)).read_bytes()


def _checkpoint(content: bytes, place: Path) -> object:
    """Open a checkpoint whose digest the journal names, whatever it is."""
    (place / checkpoint_name(0)).write_bytes(content)
    state = open_checkpoint(place, 0, hashlib.sha256(content).hexdigest(), num_parameters=_PARAMETERS)
    return np.asarray(state.parameters[0:_PARAMETERS])
