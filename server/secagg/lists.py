"""What the server sends when it closes a stage: the accepted answers, put together and sorted by name.

Each function fixes one more digest in the facts and returns the packets by site.
"""

from common.secagg.messages import (
    Certificate,
    Forward,
    Keylist,
    Packet,
    SealedShares,
    Survivor,
    Survivors,
    Witness,
    encode,
)
from common.secagg.statements import dealers_digest, session_id, survivors_digest
from server.secagg.facts import RoundFacts


def open_keylist(facts: RoundFacts) -> dict[str, Packet]:
    """KEYLIST for U1; fixes sid."""
    entries = tuple(keys for _, keys in sorted(facts.keys.items()))
    facts.session_id = session_id(facts.order_digest, entries)
    packet = Packet(encode(Keylist(order_digest=facts.order_digest, entries=entries)))
    return dict.fromkeys(sorted(facts.keys), packet)


def open_forward(facts: RoundFacts) -> dict[str, Packet]:
    """FORWARD for U2, another one for each site; fixes u2h."""
    dealers = tuple(sorted(facts.shares))
    facts.dealers_digest = dealers_digest(facts.session_id, dealers)
    dealt = {u: {each.site_id: each.sealed for each in shares.sealed} for u, shares in facts.shares.items()}

    def forward(receiver: str) -> Packet:
        sealed = tuple(SealedShares(site_id=u, sealed=dealt[u][receiver]) for u in dealers if u != receiver)
        return Packet(encode(Forward(session_id=facts.session_id, dealers=dealers, sealed=sealed)))

    return {receiver: forward(receiver) for receiver in dealers}


def open_survivors(facts: RoundFacts) -> dict[str, Packet]:
    """SURVIVORS for U3; fixes u3h."""
    survivors = tuple(
        Survivor(site_id=v, vector_digest=masked.vector_digest, signature=masked.signature)
        for v, masked in sorted(facts.masked.items())
    )
    facts.survivors_digest = survivors_digest(facts.session_id, facts.dealers_digest, survivors)
    packet = Packet(encode(Survivors(session_id=facts.session_id, survivors=survivors)))
    return dict.fromkeys(sorted(facts.masked), packet)


def open_certificate(facts: RoundFacts) -> dict[str, Packet]:
    """CERTIFICATE for U4, with as many signatures as a site demands: each further one costs every site 0.1 ms."""
    signers = sorted(facts.consistent)
    witnesses = tuple(
        Witness(site_id=v, signature=facts.consistent[v].signature) for v in signers[: facts.order.least_set]
    )
    packet = Packet(encode(Certificate(session_id=facts.session_id, witnesses=witnesses)))
    return dict.fromkeys(signers, packet)
