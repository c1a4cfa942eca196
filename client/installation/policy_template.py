"""The commented ``policy.toml`` of a new site: every rule written out with its strict value."""

from typing import Final

POLICY_TEMPLATE: Final = """\
# What this hospital allows, whatever a study plan asks. Decide on it with your data protection officer.
#
# It fails closed: a rule that is left out has the strict value below, an unknown key or a bad value stops everything,
# and without this file nothing runs. A rule made stricter also binds studies that were approved before. No plan, no
# coordinator and no run setting can change a rule.

format = "fedward-policy/1"

# What any patient may ever spend here, over all studies together (epsilon). The ledger enforces it: the step that
# would pass it is not taken. Lower protects more.
epsilon_ceiling = 8.0

# Rule 1: may a plan promise its patients no privacy (noise = none)? Only for research on public images.
allow_without_privacy = false

# Rule 2: what one study may cost a patient (epsilon), as this site computes it itself.
maximum_epsilon = 8.0

# Rule 3: the chance (delta) that the promise of one study fails. It should be well below 1 / number of patients.
maximum_delta = 1e-4

# Rule 4: so many hospitals, at least, take part in each round.
minimum_cohort = 3

# Rule 5: so many hospitals' updates, at least, are in every sum that the coordinator can see.
minimum_survivors = 3

# Rule 6: so many hospitals might work together with a curious coordinator; noise and thresholds must allow for them.
assumed_colluders = 1

# Hospitals that your staff called and confirmed (`fedward-site confirm`) are counted, this one included: so many of
# them, at least, in every stage of a round. Left out: all that the least sum needs. A smaller number lets hospitals in
# whom nobody here knows to be real; `approve` says what that costs. It must be assumed_colluders + 2 at least (rule 8).
# minimum_confirmed = 3

# Rule 7: so many attempts at rounds, at most, in one study.
maximum_rounds = 10000

# A session of the protocol with the coordinator may stay open so long, in seconds.
maximum_session_s = 86400.0

# A public encoder (docs/encoders.md) that is taken in or used here has at most so many bytes; 2147483647 is the most.
largest_encoder_bytes = 1500000000
"""
