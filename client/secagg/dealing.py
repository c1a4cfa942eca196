"""What a site makes of the key list: a shared secret with each peer, and shares of its own secrets for everybody."""

from collections.abc import Iterable

from client.secagg.context import SiteContext
from client.secagg.state import KeyedState, OwnSecrets
from common.secagg.keys import agree, open_secret
from common.secagg.messages import Keys
from common.secagg.sealed_shares import SharePair
from common.secagg.shamir import share_to_bytes, split_secret


def agree_with_all(
    site: SiteContext, secrets: OwnSecrets, entries: Iterable[Keys]
) -> dict[str, tuple[bytes | None, bytes | None]]:
    """Return X25519(c_u, c_v) and X25519(s_u, s_v) for each peer v, in the order of the list."""
    sealing, masking = open_secret(secrets.sealing_secret), open_secret(secrets.mask_secret)
    return {
        keys.site_id: (agree(sealing, keys.sealing_key), agree(masking, keys.mask_key))
        for keys in entries
        if keys.site_id != site.policy.site_id
    }


def deal(site: SiteContext, keyed: KeyedState, members: list[str]) -> dict[str, SharePair]:
    """Return for each member of U1, oneself included, its shares of b_u and s_sk."""
    order, secrets = keyed.order, keyed.secrets
    indices = [order.share_index(v) for v in members]
    seeds, keys = (
        split_secret(bytes(secret), threshold=order.threshold, indices=indices, entropy=site.entropy)
        for secret in (secrets.seed, secrets.mask_secret)
    )
    dealt = zip(members, seeds, keys, strict=True)
    return {v: SharePair(share_to_bytes(seed), share_to_bytes(key)) for v, seed, key in dealt}
