"""Lists that a malicious server puts together: a site refuses each by its own check, and not without it."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.secagg.keys import sign
from common.secagg.messages import (
    Certificate,
    Keylist,
    Packet,
    Result,
    SealedShares,
    Survivor,
    Survivors,
    Witness,
    decode,
    encode,
)
from common.secagg.refusals import TABLE, Check, CheckSet
from common.secagg.sealed_shares import SharePair, seal
from common.secagg.stages import SITE_RECEIVES, SITE_SENDS, Kind, SiteStage
from common.secagg.statements import consistency_statement, keys_statement, masked_statement, result_statement
from simulation.runtime.secagg_federation import Federation, new_federation

VICTIM = "site-001"
OTHERS = ("site-002", "site-003", "site-004", "site-005")
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for journals in memory where there is one: each journal is fsynced several times a round."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


def refusal_of(federation: Federation, packet: Packet) -> tuple[Check | None, str]:
    """Give the victim a packet; return the check that refused it (None if it was answered) and who was blamed."""
    answer = federation.sites[VICTIM].receive(packet.message, packet.payload)
    kind, message = decode(answer.message, SITE_SENDS)
    return (message.check, message.about) if kind is Kind.REFUSAL else (None, "")


ZEROS = bytes(32)


def forged_keys(federation: Federation, keys: Any, **changes: Any) -> Any:
    """KEYS as a colluding site would sign them."""
    changed = replace(keys, **changes)
    return replace(changed, signature=sign(federation.identities[keys.site_id], *keys_statement(changed)))


def _entry(index: int, change: Callable[[Federation, Any], Any]) -> Callable[[Federation, Keylist], Keylist]:
    def forge(federation: Federation, keylist: Keylist) -> Keylist:
        entries = list(keylist.entries)
        entries[index] = change(federation, entries[index])
        return replace(keylist, entries=tuple(entries))

    return forge


def _mirror_keys(federation: Federation, keylist: Keylist) -> Keylist:
    first, second, third, *rest = keylist.entries
    mirrored = forged_keys(federation, third, mask_key=second.mask_key)
    return replace(keylist, entries=(first, second, mirrored, *rest))


def _masked_by(federation: Federation, name: str, digest: bytes, *, sid: bytes, u2h: bytes) -> Survivor:
    signature = sign(federation.identities[name], *masked_statement(sid, u2h, name, digest))
    return Survivor(site_id=name, vector_digest=digest, signature=signature)


def _share_out_of_field(federation: Federation, forward: Any) -> Any:
    state = federation.sites[VICTIM]._state
    pair = SharePair(b"\xff" * 66, bytes(66))
    sealed = seal(
        state.peers["site-002"].opening_key, pair, session_id=state.session_id, dealer="site-002", receiver=VICTIM
    )
    return replace(forward, sealed=(SealedShares(site_id="site-002", sealed=sealed), *forward.sealed[1:]))


def _with(field: str, change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Callable[[Federation, Any], Any]:
    return lambda federation, message: replace(message, **{field: change(getattr(message, field))})


def _dealers(*names: str) -> Callable[[Federation, Any], Any]:
    return lambda federation, forward: replace(
        forward, dealers=names, sealed=tuple(each for each in forward.sealed if each.site_id in names)
    )


def _foreign_survivor(federation: Federation, survivors: Survivors) -> Survivors:
    last = survivors.survivors[-1]
    return replace(survivors, survivors=(*survivors.survivors[:-1], replace(last, vector_digest=ZEROS)))


def _survivor_of_old_session(federation: Federation, survivors: Survivors) -> Survivors:
    last = survivors.survivors[-1]
    old = _masked_by(federation, last.site_id, last.vector_digest, sid=ZEROS, u2h=ZEROS)
    return replace(survivors, survivors=(*survivors.survivors[:-1], old))


def _late_joiner(federation: Federation, survivors: Survivors) -> Survivors:
    joined = _masked_by(federation, "site-006", ZEROS, sid=survivors.session_id, u2h=ZEROS)
    return replace(survivors, survivors=(*survivors.survivors, joined))


def _other_list(federation: Federation, certificate: Certificate) -> Certificate:
    """The others saw another list of survivors: their signatures are genuine, on another digest."""
    other = [
        Witness(
            site_id=each.site_id,
            signature=sign(
                federation.identities[each.site_id], *consistency_statement(certificate.session_id, ZEROS, each.site_id)
            ),
        )
        for each in certificate.witnesses
        if each.site_id != VICTIM
    ]
    return replace(certificate, witnesses=(certificate.witnesses[0], *other))


def _signed_by_coordinator(federation: Federation, certificate: Certificate) -> Certificate:
    forged = Witness(site_id="site-002", signature=federation.order_key.sign(b"u3"))
    return replace(certificate, witnesses=(certificate.witnesses[0], forged, *certificate.witnesses[2:]))


def _witness_outside(federation: Federation, certificate: Certificate) -> Certificate:
    u3h = federation.sites[VICTIM]._state.survivors_digest
    statement = consistency_statement(certificate.session_id, u3h, "site-006")
    outsider = Witness(site_id="site-006", signature=sign(federation.identities["site-006"], *statement))
    return replace(certificate, witnesses=(*certificate.witnesses, outsider))


def _other_session(federation: Federation, message: Any) -> Any:
    return replace(message, session_id=ZEROS)


def _told_otherwise(federation: Federation, keylist: Keylist) -> Keylist:
    """A peer was told another result of attempt 3 than this site, and says so with its own signature."""
    federation.journals[VICTIM].record_announcement(federation.order.plan_digest, 3, bytes([1]) * 32)
    first, second, *rest = keylist.entries
    other = forged_keys(federation, second, last_attempt=3, last_result=bytes([2]) * 32)
    return replace(keylist, entries=(first, other, *rest))


def _nobody_confirmed(federation: Federation, message: Any) -> Any:
    """This site's staff confirmed nobody (any more): the list is as it should be."""
    session = federation.sites[VICTIM]
    policy = replace(session._site.policy, confirmed=frozenset({VICTIM}), minimum_confirmed=3)
    session._site = replace(session._site, policy=policy)
    return message


LISTS: dict[str, tuple[Kind, Check, Callable[[Federation, Any], Any]]] = {
    "keys for another order than this": (Kind.KEYLIST, Check.ANY_SESSION, lambda f, m: replace(m, order_digest=ZEROS)),
    "an unsorted key list": (Kind.KEYLIST, Check.R1_SORTED, _with("entries", lambda e: (*e[1:], e[0]))),
    "a site twice in the key list": (Kind.KEYLIST, Check.R1_SORTED, _with("entries", lambda e: (e[0], *e))),
    "keys of a site outside the cohort": (
        Kind.KEYLIST,
        Check.R1_COHORT,
        lambda f, m: replace(m, entries=(*m.entries, forged_keys(f, replace(m.entries[0], site_id="site-006")))),
    ),
    "keys of three sites where four are needed": (Kind.KEYLIST, Check.R1_SIZE, _with("entries", lambda e: e[:3])),
    "a key list without this site": (Kind.KEYLIST, Check.R1_OWN, _with("entries", lambda e: e[1:])),
    "this site's own keys replaced": (
        Kind.KEYLIST,
        Check.R1_OWN,
        _entry(0, lambda f, keys: replace(keys, mask_key=bytes([9]) * 32)),
    ),
    "a peer's keys of another order, genuinely signed": (
        Kind.KEYLIST,
        Check.R1_ORDER,
        _entry(1, lambda f, keys: forged_keys(f, keys, order_digest=ZEROS)),
    ),
    "keys of too few confirmed hospitals": (Kind.KEYLIST, Check.R1_CONFIRMED, _nobody_confirmed),
    "too few confirmed hospitals among the dealers": (Kind.FORWARD, Check.R2_CONFIRMED, _nobody_confirmed),
    "too few confirmed hospitals among the survivors": (Kind.SURVIVORS, Check.R3_CONFIRMED, _nobody_confirmed),
    "a peer that was told another result": (Kind.KEYLIST, Check.R1_RESULTS, _told_otherwise),
    "a peer's mask key replaced, signature kept": (
        Kind.KEYLIST,
        Check.R1_SIGNATURES,
        _entry(1, lambda f, keys: replace(keys, mask_key=bytes([9]) * 32)),
    ),
    "a peer's keys signed by the coordinator": (
        Kind.KEYLIST,
        Check.R1_SIGNATURES,
        _entry(2, lambda f, keys: replace(keys, signature=sign(f.order_key, *keys_statement(keys)))),
    ),
    "two sites with one mask key": (Kind.KEYLIST, Check.R1_DISTINCT, _mirror_keys),
    "a peer's mask key of low order": (
        Kind.KEYLIST,
        Check.R1_LOW_ORDER,
        _entry(3, lambda f, keys: forged_keys(f, keys, mask_key=ZEROS)),
    ),
    "shares of another session": (Kind.FORWARD, Check.ANY_SESSION, _other_session),
    "an unsorted list of dealers": (Kind.FORWARD, Check.R2_SORTED, _with("dealers", lambda d: (*d[1:], d[0]))),
    "dealers without this site": (Kind.FORWARD, Check.R2_SELF, _dealers(*OTHERS)),
    "a dealer that sent no keys": (Kind.FORWARD, Check.R2_SUBSET, _with("dealers", lambda d: (*d, "site-006"))),
    "three dealers where four are needed": (Kind.FORWARD, Check.R2_SIZE, _dealers(VICTIM, *OTHERS[:2])),
    "one sealed share too few": (Kind.FORWARD, Check.R2_CIPHERTEXTS, _with("sealed", lambda s: s[1:])),
    "one sealed share twice": (Kind.FORWARD, Check.R2_CIPHERTEXTS, _with("sealed", lambda s: (s[0], *s))),
    "sealed shares swapped between dealers": (
        Kind.FORWARD,
        Check.R2_OPENS,
        _with("sealed", lambda s: (replace(s[0], sealed=s[1].sealed), replace(s[1], sealed=s[0].sealed), *s[2:])),
    ),
    "a share outside the field": (Kind.FORWARD, Check.R2_SHARE_RANGE, _share_out_of_field),
    "survivors of another session": (Kind.SURVIVORS, Check.ANY_SESSION, _other_session),
    "one survivor twice": (Kind.SURVIVORS, Check.R3_SORTED, _with("survivors", lambda s: (s[0], *s))),
    "survivors without this site": (Kind.SURVIVORS, Check.R3_SELF, _with("survivors", lambda s: s[1:])),
    "a survivor that dealt nothing": (Kind.SURVIVORS, Check.R3_SUBSET, _late_joiner),
    "three survivors where four are needed": (Kind.SURVIVORS, Check.R3_SIZE, _with("survivors", lambda s: s[:3])),
    "a survivor with another vector than it signed": (Kind.SURVIVORS, Check.R3_SIGNATURES, _foreign_survivor),
    "a survivor's signature from an older session": (Kind.SURVIVORS, Check.R3_SIGNATURES, _survivor_of_old_session),
    "a certificate of another session": (Kind.CERTIFICATE, Check.ANY_SESSION, _other_session),
    "one witness twice": (Kind.CERTIFICATE, Check.R4_SORTED, _with("witnesses", lambda w: (w[0], *w))),
    "a witness that did not survive": (Kind.CERTIFICATE, Check.R4_MEMBERS, _witness_outside),
    "three witnesses where four are needed": (Kind.CERTIFICATE, Check.R4_SIZE, _with("witnesses", lambda w: w[:3])),
    "no witness at all": (Kind.CERTIFICATE, Check.R4_SIZE, _with("witnesses", lambda w: ())),
    "witnesses that saw other survivors": (Kind.CERTIFICATE, Check.R4_SIGNATURES, _other_list),
    "a witness made by the coordinator": (Kind.CERTIFICATE, Check.R4_SIGNATURES, _signed_by_coordinator),
}
BLAMES = {
    Check.R1_ORDER,
    Check.R1_SIGNATURES,
    Check.R1_LOW_ORDER,
    Check.R1_RESULTS,
    Check.R2_OPENS,
    Check.R2_SHARE_RANGE,
}


def _give_list(federation: Federation, kind: Kind, forge: Callable[[Federation, Any], Any], checks: CheckSet) -> Any:
    # Six sites are in the roster, five in the cohort: the sixth is a colluding member without a part in the round.
    federation.new_session(VICTIM, checks=checks)
    cohort = federation.names[:5]
    _, packets = federation.run_until(kind, federation.new_order(cohort=cohort, threshold=4))
    message = decode(packets[VICTIM].message, SITE_RECEIVES)[1]
    return refusal_of(federation, Packet(encode(forge(federation, message))))


@pytest.mark.parametrize("sentence", LISTS)
def test_a_site_refuses(sentence: str, folder: Path) -> None:
    kind, check, forge = LISTS[sentence]
    federation = new_federation(6, folder)
    refused_by, blamed = _give_list(federation, kind, forge, CheckSet())
    assert refused_by is check
    assert bool(blamed) == (check in BLAMES or check in {Check.R3_SIGNATURES, Check.R4_SIGNATURES})
    assert federation.sites[VICTIM].stage is SiteStage.DEAD
    voided = kind in {Kind.KEYLIST, Kind.FORWARD}
    assert (federation.work[VICTIM].events[-1] == "void 1") == voided


@pytest.mark.parametrize("sentence", LISTS)
def test_without_that_check_the_message_meets_another_fate(sentence: str, folder: Path) -> None:
    kind, check, forge = LISTS[sentence]
    federation = new_federation(6, folder)
    assert _give_list(federation, kind, forge, CheckSet(without={check}))[0] is not check


RESULTS: dict[str, tuple[Check, Callable[[Federation, Result], Result]]] = {
    "changed after signing": (Check.R5_SIGNATURE, lambda f, r: replace(r, divisor=2.0)),
    "for other survivors": (
        Check.R5_SURVIVORS,
        lambda f, r: _signed_result(f, replace(r, survivors_digest=ZEROS)),
    ),
    "of another session": (Check.ANY_SESSION, lambda f, r: _signed_result(f, replace(r, session_id=ZEROS))),
}


def _signed_result(federation: Federation, result: Result) -> Result:
    return replace(result, signature=sign(federation.order_key, *result_statement(result)))


@pytest.mark.parametrize("sentence", RESULTS)
def test_a_site_refuses_a_result(sentence: str, folder: Path) -> None:
    check, forge = RESULTS[sentence]
    for checks, expected in ((CheckSet(), check), (CheckSet(without={check}), None)):
        federation = new_federation(4, folder)
        federation.attempts = 0 if expected else 1
        federation.new_session(VICTIM, checks=checks)
        server, packets = federation.run_until(Kind.CERTIFICATE, federation.new_order())
        federation.deliver(server, packets)
        server.finish()
        packet = server.announce(model_digest=ZEROS, divisor=4.0)[VICTIM]
        result = decode(packet.message, SITE_RECEIVES)[1]
        assert refusal_of(federation, Packet(encode(forge(federation, result))))[0] is expected


def test_every_check_of_these_stages_has_a_case_here() -> None:
    here = {check for _, check, _ in LISTS.values()} | {check for check, _ in RESULTS.values()}
    assert {
        check for check in TABLE if check[:2] in {"R1", "R2", "R3", "R4", "R5"} and TABLE[check].is_switchable
    } <= here
