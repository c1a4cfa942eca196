"""Who opted out, by keyed names: what an opt-out covers is decided for each file by itself."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

from client.dicom.facts import Facts
from client.dicom.person_rules import Reference

KEY_CHARACTERS = 32


@dataclass(frozen=True)
class OptOuts:
    """``patients``: keys of identities (all there is in older caches). ``identifiers``: keyed PatientID and issuer.

    Issuer "" covers the PatientID under every issuer.
    """

    patients: frozenset[str] = frozenset()
    identifiers: frozenset[Reference] = frozenset()

    def cover(self, facts: Facts) -> bool:
        """Tell whether a record is of somebody who opted out.

        A record that names no issuer is covered when its PatientID opted out under any issuer: an opt-out that misses
        somebody breaks a promise, one that reaches too far costs a scan.
        """
        if facts.patient_key in self.patients:
            return True
        own = (facts.patient_id_key, facts.issuer_key)
        others = ((key[:KEY_CHARACTERS], key[KEY_CHARACTERS:]) for key in facts.other_id_keys)
        return any(
            not issuer or not other or issuer == other
            for key, issuer in (own, *others)
            for other in self._issuers_of.get(key, ())
        )

    @cached_property
    def _issuers_of(self) -> dict[str, set[str]]:
        issuers: dict[str, set[str]] = defaultdict(set)
        for key, issuer in self.identifiers:
            issuers[key].add(issuer)
        return dict(issuers)

    def __or__(self, other: "OptOuts") -> "OptOuts":
        return OptOuts(self.patients | other.patients, self.identifiers | other.identifiers)
