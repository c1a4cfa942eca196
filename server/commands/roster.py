"""fedward-server roster: who takes part, under which keys."""

from pathlib import Path
from typing import Annotated

import typer

from common.files import write_new
from common.terminal import JsonOption, output, print_json
from common.trust.errors import RosterInvalidError
from common.trust.identity import fingerprint, read_public_key, read_signing_key
from common.trust.roster import Roster, read_roster, signed_roster
from server.commands.federation_options import HERE, FolderOption, federation_at
from server.federation.admission import sign_next_roster

roster_app = typer.Typer(name="roster", help="Sign and show the roster of a federation.", no_args_is_help=True)


@roster_app.command("sign")
def sign(
    file: Annotated[Path | None, typer.Argument(help="Roster file to write; only without a federation folder.")] = None,
    *,
    federation: Annotated[str, typer.Option(help="Name of the federation (with FILE).")] = "",
    key: Annotated[Path | None, typer.Option(help="The coordinator's secret key, 0600 (with FILE).")] = None,
    site: Annotated[
        list[str] | None, typer.Option(help="NAME=PUBLIC_KEY_FILE, once for each site (with FILE).")
    ] = None,
    epoch: Annotated[int, typer.Option(help="Counts up with every change (with FILE).")] = 1,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Sign the roster of the admitted hospitals at the next epoch; with FILE, of the keys given instead.

    Example: `fedward-server roster sign` ·
    `fedward-server roster sign roster.json --federation lungs --key coordinator.key --site north=north.pub …`
    """
    if file is None:
        place, config = federation_at(folder)
        roster, is_new = sign_next_roster(place, config.federation)
        target = place.roster
    else:
        roster, is_new, target = _sign_file(file, federation, key, site or [], epoch), True, file
    if as_json:
        facts = {"file": str(target), "epoch": roster.epoch, "digest": roster.digest(), "sites": roster.fingerprints()}
        print_json({**facts, "new": is_new})
    elif is_new:
        output.print(f"signed roster {roster.digest()}, epoch {roster.epoch}, in {target}", markup=False)
    else:
        output.print(f"nothing has changed since epoch {roster.epoch}; {target} stands", markup=False)


def _sign_file(file: Path, federation: str, key: Path | None, site: list[str], epoch: int) -> Roster:
    if key is None:
        raise RosterInvalidError("with a FILE, give --federation, --key and --site")
    sites = {}
    for entry in site:
        name, separator, path = entry.partition("=")
        if not separator or name in sites:
            raise RosterInvalidError(f"--site {entry[:60]}: write NAME=FILE, each name once")
        sites[name] = read_public_key(Path(path))
    signing_key = read_signing_key(key)
    roster = Roster(federation=federation, epoch=epoch, coordinator=signing_key.public_key(), sites=sites)
    write_new(file, signed_roster(roster, signing_key))
    return roster


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
