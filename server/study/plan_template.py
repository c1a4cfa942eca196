"""The plan that `fedward-server plan new` writes: every choice commented, every number derived from the sites."""

import tomllib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common.networks.layouts import layout_of
from common.networks.shapes import network_parameters
from common.plan.aggregation import Timing
from common.plan.errors import PlanInvalidError
from common.plan.fitting import USUAL_RANGE, derived_range
from common.plan.guarantee import accounted_delta
from common.plan.plan import StudyPlan
from common.plan.reading import parse_plan
from common.plan.reply_slot import default_reply_slot_s
from common.privacy.accounting import noise_multiplier_for
from common.trust.canonical import encode_base64
from common.trust.identity import public_bytes
from common.trust.roster import Roster
from server.drafting.recipes import thresholds

LARGEST_COUNT = 10_000_000
MOST_DIGITS = 8
SAMPLING_RATE = 0.2  # private-training.md section 4.1: at epsilon 8 it keeps nearly all of the full batch's signal
LARGEST_DELTA = 1e-5
PATIENCE = 4  # reply slots that the coordinator waits at least
SPARE_ATTEMPTS = 1.1  # noise is computed for attempts, so that a few aborted rounds do not end the study early

TEMPLATE = """\
# A study plan of Fedward. Everything here changes the model or the guarantee; it is hashed, signed and approved.
# After any change: fedward-server plan check {name}.toml --draft
format = "fedward-plan/1"

[study]
name = "{name}"
title = "{name}"                 # one line for the staff of the sites
roster_digest = "{roster_digest}"
order_key = "{order_key}"  # signs the rounds; an online key, not the coordinator's

[task]
kind = "classification"          # classification, multi_label or segmentation
classes = ["normal", "abnormal"] # the first is the normal (or background) class
modalities = ["CR", "DX"]
dimensions = 2

[image]
size_px = [64, 64]               # height, width
intensity = "percentiles"        # percentiles of the image, ct_window (window_hu), suv_range (range_suv) or luminance
maximum_scans_per_patient = 4

[network]
name = "small_cnn"
width = 16
initialisation = "seeded"        # or the digest of public weights: the largest gain under privacy

[privacy]
noise = "distributed"            # each site adds its share; "local" trusts nobody and costs accuracy
epsilon = {epsilon}
delta = {delta:.3g}

[secure_aggregation]
cohort_size = {n}
assumed_colluders = {c}          # hospitals that may work together with the coordinator
threshold = {t}                  # 2 t > cohort_size + colluders
minimum_survivors = {s_min}
coordinate_range = {coordinate_range}  # of a hospital's sum: room for its noise; a larger one is rounded more coarsely

[timing]
reply_slot_s = {reply_slot_s:.1f}  # answers leave at multiples of it: what the largest sample takes on one thread
training_timeout_s = {training_timeout_s:.1f}

[evaluation]
every_rounds = 10
epsilon = {evaluation_epsilon}                    # budget of the held-out patients over the whole study

{sites}
[[phases]]
name = "supervised"
rounds = {rounds}
maximum_attempts = {attempts}
method = "supervised"
trainable = "all"
layout_hash = "{layout_hash}"
labelled_sampling_rate = {sampling_rate}
clipping_norm = 1.0
noise_multiplier = {noise_multiplier}  # buys the promised epsilon for maximum_attempts rounds
"""

SITE = """\
[[sites]]
name = "{name}"
labelled_patients = {labelled}   # declared and rounded by the site
unlabelled_patients = {unlabelled}
"""


def new_plan_text(
    name: str, roster: Roster, patients: list[str], *, order_key: Ed25519PublicKey, epsilon: float, rounds: int
) -> str:
    """Return the TOML of a supervised plan for the sites of ``roster`` with their declared counts.

    Raises: PlanInvalidError for counts that do not parse or do not cover the roster; AccountingError when no noise
    buys ``epsilon``.
    """
    counts = declared_counts(patients, roster)
    n = len(counts)
    rules = thresholds(n)
    total = sum(labelled + unlabelled for labelled, unlabelled in counts.values())
    delta = delta_for(total)
    attempts = int(rounds * SPARE_ATTEMPTS) + 1
    network = network_parameters("small_cnn", dimensions=2, classes=2, width=16)
    facts: dict[str, Any] = {
        "name": name,
        "roster_digest": roster.digest(),
        "order_key": encode_base64(public_bytes(order_key)),
        "epsilon": epsilon,
        "evaluation_epsilon": min(1.0, epsilon),
        "delta": delta,
        "n": n,
        "c": rules["assumed_colluders"],
        "t": rules["threshold"],
        "s_min": rules["minimum_survivors"],
        "rounds": rounds,
        "attempts": attempts,
        "layout_hash": layout_of(network).digest,
        "sampling_rate": SAMPLING_RATE,
        "sites": "\n".join(SITE.format(name=site, labelled=a, unlabelled=b) for site, (a, b) in counts.items()),
    }
    waiting = Timing().training_timeout_s
    times = {"reply_slot_s": 0.0, "training_timeout_s": waiting}

    def drafted(noise_multiplier: float) -> StudyPlan:
        facts["noise_multiplier"] = noise_multiplier
        return parse_plan(tomllib.loads(TEMPLATE.format(**facts, **times, coordinate_range=USUAL_RANGE)), name)

    draft = drafted(noise_multiplier_for(epsilon=epsilon, delta=delta, sampling_rate=SAMPLING_RATE, steps=attempts))
    # Drawn noise is bounded, which costs a part of delta: more of it, the less noise there is.
    left = accounted_delta(draft) or delta
    if left < delta:
        draft = drafted(noise_multiplier_for(epsilon=epsilon, delta=left, sampling_rate=SAMPLING_RATE, steps=attempts))
    slot_s = default_reply_slot_s(draft)
    times = {"reply_slot_s": slot_s, "training_timeout_s": max(waiting, PATIENCE * slot_s)}
    return TEMPLATE.format(**facts, **times, coordinate_range=derived_range(draft))


def delta_for(patients: int) -> float:
    """Return a delta well below one over the number of patients: below that, one of them might be given away."""
    return float(f"{min(LARGEST_DELTA, patients**-1.1):.3g}")


def _is_count(text: str) -> bool:
    """Tell whether a text is a number that a site may declare; one of any length is looked at by its length first."""
    return text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS and int(text) <= LARGEST_COUNT


def declared_counts(patients: list[str], roster: Roster) -> dict[str, tuple[int, int]]:
    """Return labelled and unlabelled patients by site, of SITE=LABELLED,UNLABELLED. Raises: PlanInvalidError."""
    counts = {}
    for entry in patients:
        site, _, numbers = entry.partition("=")
        parts = numbers.split(",")
        if len(parts) != 2 or not all(map(_is_count, parts)):
            raise PlanInvalidError(f"--patients {entry[:60]}: write SITE=LABELLED,UNLABELLED with whole numbers")
        if site in counts:
            raise PlanInvalidError(f"--patients: {site[:60]} is named twice; give each site of the roster once")
        counts[site] = (int(parts[0]), int(parts[1]))
    if set(counts) != set(roster.sites):
        odd = ", ".join(sorted(set(counts) ^ set(roster.sites))[:5])
        raise PlanInvalidError(f"--patients and the roster differ in: {odd}; give each site of the roster once")
    if sum(map(sum, counts.values())) == 0:
        raise PlanInvalidError("--patients: every site declares 0 patients; enter the declared counts")
    return {site: counts[site] for site in sorted(counts)}
