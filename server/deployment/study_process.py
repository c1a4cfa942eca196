"""``python -m server.deployment.study_process FEDERATION_FOLDER STUDY``, for the executor; token on its input.

Everything is loaded before the token is asked for: Flower takes a task back that nobody begins within 30 seconds.
"""

import sys
from pathlib import Path

from common.flower.environment import silence_flower

silence_flower()  # before the import that loads Flower

from common.processes.hardening import shut_process  # noqa: E402
from server.deployment.study_task import main  # noqa: E402
from server.federation.folder import FederationFolder  # noqa: E402

if __name__ == "__main__":
    shut_process()
    sys.exit(main(FederationFolder(Path(sys.argv[1])), sys.argv[2], sys.stdin))
