"""The app bundle that travels through Flower: a pointer to what is installed, and no code.

Flower ships an app as a bundle (FAB) from the coordinator to each site, and stock nodes run what they receive. Ours
says only *which installed app* is meant. Both sides make it from their own installation, so both know its digest
without asking: a site's agent, and the coordinator's own executor, refuse a run with any other bundle.

The bundle is a zip file with fixed times, fixed order and no compression: its bytes do not depend on platform, Python
or zlib. Its version counts changes of this file, not releases of Fedward. Source: the checks of Flower 1.41
(``flwr.cli.build``, ``flwr.supercore.fab_format_version``), run by the tests.
"""

import hashlib
import io
import zipfile
from functools import cache
from typing import Final

FLOWER_VERSION: Final = "1.41.0"
POINTER_VERSION: Final = "1.0.0"
PUBLISHER: Final = "fedward"
APP_NAME: Final = "fedward"
STUDY_KEY: Final = "study"  # the only key of the run config: a study's name, never a path

_DATE: Final = (2024, 10, 1, 0, 0, 0)
_LICENCE: Final = (
    b"No code here. The app that this bundle points to is installed at each party, under its own licence.\n"
)
_PROJECT: Final = f"""\
[project]
name = "{APP_NAME}"
version = "{POINTER_VERSION}"
description = "A pointer: the code is what each party has installed"
license = {{ file = "LICENSE" }}
dependencies = ["flwr>={FLOWER_VERSION},<1.42.0"]

[tool.flwr.app]
publisher = "{PUBLISHER}"
fab-format-version = 1
flwr-version-target = "{FLOWER_VERSION}"
fab-include = ["LICENSE"]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
{STUDY_KEY} = ""
""".encode()


@cache
def pointer_bundle() -> bytes:
    """Return the bundle: ``pyproject.toml``, ``LICENSE``, and Flower's list of contents (digests, sizes in bits)."""
    files = {"pyproject.toml": _PROJECT, "LICENSE": _LICENCE}
    contents = "\n".join(f"{name},{hashlib.sha256(data).hexdigest()},{len(data) * 8}" for name, data in files.items())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as bundle:
        for name, data in {**files, ".info/CONTENT": contents.encode()}.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 3  # what POSIX writes, also elsewhere
            bundle.writestr(entry, data)
    return archive.getvalue()


def pointer_digest() -> str:
    """Return the SHA-256 (hexadecimal) of the bundle: Flower calls it ``fab_hash``."""
    return hashlib.sha256(pointer_bundle()).hexdigest()
