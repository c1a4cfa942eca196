"""``python -m server.deployment.executor_process FEDERATION_FOLDER``, started by ``fedward-server up``."""

import sys
from pathlib import Path

from common.flower.environment import silence_flower

silence_flower()  # before the import that loads Flower

from common.processes.hardening import shut_process  # noqa: E402
from common.terminal import run  # noqa: E402
from server.deployment.executor import main  # noqa: E402
from server.federation.folder import FederationFolder  # noqa: E402

if __name__ == "__main__":
    shut_process()
    run(lambda: main(FederationFolder(Path(sys.argv[1]))))
