"""What is changed in Flower's SuperNode, where it can be seen without a coordinator."""

import pytest
from flwr.supercore.run import RunNotRunningException

from client.agent.supernode import store_or_forget


def flowers_way(**parts):
    """Fetch as Flower 1.41 does: clean up after an ``Exception``, and after nothing else."""
    try:
        parts["pull_object"](7, "part")
        parts["confirm_message_received"](7, "message")
    except Exception:  # noqa: BLE001 (as Flower does)
        return "forgotten"
    return "stored"


def run_has_ended(*_):
    raise RunNotRunningException


@pytest.mark.parametrize("failing", ["pull_object", "confirm_message_received"])
def test_a_message_whose_run_ends_while_it_is_fetched_is_forgotten(failing):
    parts = {"pull_object": lambda *_: b"", "confirm_message_received": lambda *_: None, failing: run_has_ended}
    with pytest.raises(RunNotRunningException):  # what Flower alone does
        flowers_way(**parts)
    assert store_or_forget(flowers_way, **parts) == "forgotten"


def test_a_message_that_comes_whole_is_stored():
    asked = []
    parts = {"pull_object": lambda *given: asked.append(given), "confirm_message_received": lambda *given: None}
    assert store_or_forget(flowers_way, **parts) == "stored"
    assert asked == [(7, "part")]
