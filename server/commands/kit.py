"""fedward-server kit: what every hospital needs to join."""

from pathlib import Path
from typing import Annotated

import typer

from common.files import replace_atomically
from common.terminal import JsonOption, errors, output, print_json
from common.trust.kit import read_kit
from server.commands.federation_options import HERE, FolderOption, federation_at
from server.federation.kit_making import make_kit


def kit(
    *,
    target: Annotated[Path, typer.Option("--output", help="File to write.")] = Path("kit.json"),
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write the kit: address, certificate, pointer, and the current roster; the same file for every hospital.

    Example: `fedward-server kit --output kit.json`
    """
    federation, config = federation_at(folder)
    replace_atomically(target, make_kit(federation, config))
    made = read_kit(target)
    if as_json:
        print_json(
            {
                "file": str(target),
                "fingerprint": made.fingerprint(),
                "roster": made.roster.digest() if made.roster else None,
            }
        )
        return
    if made.roster is None:
        errors.print(
            "no roster is signed yet: with this kit a hospital can see who you are, and approve nothing; admit "
            "hospitals, `fedward-server roster sign`, then write the kit again",
            markup=False,
        )
    output.print(f"wrote {target}; send it to every hospital, and read them this out when they call:", markup=False)
    output.print(made.fingerprint(), markup=False)
