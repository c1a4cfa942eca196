"""The work of a study that is trained in this process, beside keys and ledger: simulations and tests."""

from client.consent.open_studies import OpenStudy
from client.installation.folder import SiteFolder
from client.learning.speed import Speed
from client.round_work import StudyWork
from client.trainer.study_training import StudyTraining


def local_work(folder: SiteFolder, study: OpenStudy, speed: Speed) -> StudyWork:
    """Return it. Raises: as ``StudyTraining.open`` and ``StudyWork.open``."""
    checked = study.checked
    training = StudyTraining.open(folder, checked.plan, site_id=checked.site_id, speed=speed)
    return StudyWork.open(folder, study, training)
