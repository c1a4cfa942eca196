"""``python -m client.trainer.encoder_answers REPLIES SITE_FOLDER``: features of images that nobody keeps, fenced.

Questions come through standard input: first the plan, then images, (n, channels, *size) as little-endian float32.
Answers go to the descriptor REPLIES: features of those of which the encoder makes finite numbers, and their places.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client.features.encoder import Encoder, memory_of
from client.features.site_encoder import site_encoder
from client.installation.folder import SiteFolder
from client.processes.frames import ChannelClosedError, receive, send
from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.errors import ExitCode, FedwardError
from common.faults import fault_without_text
from common.plan.plan import StudyPlan
from common.processes.hardening import limit_memory, shut_process

MAX_IMAGES_BYTES: Final = 1 << 31


def serve(replies: int, folder: SiteFolder) -> None:
    """Answer until the other side closes the pipe. Raises: ChannelClosedError; as loading the encoder does."""
    start, _ = receive(sys.stdin.fileno())
    plan = StudyPlan.model_validate_json(start["plan"], strict=False)
    found, named = site_encoder(folder, plan), plan.network.encoder
    if found is None or named is None:
        raise EncoderInvalidError("the plan names no encoder", EncoderFault.NOT_HERE)
    limit_memory(memory_of(found[1]))
    encoder = Encoder(*found)
    send(replies, {"ready": True})
    while True:
        head, body = receive(sys.stdin.fileno(), max_body_bytes=MAX_IMAGES_BYTES)
        images = np.frombuffer(body, "<f4").reshape(head["shape"]).astype(np.float32)
        rows, places = answers(encoder, images, named.outputs)
        send(replies, {"places": places}, np.concatenate(rows).astype("<f4").tobytes() if rows else b"")


def answers(
    encoder: Encoder, images: NDArray[np.float32], outputs: Sequence[str]
) -> tuple[list[NDArray[np.float32]], list[int]]:
    """Return the features of those images that the encoder can do, and their places; one leaves out no other.

    Raises: EncoderInvalidError where a made-up image fails as well, so that it is not of an image.
    """
    rows, places = [], []
    for place, image in enumerate(images):
        try:
            rows.append(encoder.features(image[np.newaxis], outputs))
            places.append(place)
        except EncoderInvalidError as error:
            if error.fault is not EncoderFault.NOT_FINITE and not encoder.works():
                raise
    return rows, places


def main() -> None:
    """Serve the command that started this process; whatever fails is its last answer."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends this process
    shut_process()
    os.umask(0o077)
    replies = int(sys.argv[1])
    try:
        serve(replies, SiteFolder(Path(sys.argv[2])))
    except ChannelClosedError:
        return
    except FedwardError as error:
        send(replies, {"failed": int(error.exit_code), "name": type(error).__name__, "sentence": str(error)})
    except Exception as error:  # noqa: BLE001 (its text may hold what is in a scan)
        send(replies, {"failed": int(ExitCode.INTERNAL), "sentence": fault_without_text(error)})


if __name__ == "__main__":
    main()
