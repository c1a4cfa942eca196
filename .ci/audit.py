# ruff: noqa: INP001 (a script, no package)
"""Compare what is installed, and the lowest versions allowed, with a local copy of published advisories.

    python .ci/audit.py [FOLDER_OR_ZIP]     # by default advisories/ beside the Makefile

The copy: OSV records (JSON, one each), as https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip holds them;
fetched on a machine with internet and carried over. Nothing is sent anywhere. Exit 0: no advisory fits; 1: some do;
2: there is no copy. Source: OSV schema, ossf.github.io/osv-schema.
"""

import json
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parent.parent
ADVISORIES = ROOT / "advisories"


def records(source: Path) -> Iterator[dict[str, Any]]:
    """Yield every readable advisory of a folder or a zip file."""
    if source.is_dir():
        texts = (file.read_bytes() for file in sorted(source.rglob("*.json")))
        for archive in sorted(source.glob("*.zip")):
            yield from records(archive)
    else:
        with zipfile.ZipFile(source) as archive:
            texts = iter([archive.read(name) for name in archive.namelist() if name.endswith(".json")])
    for text in texts:
        record = json.loads(text)
        if not isinstance(record, dict):
            raise ValueError("not an OSV record")  # noqa: TRY004 (one error for all that is none)
        if not record.get("withdrawn"):
            yield record


def advisories(source: Path) -> Iterator[dict[str, Any]]:
    """Yield every advisory; a copy of which a part cannot be read ends the script: that part may matter."""
    try:
        yield from records(source)
    except (ValueError, RecursionError, OSError, zipfile.BadZipFile) as error:
        sys.stderr.write(
            f"{source}: the copy is damaged ({type(error).__name__}): fetch it again. Nothing was audited\n"
        )
        sys.exit(2)


def plain(name: str) -> str:
    """Return a package's name in the one spelling (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_affected(version: Version, affected: dict[str, Any]) -> bool:
    """Tell whether a version lies in one of the ranges of an advisory, or in its list."""
    if str(version) in affected.get("versions", ()):
        return True
    for span in affected.get("ranges", ()):
        inside = False
        for event in span.get("events", ()) if span.get("type") == "ECOSYSTEM" else ():
            try:
                if "introduced" in event:
                    inside = inside or version >= Version(event["introduced"])
                elif "fixed" in event:
                    inside = inside and version < Version(event["fixed"])
                elif "last_affected" in event:
                    inside = inside and version <= Version(event["last_affected"])
            except InvalidVersion:
                continue
        if inside:
            return True
    return False


def wanted() -> list[tuple[str, str, Version]]:
    """Return every pin of constraints.txt and every floor of pyproject.toml: where it stands, package, version."""
    lines = (ROOT / "constraints.txt").read_text().split()
    found = [
        ("constraints.txt", plain(name), Version(number)) for name, _, number in (x.partition("==") for x in lines)
    ]
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        need = Requirement(text)
        floors = [part.version for part in need.specifier if part.operator in {">=", "=="}]
        found += [("pyproject.toml", plain(need.name), Version(floor)) for floor in floors]
    return found


def main() -> int:
    """Print each advisory that fits, and return the exit status."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else ADVISORIES
    if not source.exists():
        sys.stderr.write(
            f"no copy of the advisories at {source}: nothing was audited. Fetch "
            "https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip on a machine with internet, put it there, "
            "and run `make audit` again\n"
        )
        return 2
    packages, fits, read = wanted(), [], 0
    for record in advisories(source):
        read += 1
        for affected in record.get("affected", ()):
            about = affected.get("package", {})
            if about.get("ecosystem") != "PyPI":
                continue
            fits += [
                f"{where}: {name} {version}: {record['id']} {record.get('summary', '')[:100]}"
                for where, name, version in packages
                if name == plain(about.get("name", "")) and is_affected(version, affected)
            ]
    sys.stdout.write("\n".join([*sorted(set(fits)), f"{read} advisories read, {len(set(fits))} fit"]) + "\n")
    if not read:
        sys.stderr.write(f"{source} holds no advisory: nothing was audited\n")
        return 2
    return 1 if fits else 0


if __name__ == "__main__":
    sys.exit(main())
