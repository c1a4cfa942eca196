"""What leaves the hospitals of a whole run, byte for byte, held against everything that must not leave."""

import csv
import json
import math
import struct

import numpy as np
import pydicom
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from client.dicom.cache import Cache
from client.installation.folder import SiteFolder
from client.installation.outbox import KINDS, Outbox
from common.flower.messages import from_content
from common.secagg.messages import decode
from common.secagg.stages import SITE_SENDS, Kind
from common.trust.identity import read_secret_file

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")


def bodies(real_run):
    """Yield (site, round's record of what was sent, message, payload) for everything but hellos."""
    for item in real_run.sent:
        content = message_from_proto(ProtoMessage.FromString(item.octets)).content
        if "hello" not in content:
            received = from_content(content, max_payload_bytes=1 << 30)
            yield item, received.message, bytes(received.payload)


def masked_words(real_run):
    """Yield (site, attempt, words of the body) of each masked vector that left."""
    attempts = dict.fromkeys(SITES, 0)
    for item, message, payload in bodies(real_run):
        kind, _ = decode(message, SITE_SENDS)
        if kind is Kind.KEYS:
            attempts[item.site] = next_attempt(real_run, item.site, attempts[item.site])
        if kind is Kind.MASKED:
            yield item.site, attempts[item.site], payload


def next_attempt(real_run, site, after):
    return min(number for name, number in real_run.contributions if name == site and number > after)


def test_only_allowed_kinds_leave_and_the_outbox_has_each_of_them(real_run):
    seen = {site: [] for site in SITES}
    for item, message, payload in bodies(real_run):
        kind, _ = decode(message, SITE_SENDS)
        seen[item.site].append((str(kind), len(message) + len(payload)))
    for site in SITES:
        totals = Outbox(SiteFolder(real_run.folder.site(site)).outbox).totals()
        assert {kind for kind, _ in seen[site]} <= set(KINDS)
        assert sum(totals.messages.values()) == len([item for item in real_run.sent if item.site == site])
        for kind in {kind for kind, _ in seen[site]}:
            assert totals.bytes[kind] == sum(size for name, size in seen[site] if name == kind)


def test_a_masked_vector_is_uncorrelated_with_the_update_that_it_hides(real_run):
    found = list(masked_words(real_run))
    in_sums = sum(len(attempt.participants) for attempt in real_run.finished.facts.attempts)
    assert len(found) == in_sums == 15  # three rounds and the closing one of four sites, one of them missing once
    for site, attempt, payload in found:
        contribution = real_run.contributions[site, attempt]
        body = contribution.body.astype(np.float64)
        words = np.frombuffer(payload[-4 * len(body) :], np.uint32).astype(np.float64)
        correlation = np.corrcoef(words, body)[0, 1] if body.std() else 0.0
        assert abs(correlation) < 4 / math.sqrt(len(body))
        # Uniform on 32 bits: mean and spread of the words, each within four standard errors.
        scale = 2.0**32
        assert abs(words.mean() / scale - 0.5) < 4 * math.sqrt(1 / 12 / len(words))
        assert abs((words / scale).var() - 1 / 12) < 4 * math.sqrt(1 / 180 / len(words))


def test_no_weight_update_score_or_count_leaves_in_the_clear(real_run):
    everything = b"".join(item.octets for item in real_run.sent)
    start = np.concatenate([np.frombuffer(tensor, np.float32) for tensor in weights(real_run)])
    for values in (start, *(c.body for c in real_run.contributions.values())):
        octets = np.ascontiguousarray(values).tobytes()
        for place in range(0, len(octets) - 32, max(32, len(octets) // 200 // 4 * 4)):
            piece = octets[place : place + 32]
            assert len(set(piece)) < 8 or piece not in everything
    for piece in telling_pieces(real_run):
        assert piece not in everything
    for attempt in real_run.finished.facts.attempts:
        for count in attempt.counts:
            assert count == 0 or struct.pack("<d", count) not in everything


def telling_pieces(real_run):
    """Return every three words of scores and counts but zeros, of which a round without scores is full."""
    metas = [contribution.meta.tobytes() for contribution in real_run.contributions.values()]
    pieces = {meta[place : place + 24] for meta in metas for place in range(0, len(meta) - 24, 8)} - {bytes(24)}
    assert len(pieces) > 100, "no scores in this run: nothing would be looked for"
    return pieces


def weights(real_run):
    model = (real_run.folder.study.model / "model.safetensors").read_bytes()
    size = int.from_bytes(model[:8], "little")
    for name, entry in json.loads(model[8 : 8 + size]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            yield model[8 + size + begin : 8 + size + end]


def identifiers(real_run, site):
    """Everything that names a patient, a scan or a file of a hospital, and the keys by which its cache knows them."""
    scans = real_run.folder.hospitals / site / "scans"
    names = set()
    for path in sorted(scans.rglob("*.dcm")):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        names |= {path.name, path.parent.name}
        names |= {str(dataset.get(keyword, "")) for keyword in IDENTIFYING}
    with (real_run.folder.hospitals / site / "labels.csv").open() as file:
        names |= {row["key"] for row in csv.DictReader(file)}
    folder = SiteFolder(real_run.folder.site(site))
    cache = Cache.open(folder.cache, read_secret_file(folder.secret))
    for record in cache.records:
        names |= {record.patient_key, record.record_id}
    return {name for name in names if len(name) >= 6}


IDENTIFYING = (
    "PatientID",
    "PatientName",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "AccessionNumber",
    "StudyDate",
    "InstitutionName",
)


def test_no_identifier_leaves_in_any_spelling(real_run):
    for site in SITES:
        sent = b"".join(item.octets for item in real_run.sent if item.site == site).lower()
        names = identifiers(real_run, site) - {site}  # the site's own name is how it takes part
        assert len(names) > 50
        for name in names:
            plain = name.lower()
            for spelling in (plain.encode(), plain.encode("utf-16-le"), plain.encode().hex().encode()):
                assert spelling not in sent
            if len(name) >= 32 and all(letter in "0123456789abcdef" for letter in plain):
                assert bytes.fromhex(plain) not in b"".join(i.octets for i in real_run.sent if i.site == site)


def test_the_leak_test_would_see_a_leak(real_run):
    site, attempt = next(iter(real_run.contributions))
    body = real_run.contributions[site, attempt].body.astype(np.float64)
    body = body if body.std() else np.arange(len(body), dtype=np.float64)
    assert abs(np.corrcoef(body + body.std() * np.random.default_rng(0).normal(size=len(body)), body)[0, 1]) > 0.5
    names = identifiers(real_run, "hospital-1")
    sent = b"xx" + next(iter(names)).encode()
    assert any(name.encode() in sent for name in names)
