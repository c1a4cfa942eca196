"""Features of images that are not in the cache, as new scans are: asked of a fenced process, and kept nowhere."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from client.errors import TrainerFailedError
from client.installation.folder import SiteFolder
from client.processes.child_process import end
from client.processes.frames import ChannelClosedError, receive, send
from client.trainer import fence
from client.trainer.process import told
from common.flower.environment import child_environment
from common.plan.plan import StudyPlan

ANSWER_S: Final = 600.0  # for a few images
KILLED_S: Final = 5.0


@contextmanager
def remote_features(folder: SiteFolder, plan: StudyPlan) -> Iterator[Callable[[Tensor], Tensor]]:
    """Give a function from prepared images (n, channels, *size) to the plan's features of them (at most n, features).

    An image of which the encoder makes no finite numbers is left out. Of a plan without an encoder: the images as they
    are. Raises: EncoderInvalidError, also where the encoder is not here; TrainerFailedError when its process ends.
    """
    if plan.network.encoder is None:
        yield lambda images: images
        return
    replies, child_end = os.pipe2(os.O_CLOEXEC)
    where = str(folder.path.resolve())
    fenced = (sys.executable, "-I", "-S", fence.__file__, where)
    command = (*fenced, sys.executable, "-m", "client.trainer.encoder_answers", str(child_end), where)
    try:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(child_end,), env=child_environment())
    finally:
        os.close(child_end)
    try:
        _asked(child, replies, {"plan": plan.canonical()}, b"", 0)
        yield lambda images: _features(child, replies, images, plan.network.features)
    finally:
        os.close(replies)
        end(child, patience_s=0.0, killed_s=KILLED_S)


def _features(child: subprocess.Popen[bytes], replies: int, images: Tensor, length: int) -> Tensor:
    content = images.numpy().astype("<f4").tobytes()
    body = _asked(child, replies, {"shape": list(images.shape)}, content, 4 * length * len(images))
    return torch.from_numpy(np.frombuffer(body, "<f4").reshape(-1, length).astype(np.float32))


def _asked(child: subprocess.Popen[bytes], replies: int, head: dict[str, Any], body: bytes, most: int) -> bytearray:
    assert child.stdin is not None  # noqa: S101 (for the type checker; started with a pipe)
    try:
        send(child.stdin.fileno(), head, body)
        answer, found = receive(replies, max_body_bytes=most, timeout_s=ANSWER_S)
    except (ChannelClosedError, TimeoutError):
        raise TrainerFailedError("the process that computes features ended, or gave no answer in ten minutes") from None
    if "failed" in answer:
        raise told(answer)
    return found
