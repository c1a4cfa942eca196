"""Which code is in use: a digest over our shared sources, compared when a site says hello.

It detects accidents (an old installation, another checkout on the path). It is no defence against an attacker, because
the code that answers could lie: what a hospital runs is decided by what it installed.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parents[1]  # common


@cache
def code_digest(package: Path = PACKAGE) -> str:
    """Return the SHA-256 (hexadecimal) over names and contents of the package's Python files.

    ``common`` by default: what both sides must agree on, so server and site have the same digest.
    """
    total = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix().encode()
        total.update(len(name).to_bytes(4, "big") + name + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
