"""Who is left out of cohorts because sums failed their check: who, since when, until when, why."""

from common.web.markup import Child, Markup
from common.web.shell import paragraph, pill, section, table
from common.web.words import moment
from server.status_page.facts import StudyFacts


def suspicions(study: StudyFacts) -> Markup | None:
    """Return the section; None where nobody was ever suspected."""
    found = study.status["suspicions"]
    if not found:
        return None
    rows: list[list[Child]] = [
        [
            pill("in force", "bad") if each["holds"] else pill("past", "soft"),
            " or ".join(" and ".join(group) for group in each["sites"]),
            f"attempt {each['since_attempt']}, {moment(each['since_unix_s'])}",
            f"attempt {each['until_attempt']}",
            each["why"],
        ]
        for each in found[::-1]
    ]
    return section(
        "Hospitals that sums were sound without",
        table(["", "hospitals", "since", "until", "why"], rows),
        paragraph(
            "A sum that fails its check cannot name who sent garbage. Ask every hospital named here for its version "
            "and its log before you think ill of it: a hospital can lie so that another is suspected.",
            small=True,
        ),
    )
