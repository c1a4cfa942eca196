"""The coordinator's figures for Prometheus: studies and sites by name, counts and states, nothing of a patient."""

from collections.abc import Iterator, Sequence

from common.web.prometheus import Metric
from server.status_page.facts import StudyFacts


def coordinator_metrics(studies: Sequence[StudyFacts]) -> list[Metric]:
    """Return the metrics of all studies that could be read."""
    return [*_study_metrics(studies), *_site_metrics(studies)]


def _study_metrics(studies: Sequence[StudyFacts]) -> Iterator[Metric]:
    def metric(name: str, meaning: str, values: dict[str, float]) -> Metric:
        samples = [({"study": study}, value) for study, value in values.items()]
        return Metric(f"fedward_{name}", meaning, "counter" if name.endswith("_total") else "gauge", samples)

    def of(key: str) -> dict[str, float]:
        return {study.plan.study.name: float(study.status[key]) for study in studies}

    yield metric(
        "study_running",
        "1 while a server holds the study.",
        {study.plan.study.name: float(bool(study.running)) for study in studies},
    )
    yield metric(
        "study_wanted",
        "1 while the coordinator wants the study to run.",
        {study.plan.study.name: float(study.wanted) for study in studies},
    )
    yield metric("study_rounds_applied_total", "Rounds whose sum moved the model.", of("rounds_applied"))
    yield metric("study_rounds_planned", "Rounds of the plan, the closing one included.", of("rounds_planned"))
    yield metric("study_attempts_total", "Attempts that were numbered.", of("attempts"))
    yield metric("study_attempts_allowed", "Attempts that the plan's privacy was computed for.", of("attempts_allowed"))
    yield metric(
        "study_attempts_aborted_total",
        "Attempts that were given up.",
        {study.plan.study.name: float(sum(study.status["aborted"].values())) for study in studies},
    )
    yield metric("study_score", "Noised score of the last scored model.", _last_scores(studies))
    yield metric(
        "study_last_attempt_timestamp_seconds",
        "When the last attempt began.",
        {s.plan.study.name: s.status["last_unix_s"] for s in studies if s.status["last_unix_s"]},
    )


def _last_scores(studies: Sequence[StudyFacts]) -> dict[str, float]:
    found = {}
    for study in studies:
        known = [score["score"] for score in study.status["scores"].values() if score["score"] is not None]
        if known:
            found[study.plan.study.name] = known[-1]
    return found


def _site_metrics(studies: Sequence[StudyFacts]) -> Iterator[Metric]:
    counted = {
        "in_sum": "Sums that the site was in.",
        "dropped_out": "Attempts in which the site dropped out.",
        "timeouts": "Questions that the site did not answer in time.",
        "bytes_from_site": "Bytes received from the site.",
    }
    for key, meaning in counted.items():
        name = "received_bytes" if key == "bytes_from_site" else key
        samples = [
            ({"study": study.plan.study.name, "site": site}, float(values[key]))
            for study in studies
            for site, values in study.status["sites"].items()
        ]
        yield Metric(f"fedward_site_{name}_total", meaning, "counter", samples)
    online = [
        ({"study": study.plan.study.name, "site": site.name}, float(site.name in study.sites_online()))
        for study in studies
        for site in study.plan.sites
    ]
    yield Metric("fedward_site_online", "1 if the site answered the last question.", "gauge", online)
