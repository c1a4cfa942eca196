"""``python -m client.trainer.feature_work SITE_FOLDER``: features of a study's scans, in a fenced process of its own.

It is told one line through standard input: ``{"plan": canonical plan, "give_up_first": whether the first scan ended
the process before}``. It tells, a line each, through standard output: ``ready`` once the encoder is loaded, ``done``
after each scan, and how it ended. It sees the cache and the encoder and no key but the cache's; features go to the
folder ``features``. Scans are worked on one by one, each view alone.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from client.dicom.cache import Cache
from client.dicom.caches import cache_of
from client.dicom.errors import CacheInvalidError
from client.dicom.pseudonyms import derive
from client.dicom.record import RecordInfo
from client.features.errors import FeaturesMissingError
from client.features.preparation import Preparation, preparation_of
from client.features.site_encoder import site_encoder
from client.features.store import FeatureStore, Rows
from client.installation.folder import SiteFolder
from client.learning.round_randomness import RoundRandomness
from client.learning.views import WEAK, draw_views, view
from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.errors import ExitCode, FedwardError
from common.faults import fault_without_text
from common.files import parsed_json
from common.plan.plan import StudyPlan
from common.processes.hardening import limit_memory, shut_process
from common.trust.identity import read_secret_file

NICENESS: Final = 10  # the hospital's other work goes first


def views_of(image: Tensor, record: RecordInfo, views: int, randomness: RoundRandomness) -> list[Tensor]:
    """Return a scan as it is, and its weak views: (channels, *size) -> (1 + views) times (1, channels, *size).

    The draws are the patient's own: of the preparation's key, the patient and the scan, whoever else there is.
    """
    own, alone = randomness.of_patient(record.patient_key, step=0), image.unsqueeze(0)
    drawn = [
        draw_views(
            1, dimensions=image.ndim - 1, generator=own.generator(f"feature view {number} of {record.record_id}")
        )
        for number in range(views)
    ]
    return [alone, *(view(alone, draws, WEAK) for draws in drawn)]


def preparation_randomness(secret: bytes, preparation: Preparation) -> RoundRandomness:
    """Return the draws of a preparation's views: the same on every day, another at every site."""
    return RoundRandomness(derive(secret, f"fedward feature views/1 {preparation.digest()}"))


class FeatureWork:
    """Everything that the features of one study's scans need. Raises: what opening cache, card and encoder raises."""

    def __init__(self, folder: SiteFolder, plan: StudyPlan) -> None:
        from client.features.encoder import Encoder, memory_of  # noqa: PLC0415 (onnxruntime: in this fenced process alone)

        preparation, found = preparation_of(plan), site_encoder(folder, plan)
        if preparation is None or found is None:
            raise FeaturesMissingError("the plan names no encoder, so there are no features to compute")
        secret = read_secret_file(folder.secret)
        self._cache, self._preparation, self._plan = Cache.open(cache_of(folder, plan), secret), preparation, plan
        self._randomness = preparation_randomness(secret, preparation)
        self.store = FeatureStore(folder.features, secret, preparation)
        self.missing = self.store.missing(self._cache.frozen(plan.digest()).records)
        if self.missing:
            limit_memory(memory_of(found[1]))
        self._encoder = Encoder(*found) if self.missing else None

    def rows(self, record: RecordInfo) -> Rows | None:
        """Return a scan's features, None where it cannot be read or the encoder makes no finite numbers of it.

        Whatever fails of one scan leaves out that scan alone: no patient decides whether the others take part.
        Raises: EncoderInvalidError where a made-up image fails as well, so that it is not of this scan.
        """
        if self._encoder is None:
            raise RuntimeError("nothing is missing")
        try:
            image = torch.from_numpy(self._cache.read(record.record_id)).view(self._plan.image.input_shape)
            seen = views_of(image, record, self._preparation.views, self._randomness)
            return np.concatenate([self._encoder.features(each.numpy(), self._preparation.outputs) for each in seen])
        except CacheInvalidError:
            return None
        except EncoderInvalidError as error:
            if error.fault is not EncoderFault.NOT_FINITE and not self._encoder.works():
                raise
            return None

    def compute(self, records: Iterable[RecordInfo]) -> Iterable[int]:
        """Compute and keep the features of ``records``; yields how many are done. Raises: as ``rows`` and ``put``."""
        began_s, noted = time.monotonic(), 1
        for done, record in enumerate(records, start=1):
            self.store.put(record, self.rows(record))
            if done == noted:  # often at first, then seldom
                self.store.note_scan_s((time.monotonic() - began_s) / done)
                noted *= 4
            yield done


def main() -> None:
    """Compute what is missing for the plan on standard input; the last line says how it ended."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends this process
    shut_process()
    os.umask(0o077)
    os.nice(NICENESS)
    torch.set_num_threads(1)
    try:
        asked = parsed_json(sys.stdin.buffer.readline())
        work = FeatureWork(SiteFolder(Path(sys.argv[1])), StudyPlan.model_validate_json(asked["plan"], strict=False))
        _say({"ready": len(work.missing)})
        left = work.missing
        if asked["give_up_first"] and left:
            work.store.put(left[0], None)
            left = left[1:]
        for done in work.compute(left):
            _say({"done": done})
    except FedwardError as error:
        _say({"failed": int(error.exit_code), "name": type(error).__name__, "sentence": str(error)})
    except Exception as error:  # noqa: BLE001 (its text may hold what is in a scan)
        _say({"failed": int(ExitCode.INTERNAL), "sentence": fault_without_text(error)})
    else:
        _say({"ended": True})


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
