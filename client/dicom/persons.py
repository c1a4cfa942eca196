"""Which identifiers are one person: privacy is promised to persons, and a person counted as two would be promised half.

One rule, in this order:

1. Records with the same PatientID are of one person, whether or not a file names the issuer. Only where two issuers
   give out the same PatientID do these stay two people; records that do not say which they mean are left out.
2. An identifier named by OtherPatientIDs is the same person as the file's own.
3. Two identifiers that the hospital's table calls one person are one (``person_decisions``).

Merging too much is safe for privacy (two people share one bound), merging too little is not; so doubts that no rule
decides are counted and shown to staff, who know (``PersonFrom``, table of merged identifiers).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from client.dicom.facts import Facts
from client.dicom.opt_outs import KEY_CHARACTERS, OptOuts
from client.dicom.person_rules import PersonRules, Reference
from client.dicom.record import RecordInfo


@dataclass(frozen=True, slots=True)
class Persons:
    """``person_of``: identity -> person; ``left_out``: identities of which nobody can say whose they are.

    ``withdrawn``: persons who opted out, under any identifier. ``id_keys``: person -> keyed PatientIDs, where there are
    several. ``doubts``: name -> how many (``count_doubts``).
    """

    person_of: Mapping[str, str]
    left_out: frozenset[str]
    withdrawn: frozenset[str]
    id_keys: Mapping[str, tuple[str, ...]]
    doubts: Mapping[str, int]

    def of_records(self, records: Iterable[RecordInfo]) -> list[RecordInfo]:
        """Return the records that may be used, each with the key of its person."""
        found = []
        for record in records:
            person = self.person_of[record.patient_key]
            if record.patient_key in self.left_out or person in self.withdrawn:
                continue
            found.append(replace(record, identity_key=record.patient_key, patient_key=person))
        return found


@dataclass(slots=True)
class _Identity:
    """What the records of one identity (issuer and PatientID) say together."""

    patient_key: str
    id_key: str
    issuer_key: str
    likeness_key: str
    other_ids: set[str] = field(default_factory=set)
    birth_years: set[str] = field(default_factory=set)
    sexes: set[str] = field(default_factory=set)
    doubts: set[str] = field(default_factory=set)


def find_persons(records: Iterable[Facts], rules: PersonRules, opt_outs: OptOuts) -> Persons:
    """Bring the identities of all records of a cache together; see the rule above.

    Guarantee: the result depends on the set of records alone, not on their order.
    """
    listed = list(records)
    known = _identities(listed)
    groups = _Groups(known.values())
    for identity in known.values():
        for other in identity.other_ids:
            groups.join(identity.patient_key, groups.node((other[:KEY_CHARACTERS], other[KEY_CHARACTERS:])))
    for former, current in rules.merged:
        groups.join(groups.node(former), groups.node(current))
    members: dict[str, list[_Identity]] = defaultdict(list)
    for identity in known.values():
        members[groups.root(identity.patient_key)].append(identity)
    gone = {groups.root(node) for node in map(groups.node, opt_outs.identifiers) if node}
    names = {root: min(identity.patient_key for identity in group) for root, group in members.items()}
    person_of = {identity.patient_key: names[root] for root, group in members.items() for identity in group}
    withdrawn = {names[root] for root in gone & set(names)}
    withdrawn |= {person_of[facts.patient_key] for facts in listed if opt_outs.cover(facts)}
    ids = {names[root]: tuple(sorted({i.id_key for i in group})) for root, group in members.items()}
    return Persons(
        person_of,
        frozenset(groups.left_out),
        frozenset(withdrawn),
        {person: keys for person, keys in ids.items() if len(keys) > 1},
        count_doubts(list(members.values()), groups),
    )


def _identities(records: Iterable[Facts]) -> dict[str, _Identity]:
    known: dict[str, _Identity] = {}
    for facts in records:
        key = facts.patient_key
        if key not in known:
            # Of a cache written before issuers were kept: identities of one PatientID stay apart until it is read anew.
            unknown = not facts.likeness_key and not facts.doubts
            known[key] = _Identity(key, facts.patient_id_key, key if unknown else facts.issuer_key, facts.likeness_key)
        identity = known[key]
        identity.other_ids.update(facts.other_id_keys)
        identity.doubts.update(facts.doubts)
        identity.birth_years |= {facts.birth_year_key} - {""}
        identity.sexes |= {facts.sex_key} - {""}
    return known


class _Groups:
    """Disjoint sets of identities, and of identifiers that only a table, a header or an opt-out names."""

    def __init__(self, known: Iterable[_Identity]) -> None:
        self._parents: dict[str, str] = {}
        self.of_id: dict[str, list[_Identity]] = defaultdict(list)
        for identity in known:
            self.of_id[identity.id_key].append(identity)
        self.conflicting = {key for key, found in self.of_id.items() if len(_issuers(found)) > 1}
        self.left_out = {i.patient_key for key in self.conflicting for i in self.of_id[key] if not i.issuer_key}
        for key, found in self.of_id.items():
            for identity in found if key not in self.conflicting else ():
                self.join(identity.patient_key, f"id {key}")

    def node(self, reference: Reference) -> str | None:
        """Return where an identifier named elsewhere belongs; None when two issuers gave it to two people."""
        key, issuer = reference
        found = self.of_id.get(key, [])
        if key in self.conflicting and not issuer:
            return None
        if not issuer or not _issuers(found) or _issuers(found) == {issuer}:
            return f"id {key}"
        same = [identity.patient_key for identity in found if identity.issuer_key == issuer]
        return same[0] if same else f"id {key} {issuer}"

    def root(self, node: str) -> str:
        while (parent := self._parents.get(node, node)) != node:
            self._parents[node] = self._parents.get(parent, parent)  # halves the path
            node = parent
        return node

    def join(self, one: str | None, other: str | None) -> None:
        if one is None or other is None:
            return
        first, second = sorted((self.root(one), self.root(other)))
        self._parents[second] = first


def _issuers(identities: Iterable[_Identity]) -> set[str]:
    return {identity.issuer_key for identity in identities} - {""}


def count_doubts(members: Sequence[Sequence[_Identity]], groups: _Groups) -> dict[str, int]:
    """Count what staff should look at; zeros are left out.

    ``several_identifiers``: persons known by more than one identifier. ``conflicting_issuers``: PatientIDs that two
    issuers gave out; ``issuer_unknown``: of these, identities that do not say which, and are left out. ``placeholder``,
    ``undeclared_characters``, ``from_study``, ``from_folder``: identities. ``several_birth_years``, ``several_sexes``:
    identifiers that may stand for several people. ``similar_identifiers``: persons whose identifier another person has
    but for leading zeros or punctuation.
    """
    counts = Counter(doubt for group in members for identity in group for doubt in identity.doubts)
    counts["several_identifiers"] = sum(len({i.id_key for i in group}) > 1 for group in members)
    counts["conflicting_issuers"] = len(groups.conflicting)
    counts["issuer_unknown"] = len(groups.left_out)
    for one_id in groups.of_id.values():
        people = [[i] for i in one_id] if one_id[0].id_key in groups.conflicting else [one_id]
        for identities in people:
            counts["several_birth_years"] += len(set().union(*(i.birth_years for i in identities))) > 1
            counts["several_sexes"] += len(set().union(*(i.sexes for i in identities))) > 1
    alike: dict[str, set[int]] = defaultdict(set)
    for number, group in enumerate(members):
        for identity in group:
            if identity.likeness_key and identity.id_key not in groups.conflicting:
                alike[identity.likeness_key].add(number)
    counts["similar_identifiers"] = len(set().union(*(people for people in alike.values() if len(people) > 1)))
    return {name: count for name, count in sorted(counts.items()) if count}
