"""Why nothing happens at the moment: for whom a study waits, in words for the page."""

from server.study.live_status import LiveStatus


def waiting_words(live: LiveStatus) -> str:
    """Return what is waited for, and each hospital that is missing with its reason and what to do."""
    if live.doing == "waiting":
        words = f"{live.online} of at least {live.needed} hospitals are there"
    else:
        words = f"attempt {live.attempt} was given up; the next one starts soon"
    return "; ".join([words, *(each["sentence"] for each in live.missing)])
