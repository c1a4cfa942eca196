"""``python -m server.deployment.superlink_process ...``: Flower's SuperLink, in a process that nobody looks into."""

import sys

from common.flower.environment import silence_flower

silence_flower()  # before the import that loads Flower

from flwr.superlink.cli import flower_superlink  # noqa: E402

from common.processes.hardening import shut_service  # noqa: E402
from common.terminal import run  # noqa: E402


def serve() -> None:
    """Be the SuperLink until told to end. Raises: RunsAsRootError."""
    shut_service()
    sys.argv[0] = "flower-superlink"
    flower_superlink()


if __name__ == "__main__":
    run(serve)
