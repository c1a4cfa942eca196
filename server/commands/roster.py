"""fedward-server roster: who takes part, under which keys."""

from pathlib import Path
from typing import Annotated

import typer

from common.errors import RosterInvalidError
from common.files import write_new
from common.identity import fingerprint, read_public_key, read_signing_key
from common.roster import Roster, read_roster, signed_roster
from common.terminal import JsonOption, output, print_json

roster_app = typer.Typer(name="roster", help="Sign and show the roster of a federation.", no_args_is_help=True)


@roster_app.command("sign")
def sign(
    file: Annotated[Path, typer.Argument(help="Roster file to write (JSON).")],
    *,
    federation: Annotated[str, typer.Option(help="Name of the federation.")],
    key: Annotated[Path, typer.Option(help="The coordinator's secret key (0600).")],
    site: Annotated[list[str], typer.Option(help="NAME=PUBLIC_KEY_FILE; once for each site.")],
    epoch: Annotated[int, typer.Option(help="Counts up with every change.")] = 1,
) -> None:
    """Write a signed roster. Compare every fingerprint with its owner before.

    Example: `fedward-server roster sign roster.json --federation lungs --key coordinator.key --site north=north.pub …`
    """
    sites = {}
    for entry in site:
        name, separator, path = entry.partition("=")
        if not separator or name in sites:
            raise RosterInvalidError(f"--site {entry[:60]}: write NAME=FILE, each name once")
        sites[name] = read_public_key(Path(path))
    signing_key = read_signing_key(key)
    roster = Roster(federation=federation, epoch=epoch, coordinator=signing_key.public_key(), sites=sites)
    write_new(file, signed_roster(roster, signing_key))
    output.print(f"signed roster {roster.digest()} in {file}", markup=False)


@roster_app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="A signed roster.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Print federation, epoch, digest, and the fingerprint of every party.

    Example: `fedward-server roster show roster.json`
    """
    roster = read_roster(file)
    facts = {
        "federation": roster.federation,
        "epoch": roster.epoch,
        "digest": roster.digest(),
        "coordinator": fingerprint(roster.coordinator),
        "sites": roster.fingerprints(),
    }
    if as_json:
        print_json(facts)
        return
    output.print(f"{roster.federation}, epoch {roster.epoch}, digest {roster.digest()}", markup=False)
    for name, text in {"coordinator": fingerprint(roster.coordinator), **roster.fingerprints()}.items():
        output.print(f"{text}  {name}", markup=False)
