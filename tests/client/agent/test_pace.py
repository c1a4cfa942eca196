"""How often a site looks for work."""

import pytest

from client.agent.pace import Pace

SILENCES = {
    "right after a message": (0.0, 0.05),
    "still within a trip": (0.4, 0.05),
    "a tenth of the silence": (3.0, 0.3),
    "never longer than the settings say": (3600.0, 1.0),
}


@pytest.mark.parametrize("case", SILENCES)
def test_the_pause_is_a_tenth_of_the_silence_between_two_limits(case):
    silence_s, pause_s = SILENCES[case]
    now = [100.0]
    pace = Pace(1.0, clock=lambda: now[0])
    pace.work_came()
    now[0] += silence_s
    assert pace.pause_s() == pytest.approx(pause_s)


def test_before_the_first_message_the_settings_decide():
    assert Pace(1.0).pause_s() == 1.0


def test_settings_shorter_than_the_shortest_pause_win():
    assert Pace(0.01).pause_s() == 0.01
