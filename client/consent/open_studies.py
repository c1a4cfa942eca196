"""The studies a site may work on now: approved, and still passing every check.

Checking a plan costs a second (signatures, accountant, network). It is done again whenever any file it depends on has
changed, and only then: staff may approve, withdraw or tighten the policy while the site runs.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from client.consent.approval import CheckedPlan, approved_plans
from client.consent.policy import SitePolicyFile, read_policy
from client.consent.session_policy import session_policy
from client.installation.folder import SiteFolder
from client.secagg.rules import SitePolicy
from common.plan.shape import ShapesOf
from common.plan.shapes_here import shapes_here


@dataclass(frozen=True, eq=False)
class OpenStudy:
    """One approved study: the checked plan, the site's policy at that moment, and the rules of its sessions."""

    checked: CheckedPlan
    policy: SitePolicyFile
    rules: SitePolicy


class OpenStudies:
    """The approved studies of a site folder, by plan digest (32 bytes). ``shapes_of``: where networks are looked at."""

    def __init__(self, folder: SiteFolder, shapes_of: ShapesOf = shapes_here) -> None:
        self._folder, self._shapes_of = folder, shapes_of
        self._seen: tuple[object, ...] = ()
        self._studies: dict[bytes, OpenStudy] = {}

    def current(self) -> dict[bytes, OpenStudy]:
        """Return the studies as they stand now; unchanged studies are the same objects as before.

        Raises: PolicyInvalidError, ChainBrokenError and what else keeps a site from working at all.
        """
        seen = tuple(_states(self._folder))
        if seen != self._seen:
            policy = read_policy(self._folder.policy)
            found = approved_plans(self._folder, self._shapes_of)
            self._studies = {
                bytes.fromhex(digest): OpenStudy(checked, policy, session_policy(checked, policy))
                for digest, checked in found.items()
            }
            self._seen = seen
        return self._studies


def _states(folder: SiteFolder) -> Iterator[object]:
    """Yield what changes when a file changes: name, inode, size, times. Asked at each order, so it is kept cheap."""
    for path in (folder.key, folder.roster, folder.policy, folder.audit):
        yield from _state(str(path))
    for parent, folders, files in os.walk(folder.plans):
        folders.sort()
        for name in sorted((*folders, *files)):
            yield from _state(f"{parent}/{name}")


def _state(path: str) -> Iterator[object]:
    with contextlib.suppress(FileNotFoundError):
        state = os.stat(path)  # noqa: PTH116 (pathlib costs more than the call)
        yield (path, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
