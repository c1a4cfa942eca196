"""The kill switch: while the file ``paused`` exists, a site takes part in nothing."""

import time

from client.installation.audit_log import audit
from client.installation.folder import SiteFolder
from common.files import replace_atomically


def pause(folder: SiteFolder, *, person: str) -> bool:
    """Pause the site and write down who did; tell whether it was running before.

    From its next message on the agent refuses everything; a round under way loses this site. The mark is set before
    the log is written: a log that cannot be written must not keep a hospital from stopping.
    """
    if folder.paused.exists():
        return False
    replace_atomically(folder.paused, f"{person}\n".encode(), 0o600)
    audit(folder, {"what": "paused", "person": person, "time": int(time.time())})
    return True


def resume(folder: SiteFolder, *, person: str) -> bool:
    """Write down who lets the site take part again, then do so; tell whether it was paused before."""
    if not folder.paused.exists():
        return False
    audit(folder, {"what": "resumed", "person": person, "time": int(time.time())})
    folder.paused.unlink(missing_ok=True)
    return True
