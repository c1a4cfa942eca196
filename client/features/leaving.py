"""Features leave with the scans that they were made of."""

from client.dicom.cache import Cache
from client.features.store import keep_only
from client.installation.folder import SiteFolder
from common.trust.identity import read_secret_file


def forget_features(folder: SiteFolder) -> int:
    """Remove features of scans that the cache has no more (opted out, erased, replaced); return how many files.

    Raises: CacheInvalidError, KeyExposedError, DiskFullError, RightMissingError.
    """
    if not folder.features.is_dir() or not folder.cache.exists():
        return 0
    secret = read_secret_file(folder.secret)
    return keep_only(folder.features, secret, Cache.open(folder.cache, secret).records)
