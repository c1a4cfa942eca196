"""The work of a study that is trained in this process, beside keys and ledger: simulations and tests."""

from dataclasses import replace
from pathlib import Path

from client.consent.open_studies import OpenStudy
from client.installation.folder import SiteFolder
from client.learning.speed import Speed
from client.private_gradients.verdict import KNOWN_HERE
from client.private_gradients.verdict_folder import VerdictFolder
from client.round_work import StudyWork
from client.trainer.device_memory import free_on
from client.trainer.memory_limit import limit_of
from client.trainer.study_training import StudyTraining


def local_work(folder: SiteFolder, study: OpenStudy, speed: Speed, engines: Path | None = None) -> StudyWork:
    """Return it. ``engines``: as ``client.site.Site.open``.

    Raises: as ``StudyTraining.open`` and ``StudyWork.open``.
    """
    checked = study.checked
    verdicts = VerdictFolder(engines or folder.engines, KNOWN_HERE)
    limit = limit_of(folder, checked.plan, device=speed.device, free=free_on(speed.device))
    speed = replace(speed, limit=min(limit, speed.limit))
    training = StudyTraining.open(folder, checked.plan, site_id=checked.site_id, speed=speed, verdicts=verdicts)
    return StudyWork.open(folder, study, training)
