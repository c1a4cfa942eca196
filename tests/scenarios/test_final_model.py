"""From the coordinator's journal to a hospital's own score: the real export, received by the sites that trained it."""

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from client.__main__ import app
from client.final_model.receiving import open_model
from client.installation.folder import SiteFolder
from common.networks.parameters import flatten
from common.trust.identity import read_signing_key
from server.export.package import export_model
from server.study.folder import open_study
from server.study.progress import open_journal


def call(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


@pytest.mark.slow
def test_every_hospital_receives_and_scores_the_model_that_it_helped_to_train(real_run, tmp_path):
    study = open_study(real_run.folder.study.path)
    journal = open_journal(study)
    key = read_signing_key(real_run.folder.coordinator_key)
    export_model(study, journal, tmp_path / "release", verify=True, key=key)
    journal.close()
    digests, vectors = set(), []
    for name in real_run.scenario.site_names:
        site = SiteFolder(tmp_path / name)
        shutil.copytree(real_run.folder.site(name), site.path)  # other tests read the run as it was
        digests.add(call("model", "receive", tmp_path / "release", "--site-folder", site.path, "--json")["model"])
        network = open_model(site).network
        vectors.append(flatten(network, study.network.everything))
        told = call("model", "score", "--site-folder", site.path, "--json")
        assert (told["patients"] == 0) == (told["classes"] == [])
    assert len(digests) == 1
    assert all(torch.equal(vector, vectors[0]) for vector in vectors)
