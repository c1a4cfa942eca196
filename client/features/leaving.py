"""Features leave with the scans that they were made of."""

from client.dicom.cache import Cache
from client.dicom.caches import caches
from client.dicom.record import RecordInfo
from client.features.store import keep_only
from client.installation.folder import SiteFolder
from common.errors import FedwardError
from common.trust.identity import read_secret_file


def forget_features(folder: SiteFolder, *, of_unknown_scans: bool = False) -> int:
    """Remove features of scans that no cache has any more (opted out, erased, replaced); return how many files.

    While a cache cannot be opened nobody knows whose the features of its scans are. They stay, and are computed from
    again once it is back; with ``of_unknown_scans`` they go, as they must when a patient opts out.
    Raises: KeyExposedError, DiskFullError, RightMissingError.
    """
    paths = caches(folder)
    if not folder.features.is_dir() or not paths:
        return 0
    secret, are_all_known = read_secret_file(folder.secret), True
    known: list[RecordInfo] = []
    for path in paths:
        try:
            known += Cache.open(path, secret).records
        except (FedwardError, OSError):
            are_all_known = False
    return keep_only(folder.features, secret, known, only_known_folders=not (are_all_known or of_unknown_scans))
