"""The `keys` commands, the same for coordinator and site: make a key, show a fingerprint."""

from pathlib import Path
from typing import Annotated

import typer

from common.terminal import JsonOption, output, print_json
from common.trust.identity import create_secret_file, create_signing_key, fingerprint, read_public_key, write_public_key

keys_app = typer.Typer(name="keys", help="Make keys and show fingerprints.", no_args_is_help=True)


@keys_app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Name of the key: NAME.key (secret, 0600) and NAME.pub are written.")],
    *,
    folder: Annotated[Path, typer.Option(help="Folder to write to; must exist.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Make a signing key (Ed25519) and print the fingerprint to read out over the phone.

    Example: `fedward-site keys new north --folder site/`
    """
    key = create_signing_key(folder / f"{name}.key").public_key()
    write_public_key(folder / f"{name}.pub", key)
    _show(fingerprint(key), as_json=as_json)


@keys_app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="A public key (.pub).")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Print the fingerprint of a public key; compare all six groups with its owner.

    Example: `fedward-server keys show north.pub`
    """
    _show(fingerprint(read_public_key(file)), as_json=as_json)


@keys_app.command("secret")
def secret(file: Annotated[Path, typer.Argument(help="File to create (0600).")]) -> None:
    """Make a site secret: it keys pseudonyms and the image cache, and never leaves the site.

    Example: `fedward-site keys secret site/site.secret`
    """
    create_secret_file(file)
    output.print(f"wrote {file}; keep a copy apart from the cache, which cannot be read without it", markup=False)


def _show(text: str, *, as_json: bool) -> None:
    print_json({"fingerprint": text}) if as_json else output.print(text, markup=False)
