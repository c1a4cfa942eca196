"""The site's own list of who opted out: outside of the cache, so that it outlives it.

    opted_out.sealed    what the cache's list says (``opt_outs``), sealed with the site secret

A cache that was made again is told it before the next ingest. How long the list is stands in the audit log, so that a
list that is lost is noticed (``client.consent.continuity``).
"""

from pathlib import Path

from client.dicom.errors import CacheInvalidError
from client.dicom.opt_outs import OptOuts
from client.dicom.vault import CACHE_ID_BYTES, Vault
from client.processes.packing import packed, unpacked
from common.files import replace_atomically


class KeptOptOuts:
    """The list in one file."""

    def __init__(self, path: Path, secret: bytes) -> None:
        self._path, self._vault = path, Vault(secret, bytes(CACHE_ID_BYTES), b"")

    def load(self) -> OptOuts:
        """Return who is on it. Raises: CacheInvalidError when it is damaged or of another secret."""
        if not self._path.exists():
            return OptOuts()
        try:
            content = unpacked(self._vault.open("opted out", "", self._path.read_bytes()))
        except CacheInvalidError:
            raise CacheInvalidError(
                f"{self._path}: damaged, or sealed with another site.secret; restore both from the same backup"
            ) from None
        return OptOuts(
            frozenset(content["patients"]), frozenset((key, issuer) for key, issuer in content["identifiers"])
        )

    def keep(self, opt_outs: OptOuts) -> None:
        """Put the list on disk, durably."""
        content = {"patients": sorted(opt_outs.patients), "identifiers": sorted(map(list, opt_outs.identifiers))}
        replace_atomically(self._path, self._vault.seal("opted out", "", packed(content)), 0o600)
