"""Who opted out is on the site's own list too, which outlives the cache; the audit log keeps how long the list is."""

import time

from client.dicom.cache_folder import CacheFolder
from client.dicom.kept_opt_outs import KeptOptOuts
from client.dicom.opt_outs import OptOuts
from client.dicom.pseudonyms import secret_check
from client.dicom.withdrawals import load_withdrawn, opt_out
from client.installation.audit_log import audit
from client.installation.folder import SiteFolder
from common.trust.identity import read_secret_file


def entries(opt_outs: OptOuts) -> int:
    """Return how long a list is: identities and identifiers."""
    return len(opt_outs.patients) + len(opt_outs.identifiers)


def covers(opt_outs: OptOuts, others: OptOuts) -> bool:
    """Say whether everything on the list ``others`` is on the first."""
    return opt_outs | others == opt_outs


def keep_opt_outs(folder: SiteFolder, cache: CacheFolder) -> None:
    """Bring the site's list up to what the cache knows, and the cache up to the site's; erase who is new to it.

    Raises: CacheInvalidError, ChainBrokenError.
    """
    secret = read_secret_file(folder.secret)
    kept = KeptOptOuts(folder.opted_out, secret)
    known, in_cache = kept.load(), load_withdrawn(cache.path, cache.vault)
    if not covers(known, in_cache):
        kept.keep(known | in_cache)
        line = {"what": "opted out", "opted_out": entries(known | in_cache), "secret": secret_check(secret)}
        audit(folder, {**line, "time": int(time.time())})
    if not covers(in_cache, known):
        opt_out(cache, known)
