"""The result of a study as files others can use: weights (safetensors, ONNX), and a signed card of what they are.

The card holds nothing that was not released: plan, guarantee, noised scores, who took part.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save

from common.encoders.card import MAX_ENCODER_BYTES
from common.encoders.checking import open_encoder
from common.encoders.shelf import EncoderShelf
from common.encoders.showing import card_rows, encoder_facts
from common.files import parsed_json, replace_atomically
from common.plan.guarantee import guarantee
from common.plan.plan import StudyPlan
from common.terminal import fedward_version
from common.trust.canonical import canonical_bytes
from common.trust.provenance import code_digest
from common.trust.release import CARD, NETWORK, READABLE, SIGNATURE, WEIGHTS, sign_card
from server.errors import StudyFolderInvalidError
from server.export.onnx import onnx_file
from server.export.whole import EncoderFile
from server.model.blocks import Vector, Weights, whole
from server.model.checkpoint import same_state
from server.model.phase_facts import StudyNetwork, named_parameters
from server.model.state import StateOf, result_so_far
from server.study.folder import Study
from server.study.journal import Journal
from server.study.progress import replay, stored_state
from server.study.status import study_status

LIMITS = (
    "Not a medical device. Scores are sums over the hospitals' held-out patients with noise for their privacy; "
    "they say nothing about other hospitals, scanners or patients."
)


def export_model(
    study: Study,
    journal: Journal,
    target: Path,
    *,
    verify: bool,
    key: Ed25519PrivateKey | None = None,
    encoders: EncoderShelf | None = None,
) -> dict[str, Any]:
    """Write weights and model card to ``target`` and return the card.

    ``verify``: compute the model again from the public start and the stored sums, and refuse to export another one.
    ``key``: the coordinator's; None leaves the card unsigned, and a signature that lay there is removed.
    ``encoders``: where the public encoder lies that the plan names, which goes into the ONNX file.
    Raises: StudyFolderInvalidError, FileUnreadableError, EncoderInvalidError.
    """
    encoder = _encoder(study.plan, encoders)
    state = stored_state(study, journal)
    if verify and not same_state(replay(study, journal), state):
        raise StudyFolderInvalidError(
            f"{study.folder.path}: the sums in the journal lead to another model than the checkpoint; do not use it"
        )
    metadata = {"format": "pt", "plan": study.plan.digest(), "study": study.plan.study.name}
    parameters = whole(result_so_far(study.plan, state))
    weights = weights_file(study.network, parameters, metadata)
    card = _card(study, journal, state, weights, verified=verify)
    if encoder is not None:
        card["encoder"] = encoder_facts(encoder.card)
    files = {
        WEIGHTS: weights,
        NETWORK: onnx_file(study.plan, study.network, parameters, metadata, encoder=encoder),
        READABLE: _readable(card, encoder).encode(),
    }
    card["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    _write(target, files, json.dumps(card, indent=1).encode() + b"\n", key)
    return card


def _encoder(plan: StudyPlan, encoders: EncoderShelf | None) -> EncoderFile | None:
    """Return the public encoder that a plan names, checked again; None for a plan without one."""
    named = plan.network.encoder
    if named is None:
        return None
    if encoders is None:
        raise StudyFolderInvalidError(
            "the plan is on a public encoder, which goes into the exported file; give --folder"
        )
    card = encoders.named(card=named.card, file=named.file)
    encoders.verify(card, limit_bytes=MAX_ENCODER_BYTES)
    with open_encoder(encoders.file(card.file), card) as file:
        return EncoderFile(card, file.read(card.bytes))


def _write(target: Path, files: Mapping[str, bytes], card: bytes, key: Ed25519PrivateKey | None) -> None:
    """Write a release; its signature comes last, so a release under the old one is never mistaken for whole."""
    target.mkdir(parents=True, exist_ok=True)
    (target / SIGNATURE).unlink(missing_ok=True)
    for name, content in files.items():
        replace_atomically(target / name, content)
    replace_atomically(target / CARD, card)
    if key is not None:
        replace_atomically(target / SIGNATURE, sign_card(card, key))


def weights_file(network: StudyNetwork, parameters: Vector, metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file of all weights by parameter name: the same bytes for the same model.

    The library writes several entries of metadata in an order of its own each time; here they are sorted.
    """
    content = save(
        {name: value.copy() for name, value in named_parameters(network, parameters).items()}, dict(metadata)
    )
    size = int.from_bytes(content[:8], "little")
    header = parsed_json(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(metadata.items()))
    ordered = json.dumps({name: header[name] for name in sorted(header)}, separators=(",", ":")).encode()
    return content[:8] + ordered.ljust(size) + content[8 + size :]


def _card(study: Study, journal: Journal, state: StateOf[Weights], weights: bytes, *, verified: bool) -> dict[str, Any]:
    plan, facts = study.plan, study_status(study, journal)
    bought = guarantee(plan)
    return {
        "study": plan.study.name,
        "title": plan.study.title,
        "plan_digest": plan.digest(),
        "roster_digest": study.roster.digest(),
        "digests": _digests(study),
        "finished": state.finished,
        "rounds_applied": facts["rounds_applied"],
        "rounds_planned": facts["rounds_planned"],
        "verified_by_replay": verified,
        "weights": {
            "file": WEIGHTS,
            "sha256": hashlib.sha256(weights).hexdigest(),
            "parameters": int(state.parameters.size),
            "selection": plan.aggregation.model_selection,
        },
        "task": plan.task.model_dump(mode="json"),
        "image": plan.image.model_dump(mode="json"),
        "network": plan.network.model_dump(mode="json"),
        "privacy": {
            **plan.privacy.model_dump(mode="json"),
            "bought": None if bought is None else {**asdict(bought), "epsilon": bought.epsilon},
            "attempts": facts["attempts"],
            "attempts_accounted_for": facts["attempts_allowed"],
        },
        "secure_aggregation": plan.secure_aggregation.model_dump(mode="json"),
        "scores": facts["scores"],
        "sites": {name: site["in_sum"] for name, site in facts["sites"].items()},
        "limits": LIMITS,
        "software": {"fedward": fedward_version(), "common_sha256": code_digest()},
    }


def _digests(study: Study) -> dict[str, Any]:
    """Return what else the model is bound to, each SHA-256: for each phase the task and the privacy in its orders.

    ``data``: over what the hospitals declared and how images are prepared; nothing about a single patient enters it.
    """
    plan, phases = study.plan, study.network.phases
    declared = {
        "sites": [site.model_dump(mode="json") for site in plan.sites],
        "task": plan.task.model_dump(mode="json"),
        "image": plan.image.model_dump(mode="json"),
    }
    return {
        "data": hashlib.sha256(canonical_bytes(declared)).hexdigest(),
        "task": {facts.phase.name: facts.task_digest.hex() for facts in phases},
        "privacy": {facts.phase.name: facts.privacy_digest.hex() for facts in phases},
    }


def _readable(card: dict[str, Any], encoder: EncoderFile | None) -> str:
    privacy, weights = card["privacy"], card["weights"]
    promise = "none promised" if privacy["epsilon"] is None else f"ε = {privacy['epsilon']:g}, δ = {privacy['delta']:g}"
    bought = privacy["bought"]
    lines = [
        f"# {card['title']}",
        "",
        f"Study `{card['study']}`, plan `{card['plan_digest']}`.",
        f"{card['rounds_applied']} of {card['rounds_planned']} rounds applied; "
        + ("the study is finished." if card["finished"] else "**the study is not finished.**"),
        "",
        "## Weights",
        f"`{weights['file']}`, {weights['parameters']:,} parameters, SHA-256 `{weights['sha256']}`. "
        f"Chosen by: {weights['selection']}. "
        + ("Computed again from the stored sums." if card["verified_by_replay"] else "Not computed again."),
        "",
        f"Network `{card['network']['name']}`{_size(card['network'])}; classes: "
        + ", ".join(card["task"]["classes"])
        + ".",
        "",
        *_encoder_lines(encoder),
        "## Privacy of the patients",
        f"Each patient: {promise} (noise: {privacy['noise']}, relation: {privacy['neighbouring_relation']}).",
    ]
    if bought:
        lines.append(
            f"Bought by the plan's noise: labelled {bought['labelled']:.3f}, unlabelled {bought['unlabelled']:.3f}, "
            f"validation {bought['validation']:.3f}, for {privacy['attempts_accounted_for']} attempts; "
            f"{privacy['attempts']} were made."
        )
    lines += ["", "## Scores on held-out patients (noised)", *_score_lines(card["scores"])]
    lines += ["", "## Hospitals (sums they were in)"]
    lines += [f"- {name}: {rounds}" for name, rounds in card["sites"].items()]
    return "\n".join([*lines, "", "## Limits", card["limits"], ""])


def _size(network: dict[str, Any]) -> str:
    """Return what says how large a network is: a head has no width."""
    return (
        f", width {network['width']}"
        if network.get("encoder") is None
        else f", a head on {network['encoder']['features']} features"
    )


def _encoder_lines(encoder: EncoderFile | None) -> list[str]:
    """Return what the public encoder is, by its own card; nothing for a model without one."""
    rows = [] if encoder is None else card_rows(encoder_facts(encoder.card))
    return ["## Public encoder, frozen", *(f"- {name}: {text}" for name, text in rows), ""] if rows else []


def _score_lines(scores: dict[str, Any]) -> list[str]:
    lines = []
    for version, score in scores.items():
        shown = "no score" if score["score"] is None else f"{score['score']:.3f}"
        low, high = (0.0 if bound is None else bound for bound in score["interval"])
        lines.append(f"- after {version} rounds: {shown} (95 % interval {low:.3f} to {high:.3f})")
    return lines or ["none"]
