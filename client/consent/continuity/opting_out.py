"""Who opted out is on the site's own list, which outlives every cache, and on the list of each cache.

The site's list comes first and is durable; then each cache is told, and tells what its own records show of the same
people (an identifier that only it knows), until no list grows any more. The audit log keeps how long the list is.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from client.consent.continuity.traces import audit_traces
from client.dicom.cache_folder import CacheFolder, open_folder
from client.dicom.caches import caches
from client.dicom.errors import CacheInvalidError
from client.dicom.facts import Facts
from client.dicom.kept_opt_outs import KeptOptOuts
from client.dicom.opt_outs import OptOuts
from client.dicom.pseudonyms import secret_check
from client.dicom.withdrawals import Withdrawal, load_withdrawn, opt_out
from client.installation.audit_log import audit
from client.installation.folder import SiteFolder
from common.errors import FedwardError
from common.trust.identity import read_secret_file

IsMeant = Callable[[Facts], bool]


@dataclass
class Spread:
    """A list of opt-outs on its way to all caches.

    ``erased``: what it reached there. ``failed``: caches that it did not reach, and why: to be done again.
    """

    opt_outs: OptOuts
    erased: Withdrawal = field(default_factory=Withdrawal)
    failed: dict[Path, FedwardError] = field(default_factory=dict)

    def require(self, cache: Path) -> None:
        """Raise what kept the list from this cache."""
        if cache in self.failed:
            raise self.failed[cache]

    @contextmanager
    def noting(self, cache: Path) -> Iterator[None]:
        """Note what goes wrong with one cache, so that it stops no other."""
        try:
            yield
        except FedwardError as error:
            self.failed[cache] = error
        except OSError as error:
            self.failed[cache] = CacheInvalidError(f"{cache}: cannot be used ({error.strerror})")


def entries(opt_outs: OptOuts) -> int:
    """Return how long a list is: identities and identifiers."""
    return len(opt_outs.patients) + len(opt_outs.identifiers)


def covers(opt_outs: OptOuts, others: OptOuts) -> bool:
    """Say whether everything on the list ``others`` is on the first."""
    return opt_outs | others == opt_outs


def keep_opt_outs(
    folder: SiteFolder, *more: CacheFolder, request: OptOuts | None = None, is_meant: IsMeant | None = None
) -> Spread:
    """Bring the lists of the site and of all its caches up to each other; erase whoever is new to a cache.

    ``more``: caches beside those of the site. ``request``, ``is_meant``: who opts out now (``withdrawals.opt_out``). A
    cache that cannot be opened, or that is written to now, is left as it is and named in the result.
    Raises: CacheInvalidError for the site's list; ChainBrokenError.
    """
    secret = read_secret_file(folder.secret)
    kept = KeptOptOuts(folder.opted_out, secret)
    before = kept.load()
    spread = Spread(before | (request or OptOuts()))
    opened = []
    for path in dict.fromkeys([*caches(folder), *(cache.path for cache in more)]):
        with spread.noting(path):
            cache = open_folder(path, secret)
            spread.opt_outs |= load_withdrawn(cache.path, cache.vault)
            opened.append(cache)
    if spread.opt_outs != before:
        kept.keep(spread.opt_outs)
    noted = spread.opt_outs
    _tell(opened, spread, is_meant=is_meant, is_asked=request is not None)
    if spread.opt_outs != noted:
        kept.keep(spread.opt_outs)
    if entries(spread.opt_outs) > (audit_traces(folder).opted_out or 0):
        line = {"what": "opted out", "opted_out": entries(spread.opt_outs), "secret": secret_check(secret)}
        audit(folder, {**line, "time": int(time.time())})
    return spread


def _tell(opened: Iterable[CacheFolder], spread: Spread, *, is_meant: IsMeant | None, is_asked: bool) -> None:
    """Tell each cache the list, and the list what each cache shows, until nothing is new to any of them.

    ``is_asked``: each cache looks at its records at least once.
    """
    before = None
    while before != spread.opt_outs:
        before = spread.opt_outs
        for cache in opened:
            with spread.noting(cache.path):
                if is_asked or not covers(load_withdrawn(cache.path, cache.vault), spread.opt_outs):
                    spread.erased |= opt_out(cache, spread.opt_outs, is_meant or _nobody)
                    spread.opt_outs |= load_withdrawn(cache.path, cache.vault)
        is_asked = False


def _nobody(_facts: Facts) -> bool:
    return False
