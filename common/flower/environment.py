"""Flower's surroundings: nothing is reported, nothing is fetched, loopback never goes through a proxy.

Flower reads these variables while it is imported, so ``silence_flower`` comes before the first import of ``flwr``:

    from common.flower.environment import silence_flower
    silence_flower()
    import flwr
"""

import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from common.flower.errors import RuntimeUnsuitableError
from common.flower.pointer import FLOWER_VERSION

LOOPBACK = ("127.0.0.1", "localhost", "::1")

SILENCE = {
    "FLWR_TELEMETRY_ENABLED": "0",  # two events for each message otherwise
    "FLWR_DISABLE_UPDATE_CHECK": "1",  # a connection to api.flower.ai at every start otherwise
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # `uv sync` for each run otherwise
    "RAY_USAGE_STATS_ENABLED": "0",
    "ORT_DISABLE_TELEMETRY": "1",  # a device identifier in the home folder, and an uploader, otherwise
}

# glibc (others ignore it): blocks of 4 MB and more go back to the system when they are freed. Without this its limit
# grows to 32 MB, and a process that once held a model or a gradient keeps several times its size.
GIVE_MEMORY_BACK = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),  # the default, 128 kB, would cost small networks a page fault at each step
    "MALLOC_ARENA_MAX": "2",
}

# what a child may inherit; everything else stays with the parent
ALLOWED = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "COLUMNS", "NO_COLOR", "TZ", "LANG", "LANGUAGE",
        "TMPDIR", "TMP", "TEMP", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH",
        "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
        "http_proxy", "https_proxy", "all_proxy", "no_proxy", "OMP_NUM_THREADS",
    }
)  # fmt: skip
ALLOWED_PREFIXES = ("LC_", "FEDWARD_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "TORCH_", "MALLOC_")

_SOURCES = Path(__file__).resolve().parents[2]  # the folder that holds the four packages


def silence_flower() -> None:
    """Set the variables for this process, whatever they were: a hospital's network is not Flower's business."""
    os.environ.update(SILENCE)
    os.environ.update(_no_proxy(os.environ))


def require_flower() -> None:
    """Raise RuntimeUnsuitableError unless the one version of Flower is installed whose internals were tested."""
    found = version("flwr")
    if found != FLOWER_VERSION:
        raise RuntimeUnsuitableError(f"flwr {found} is installed; this program works with {FLOWER_VERSION} only")


def child_environment(*, flower_home: Path | None = None, https_proxy: str = "", **more: str) -> dict[str, str]:
    """Return the environment of a child process: what is allowed of this process's own, with the following changes.

    Flower is silent; freed memory goes back to the system; loopback goes through no proxy; the commands of this
    Python's environment are found first (Flower starts its own by bare name); modules come from where this code comes
    from, never from the folder in which somebody stands; output is not held back. ``flower_home``: Flower's own folder;
    ``https_proxy``: instead of an inherited one.
    """
    python = {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    environment = {**allowed(os.environ), **SILENCE, **GIVE_MEMORY_BACK, **python, **more}
    environment["PATH"] = os.pathsep.join(_unique(Path(sys.executable).parent, environment.get("PATH", os.defpath)))
    if _SOURCES.name != "site-packages":  # an installed copy is found anyway, and must not go before Python's own
        environment["PYTHONPATH"] = os.pathsep.join(_unique(_SOURCES, environment.get("PYTHONPATH", "")))
    if flower_home is not None:
        environment["FLWR_HOME"] = str(flower_home)
    if https_proxy:
        environment |= {"HTTPS_PROXY": https_proxy, "https_proxy": https_proxy}
    return environment | _no_proxy(environment)


def allowed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a child may have: where things are, language, proxy, processors. Nothing else.

    An administrator's shell holds passwords and tokens, and variables that load code (LD_PRELOAD, PYTHONSTARTUP).
    """
    return {name: value for name, value in environment.items() if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)}


def _unique(first: Path, rest: str) -> list[str]:
    return list(dict.fromkeys([str(first), *(part for part in rest.split(os.pathsep) if part)]))


def _no_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Both spellings with the hosts of both and loopback; libraries differ in which one they read."""
    written = ",".join((environment.get("NO_PROXY", ""), environment.get("no_proxy", "")))
    hosts = dict.fromkeys([*LOOPBACK, *(host.strip() for host in written.split(",") if host.strip())])
    return dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(hosts))
