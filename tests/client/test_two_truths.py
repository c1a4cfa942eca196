"""Hospitals that are told different results of one attempt find out when they are asked together again."""

from client.installation.audit_log import audit_links
from client.site import Site
from common.secagg.refusals import Check
from common.secagg.stages import Kind

NOTHING = memoryview(b"")


def test_two_hospitals_told_different_models_refuse_and_write_it_into_their_audit_logs(rounds, study, sites):
    session = rounds.begin(study)
    rounds.run(session, sites)
    told = session.announce(model_digest=bytes([1]) * 32, divisor=1.0)
    north_alone = session.announce(model_digest=bytes([2]) * 32, divisor=1.0)["north"]
    for name, site in sites.items():
        site.answer(Kind.RESULT, (north_alone if name == "north" else told[name]).message, NOTHING)
    second = rounds.begin(study, attempt=2)
    for name, packet in second.start().items():
        answer = sites[name].answer(Kind.ORDER, packet.message, memoryview(packet.payload))
        assert second.receive(answer.message).is_taken
    for name, packet in second.advance().items():
        assert rounds.refused_by(sites[name].answer(Kind.KEYLIST, packet.message, NOTHING)) is Check.R1_RESULTS
    for name, site in sites.items():
        entry = list(audit_links(site.folder))[-1].entry
        assert (entry["what"], entry["plan"]) == ("two truths", study.plan.digest())
        assert entry["told_otherwise"] == ("east" if name == "north" else "north")


def test_what_was_told_survives_a_restart_and_a_hospital_that_missed_it_disturbs_nobody(rounds, study, sites):
    session = rounds.begin(study)
    rounds.run(session, sites)
    told = session.announce(model_digest=bytes([1]) * 32, divisor=1.0)
    for name in ("east", "north", "south"):
        sites[name].answer(Kind.RESULT, told[name].message, NOTHING)
    restarted = {name: Site.open(site.folder.path) for name, site in sites.items()}
    second = rounds.begin(study, attempt=2)
    assert rounds.run(second, restarted).participants == rounds.names
    keys = second._facts.keys
    assert {name: each.last_attempt for name, each in keys.items()} == {"east": 1, "north": 1, "south": 1, "west": 0}
    assert {keys[name].last_result for name in ("east", "north", "south")} == {session.announced_digest}
