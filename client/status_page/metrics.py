"""The site's figures for Prometheus: counts and states; studies by the beginning of their digest, never a patient."""

from collections import Counter

from client.status_page.facts import SiteFacts
from common.control.site_control_pb2 import Connection
from common.web.prometheus import Metric

_DIGEST_CHARACTERS = 12


def site_metrics(facts: SiteFacts) -> list[Metric]:
    """Return the site's metrics; what cannot be read is left out."""
    agent = facts.agent
    found = [
        _gauge("site_agent_up", "1 if the agent answers.", float(agent is not None)),
        _gauge("site_paused", "1 while the site takes part in nothing.", float(facts.paused)),
        _gauge("site_troubles", "Records that cannot be read or trusted.", float(len(facts.troubles))),
        _gauge("site_approved_plans", "Approved plans that still pass every check.", float(len(facts.plans or {}))),
    ]
    if agent is not None:
        connected = float(agent.connection == Connection.CONNECTION_UP)
        found += [
            _gauge("site_connected", "1 while the SuperNode is there.", connected),
            Metric("fedward_site_tasks_total", "Tasks taken since the start.", "counter", [({}, float(agent.tasks))]),
            Metric(
                "fedward_site_tasks_rejected_total", "Of these, rejected.", "counter", [({}, float(agent.rejected))]
            ),
        ]
    return found + _ledger(facts) + _outbox(facts)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return Metric(f"fedward_{name}", meaning, "gauge", [({}, value)])


def _ledger(facts: SiteFacts) -> list[Metric]:
    if facts.ledger is None:
        return []
    strata = [
        ({"study": row.study[:_DIGEST_CHARACTERS], "stratum": row.stratum.value}, row.epsilon)
        for row in facts.ledger.strata
    ]
    return [
        _gauge("ledger_epsilon", "Most that any patient has spent, over all studies.", facts.ledger.epsilon),
        _gauge("ledger_epsilon_ceiling", "The site's ceiling.", facts.ledger.ceiling),
        Metric("fedward_ledger_study_epsilon", "Spent in one study by one stratum.", "gauge", strata),
    ]


def _outbox(facts: SiteFacts) -> list[Metric]:
    if facts.outbox is None:
        return []
    messages: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in facts.outbox.entries:
        messages[entry["kind"]] += 1
        sizes[entry["kind"]] += entry["message_bytes"] + entry["payload_bytes"]
    counted = {"messages": (messages, "Messages that left, by kind."), "bytes": (sizes, "Bytes that left, by kind.")}
    return [
        Metric(f"fedward_outbox_{name}_total", meaning, "counter", [({"kind": k}, float(v)) for k, v in values.items()])
        for name, (values, meaning) in counted.items()
    ]
