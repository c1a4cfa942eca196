"""A small test to plant faults beside; run by ``test_plant`` only."""

from common.privacy.intervals import wilson_bounds


def test_an_interval_of_nothing_right_begins_at_nothing():
    assert wilson_bounds(0.0, 10)[0] == 0.0
