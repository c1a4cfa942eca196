"""Folders that version 0.1.0 wrote (commit f7a6f2d, before modules moved into rooms) open as they are.

``vectors/folders-0.1.0.tar.xz``: of one simulated study of drawn patients, three rounds in four attempts, the folder of
``hospital-1`` and of the study; and of a deployment that was set up but not run, the federation's and one hospital's.
"""

import stat
import tarfile
from pathlib import Path

import numpy as np
import pytest

from client.consent.approval import approved_plans
from client.consent.open_studies import OpenStudies
from client.dicom.cache import Cache
from client.dicom.caches import cache_for, cache_of
from client.dicom.settings import settings_for
from client.installation.audit_log import audit_links
from client.installation.config import read_site_config
from client.installation.folder import SiteFolder
from client.installation.outbox import Outbox
from client.ledger.ledger import Ledger
from client.secagg.journal import SiteJournal
from common.secagg.stages import Kind
from common.trust.identity import read_secret_file, read_signing_key
from common.trust.kit import read_kit
from server.federation.admission import admitted, current_roster
from server.federation.config import read_coordinator_config
from server.federation.folder import FederationFolder
from server.study.folder import StudyFolder, open_study
from server.study.progress import current_state, open_journal, resume

VECTORS = Path(__file__).resolve().parent / "vectors"


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(VECTORS / "folders-0.1.0.tar.xz") as archive:
        archive.extractall(folder, filter="tar")
    return folder


def test_secrets_of_the_archive_are_as_private_as_they_were(before):
    for name in ("site/site.key", "site/site.secret", "federation/coordinator.key", "joined-site/node.key"):
        assert stat.S_IMODE((before / name).stat().st_mode) == 0o600, name


def test_a_ledger_of_before_has_what_was_spent_and_knows_its_newest_head(before):
    with Ledger.open(before / "site/ledger.sqlite", ceiling=10.0) as ledger:
        spending = {each.study: each for each in ledger.spending()}
        assert len(spending) == 1
        assert ledger.epsilon() == pytest.approx(6.62, abs=0.01)


def test_a_cache_of_before_is_read_and_its_study_stays_frozen(before):
    site = SiteFolder(before / "site")
    plan = next(iter(approved_plans(site)))
    cache = Cache.open(site.cache, read_secret_file(site.secret))
    assert len(cache) == 20
    assert len(cache.frozen(bytes.fromhex(plan).hex())) == 20
    image = cache.read(cache.records[0].record_id)
    assert image.shape == (32, 32)
    assert 0 <= image.min() < image.max() <= 1


def test_a_study_of_before_finds_its_cache_and_another_preparation_lies_beside_it(before):
    site = SiteFolder(before / "site")
    [plan] = (study.plan for study in approved_plans(site).values())
    assert cache_of(site, plan) == site.cache
    other = settings_for(plan.task, plan.image).model_copy(update={"size_px": (48, 48)})
    assert cache_for(site, other).parent == site.caches
    assert not site.caches.exists(), "nothing is made before there is something to keep"


def test_an_approval_of_before_still_stands_with_its_audit_log_and_outbox(before):
    site = SiteFolder(before / "site")
    assert len(OpenStudies(site).current()) == 1
    assert len(list(audit_links(site))) == 1
    left = Outbox(site.outbox).totals()
    assert left.messages[Kind.MASKED] == 4


def test_a_site_remembers_the_attempts_of_before(before):
    site = SiteFolder(before / "site")
    plan = next(iter(OpenStudies(site).current()))
    journal = SiteJournal(site.journal)
    assert journal.last_attempt(plan) == 4
    assert not journal.record_attempt(plan, 1, 4), "an attempt of before may not come again"
    journal.close()


def test_a_study_of_before_goes_on_where_it_was(before):
    study = open_study(before / "study")
    journal = open_journal(study)
    assert [row.attempt for row in journal.applied()] == [1, 2, 3, 4]
    state = current_state(study, journal)
    assert state.finished
    assert np.isfinite(np.asarray(state.parameters)).all()
    assert resume(study, journal).attempt == 4
    journal.close()
    assert StudyFolder(before / "study").order_key.is_file()


def test_a_federation_of_before_has_its_members_and_its_next_study(before):
    folder = FederationFolder(before / "federation")
    assert sorted(admitted(folder)) == ["north", "south", "west"]
    roster = current_roster(folder)
    assert roster is not None
    assert roster.epoch == 1
    assert read_coordinator_config(folder.config).federation == "lungs"
    assert read_signing_key(folder.key)
    assert open_study(folder.studies / "lungs-2026").plan.study.name == "lungs-2026"


def test_a_hospital_that_joined_before_has_its_settings_and_kit(before):
    site = SiteFolder(before / "joined-site")
    site.require()
    assert read_site_config(site.config).network.runtime_port
    assert read_kit(site.kit)
    with Ledger.open(site.ledger, ceiling=10.0) as ledger:
        assert ledger.epsilon() == 0.0
