"""The table of checks: the id of each, the fixed code that travels, and what it stops (``refusals`` runs them)."""

from dataclasses import dataclass
from enum import StrEnum


class Check(StrEnum):
    """The id of each check. ``TABLE`` holds its code and what it stops."""

    WIRE_SIZE = "wire.size"
    WIRE_CANONICAL = "wire.canonical"
    WIRE_VERSION = "wire.version"
    WIRE_FIELDS = "wire.fields"
    ANY_KIND = "any.kind"
    ANY_STAGE = "any.stage"
    ANY_SESSION = "any.session"
    ANY_DEADLINE = "any.deadline"
    ANY_PAYLOAD = "any.payload"
    ANY_BUSY = "any.busy"
    ANY_INTERNAL = "any.internal"
    R0_SIGNATURE = "R0.signature"
    R0_FEDERATION = "R0.federation"
    R0_ROSTER = "R0.roster"
    R0_EPOCH = "R0.epoch"
    R0_PLAN = "R0.plan"
    R0_PHASE = "R0.phase"
    R0_ROUND = "R0.round"
    R0_LAYOUT = "R0.layout"
    R0_TASK = "R0.task"
    R0_PRIVACY = "R0.privacy"
    R0_DEADLINE = "R0.deadline"
    R0_COHORT_SORTED = "R0.cohort_sorted"
    R0_COHORT_SELF = "R0.cohort_self"
    R0_COHORT_ROSTER = "R0.cohort_roster"
    R0_COHORT_MINIMUM = "R0.cohort_minimum"
    R0_COHORT_MAXIMUM = "R0.cohort_maximum"
    R0_CONFIRMED = "R0.confirmed"
    R0_BOTH_KINDS = "R0.both_kinds"
    R0_REACHABLE = "R0.reachable"
    R0_SURVIVORS = "R0.survivors"
    R0_COLLUDERS = "R0.colluders"
    R0_HONEST = "R0.honest"
    R0_WORD = "R0.word"
    R0_GUARD = "R0.guard"
    R0_RANGE = "R0.range"
    R0_OVERFLOW = "R0.overflow"
    R0_LENGTH = "R0.length"
    R0_ATTEMPT = "R0.attempt"
    R0_ATTEMPT_MAXIMUM = "R0.attempt_maximum"
    R0_RELEASED = "R0.released"
    R0_TWO_SUMS = "R0.two_sums"
    R0_RESULT = "R0.result"
    R0_MODEL_SIZE = "R0.model_size"
    R0_MODEL_DIGEST = "R0.model_digest"
    R0_CONTRIBUTION = "R0.contribution"
    R0_FRESH = "R0.fresh"
    R1_SORTED = "R1.sorted"
    R1_COHORT = "R1.cohort"
    R1_SIZE = "R1.size"
    R1_CONFIRMED = "R1.confirmed"
    R1_OWN = "R1.own"
    R1_ORDER = "R1.order"
    R1_SIGNATURES = "R1.signatures"
    R1_DISTINCT = "R1.distinct"
    R1_LOW_ORDER = "R1.low_order"
    R1_RESULTS = "R1.results"
    R2_SORTED = "R2.sorted"
    R2_SELF = "R2.self"
    R2_SUBSET = "R2.subset"
    R2_SIZE = "R2.size"
    R2_CONFIRMED = "R2.confirmed"
    R2_CIPHERTEXTS = "R2.ciphertexts"
    R2_OPENS = "R2.opens"
    R2_SHARE_RANGE = "R2.share_range"
    R2_ENCODING = "R2.encoding"
    R2_SPEND = "R2.spend"
    R3_SORTED = "R3.sorted"
    R3_SELF = "R3.self"
    R3_SUBSET = "R3.subset"
    R3_SIZE = "R3.size"
    R3_CONFIRMED = "R3.confirmed"
    R3_SIGNATURES = "R3.signatures"
    R4_SORTED = "R4.sorted"
    R4_MEMBERS = "R4.members"
    R4_SIZE = "R4.size"
    R4_SIGNATURES = "R4.signatures"
    R5_SIGNATURE = "R5.signature"
    R5_SURVIVORS = "R5.survivors"
    C_SITE = "C.site"
    C_ONCE = "C.once"
    C_STAGE = "C.stage"
    C_SIGNATURE = "C.signature"
    C_DISTINCT = "C.distinct"
    C_LOW_ORDER = "C.low_order"
    C_RECEIVERS = "C.receivers"
    C_PAYLOAD = "C.payload"
    C_DIGEST = "C.digest"
    C_UNMASK_SETS = "C.unmask_sets"
    C_SHARE_RANGE = "C.share_range"
    C_TOO_FEW = "C.too_few"
    C_SEED = "C.seed"
    C_MASK_KEY = "C.mask_key"
    C_SUM = "C.sum"
    C_NORM = "C.norm"
    C_RESULT = "C.result"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: the number that travels, what the check stops, whether a test may switch it off.

    ``is_switchable`` is False for what is no check on another party (a fault of one's own, a busy session) and for the
    reading of fields, without which there is no message.
    """

    code: int
    stops: str
    is_switchable: bool = True


TABLE: dict[Check, Row] = {
    Check.WIRE_SIZE: Row(1, "a message longer than its limit, before anything is parsed"),
    Check.WIRE_CANONICAL: Row(2, "bytes that are not the one encoding of their content (two texts, one meaning)"),
    Check.WIRE_VERSION: Row(3, "a message of another protocol or version (downgrade)"),
    Check.WIRE_FIELDS: Row(
        4, "missing, unknown or mistyped fields, wrong lengths, numbers out of bounds", is_switchable=False
    ),
    Check.ANY_KIND: Row(10, "a kind of message this side never takes (plaintext queries, other actions)"),
    Check.ANY_STAGE: Row(11, "a message out of turn, a second answer, anything after a refusal"),
    Check.ANY_SESSION: Row(12, "a message of another session (replay, parallel sessions)"),
    Check.ANY_DEADLINE: Row(13, "a message after the deadline of the session"),
    Check.ANY_PAYLOAD: Row(14, "a buffer beside a message that has none"),
    Check.ANY_BUSY: Row(15, "a second message while one is being worked on; the first goes on", is_switchable=False),
    Check.ANY_INTERNAL: Row(16, "nothing: a fault of this side, its text stays here", is_switchable=False),
    Check.R0_SIGNATURE: Row(100, "an order not signed by the key that the approved plan delegates"),
    Check.R0_FEDERATION: Row(101, "an order of another federation"),
    Check.R0_ROSTER: Row(102, "an order under another roster (swapped identities)"),
    Check.R0_EPOCH: Row(103, "an order under an expired roster"),
    Check.R0_PLAN: Row(104, "an order for a plan that this site did not approve"),
    Check.R0_PHASE: Row(106, "an order for a phase that the plan does not have"),
    Check.R0_ROUND: Row(107, "a round beyond those planned for the phase"),
    Check.R0_LAYOUT: Row(108, "another layout of the trainable parameters than approved"),
    Check.R0_TASK: Row(109, "another training task than approved (label-leaking loss, trap settings)"),
    Check.R0_PRIVACY: Row(110, "other privacy settings than approved"),
    Check.R0_DEADLINE: Row(111, "a deadline in the past or a session longer than the site allows"),
    Check.R0_COHORT_SORTED: Row(112, "a cohort with repeated or unsorted names"),
    Check.R0_COHORT_SELF: Row(113, "a cohort that leaves this site out"),
    Check.R0_COHORT_ROSTER: Row(114, "a cohort with strangers (invented sites)"),
    Check.R0_COHORT_MINIMUM: Row(115, "a cohort smaller than the site demands"),
    Check.R0_COHORT_MAXIMUM: Row(
        116, "a vector made for fewer sites than the cohort, or for more than planned (coarser lattice)"
    ),
    Check.R0_CONFIRMED: Row(136, "a cohort with too few hospitals that this site's staff confirmed (invented sites)"),
    Check.R0_BOTH_KINDS: Row(
        117, "a threshold so low that both secrets of one site could be rebuilt (2t <= n + c, unconfirmed sites in c)"
    ),
    Check.R0_REACHABLE: Row(118, "a threshold or survivor minimum above the cohort"),
    Check.R0_SURVIVORS: Row(119, "a sum over fewer sites than max(3, c + 2) or than the site demands"),
    Check.R0_COLLUDERS: Row(120, "fewer assumed colluders than the site demands"),
    Check.R0_HONEST: Row(121, "fewer guaranteed honest survivors than the noise of the plan is made for"),
    Check.R0_WORD: Row(122, "a word size that the phase does not allow"),
    Check.R0_GUARD: Row(123, "fewer guard bits than planned, or more where that would cut the distributed noise"),
    Check.R0_RANGE: Row(124, "another coordinate range than planned"),
    Check.R0_OVERFLOW: Row(125, "a vector whose sum could overflow its words"),
    Check.R0_LENGTH: Row(126, "another number of coordinates or meta words than planned"),
    Check.R0_ATTEMPT: Row(127, "a repeated or lower attempt (replayed order, restored snapshot)"),
    Check.R0_ATTEMPT_MAXIMUM: Row(128, "more attempts than the plan's noise is computed for"),
    Check.R0_RELEASED: Row(129, "a second sum over one model without noise (differencing)"),
    Check.R0_TWO_SUMS: Row(135, "without noise, two cohorts of a roster that could both open a sum (2t <= roster + c)"),
    Check.R0_RESULT: Row(130, "a model that is not the announced result of the round before"),
    Check.R0_MODEL_SIZE: Row(131, "a model of another size than announced, before it is hashed"),
    Check.R0_MODEL_DIGEST: Row(132, "a model made for this site alone (model inconsistency)"),
    Check.R0_CONTRIBUTION: Row(133, "nothing: the site's own work failed", is_switchable=False),
    Check.R0_FRESH: Row(134, "the same noise in two attempts (two survivor sets would expose it)"),
    Check.R1_SORTED: Row(200, "a key list with repeated or unsorted names"),
    Check.R1_COHORT: Row(201, "a key list with sites outside the cohort"),
    Check.R1_SIZE: Row(202, "a key list too short to unmask safely"),
    Check.R1_CONFIRMED: Row(208, "a key list with too few confirmed hospitals"),
    Check.R1_OWN: Row(203, "a key list that omits or alters this site's own keys"),
    Check.R1_ORDER: Row(204, "keys made for another order"),
    Check.R1_SIGNATURES: Row(205, "substituted keys: an entry not signed by its site's pinned identity"),
    Check.R1_DISTINCT: Row(206, "one key used twice (mirrored keys cancel masks)"),
    Check.R1_LOW_ORDER: Row(207, "a key of low order, which makes the shared secret known"),
    Check.R1_RESULTS: Row(209, "two truths: a hospital that was told another result of an earlier attempt (names it)"),
    Check.R2_SORTED: Row(300, "a list of dealers with repeated or unsorted names"),
    Check.R2_SELF: Row(301, "a list of dealers that leaves this site out"),
    Check.R2_SUBSET: Row(302, "dealers that had sent no keys"),
    Check.R2_SIZE: Row(303, "fewer dealers than needed to unmask safely"),
    Check.R2_CONFIRMED: Row(309, "too few confirmed hospitals among the dealers"),
    Check.R2_CIPHERTEXTS: Row(304, "missing, surplus or misplaced sealed shares"),
    Check.R2_OPENS: Row(
        305, "sealed shares that do not open: altered, misdirected or of another session (names the dealer)"
    ),
    Check.R2_SHARE_RANGE: Row(306, "a share outside the field (names the dealer)"),
    Check.R2_ENCODING: Row(307, "nothing: the site's own vector cannot be encoded", is_switchable=False),
    Check.R2_SPEND: Row(308, "nothing: the site's own ledger refuses", is_switchable=False),
    Check.R3_SORTED: Row(400, "a list of survivors with repeated or unsorted names"),
    Check.R3_SELF: Row(401, "a list of survivors that leaves this site out"),
    Check.R3_SUBSET: Row(402, "survivors that had dealt no shares"),
    Check.R3_SIZE: Row(403, "a sum over too few sites"),
    Check.R3_CONFIRMED: Row(405, "a sum with too few confirmed hospitals"),
    Check.R3_SIGNATURES: Row(404, "a survivor that sent no vector, or other bytes (forged or foreign signature)"),
    Check.R4_SORTED: Row(500, "a certificate that counts one site twice"),
    Check.R4_MEMBERS: Row(501, "a certificate with signatures of sites that did not survive"),
    Check.R4_SIZE: Row(502, "unmasking without enough sites that saw the same survivors"),
    Check.R4_SIGNATURES: Row(503, "forged consistency, or a different list of survivors for each site"),
    Check.R5_SIGNATURE: Row(600, "a result not signed by the key that signed the order"),
    Check.R5_SURVIVORS: Row(601, "a result for another set of survivors"),
    Check.C_SITE: Row(700, "an answer of a site that is not expected at this stage"),
    Check.C_ONCE: Row(701, "a second answer of one site in one stage"),
    Check.C_STAGE: Row(702, "a late or early answer"),
    Check.C_SIGNATURE: Row(703, "an answer not signed by the site it names"),
    Check.C_DISTINCT: Row(704, "a public key that is in use already"),
    Check.C_LOW_ORDER: Row(714, "a public key of low order, which every other site would refuse"),
    Check.C_RECEIVERS: Row(705, "sealed shares that are not for exactly the other sites"),
    Check.C_PAYLOAD: Row(706, "a vector of the wrong size"),
    Check.C_DIGEST: Row(707, "a vector that is not the one signed for"),
    Check.C_UNMASK_SETS: Row(708, "shares for other sites or of another kind than the survivors call for"),
    Check.C_SHARE_RANGE: Row(709, "a share outside the field"),
    Check.C_TOO_FEW: Row(710, "going on with fewer sites than the order demands"),
    Check.C_SEED: Row(711, "a rebuilt self-mask seed that is not the committed one (wrong shares)"),
    Check.C_MASK_KEY: Row(712, "a rebuilt mask key that is not the one of the signed public key (wrong shares)"),
    Check.C_SUM: Row(713, "a sum that fails its checksum, its participant counter or its range"),
    Check.C_NORM: Row(715, "a sum that is longer than honest hospitals can make it (poisoning)"),
    Check.C_RESULT: Row(716, "keys that claim another result of an earlier attempt than was announced"),
}

CHECK_OF_CODE = {row.code: check for check, row in TABLE.items()}
