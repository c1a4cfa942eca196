"""Decisions about persons are about the hospital's archive, so they hold in every cache of the site alike.

A patient whom one cache knew under two identifiers and another under one would opt out of the first alone.
"""

from pathlib import Path

from client.dicom.cache_folder import HEADER, locked, open_folder
from client.dicom.caches import opened_caches
from client.dicom.opt_outs import OptOuts
from client.dicom.person_decisions import load_rules, save_rules
from client.dicom.person_rules import PersonRules
from client.dicom.withdrawals import opt_out
from client.installation.folder import SiteFolder
from common.errors import FedwardError


def rules_for(folder: SiteFolder | None, cache: Path, secret: bytes) -> PersonRules:
    """Return what was decided before: of the cache, or, where it is new, of another cache of the site.

    Raises: CacheInvalidError.
    """
    if (cache / HEADER).is_file():
        own = open_folder(cache, secret)
        return load_rules(own.path, own.vault)
    others = opened_caches(folder, secret) if folder is not None else ()
    return next((load_rules(each.path, each.vault) for each in others), PersonRules())


def share_rules(folder: SiteFolder, rules: PersonRules, secret: bytes, *, but: Path) -> dict[Path, FedwardError]:
    """Keep the rules in every cache but one, and erase whom they show to have opted out.

    What was read before is read again by them at that cache's next ingest. Returns caches that could not be told.
    """
    failed: dict[Path, FedwardError] = {}
    for cache in opened_caches(folder, secret):
        try:
            if cache.path == but or load_rules(cache.path, cache.vault) == rules:
                continue
            with locked(cache.path):
                save_rules(rules, cache.path, cache.vault)
            opt_out(cache, OptOuts())
        except FedwardError as error:
            failed[cache.path] = error
    return failed
