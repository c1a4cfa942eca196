"""fedward-site encoder: which public encoders this hospital has, and whether they are what their cards say."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import DownloadColumn, Progress

from client.commands.site_folder import SiteFolderHere
from client.consent.policy import read_policy
from client.doctor.probe import proxy_for
from client.features.encoder_fetching import Gateway, fetch_card, fetch_file
from client.installation.audit_log import audit
from client.installation.config import read_site_config
from client.installation.folder import SiteFolder
from common.encoders.card import EncoderCard, read_card
from common.encoders.shelf import EncoderShelf
from common.encoders.showing import encoder_facts, print_encoder, print_list
from common.terminal import JsonOption, errors, output, print_json
from common.trust.kit import DIGEST, read_kit

DigestArgument = Annotated[str, typer.Argument(help="First digits of the card's digest, or of the file's.")]

encoder_app = typer.Typer(name="encoder", help="Add, fetch, show and verify public encoders.", no_args_is_help=True)


@encoder_app.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="The ONNX file.")],
    *,
    card: Annotated[Path, typer.Option("--card", help="Its card (TOML).")],
    site_folder: SiteFolderHere = Path(),
    replace: Annotated[bool, typer.Option("--replace", help="The file is here with another card.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take in an encoder that was carried here: its file and its card are checked, and copied into the site folder.

    Nothing of it is run. The limit of its size is `largest_encoder_bytes` in policy.toml.

    Example: `fedward-site encoder add encoder.onnx --card encoder.toml --site-folder /srv/fedward`
    """
    folder = SiteFolder(site_folder)
    folder.require()
    read = read_card(card)
    with looking(read, quiet=as_json):
        facts = EncoderShelf(folder.encoders).add(
            file, read, limit_bytes=read_policy(folder.policy).largest_encoder_bytes, replaces=replace
        )
    note_added(folder, read)
    if as_json:
        print_json(encoder_facts(read, facts))
        return
    print_encoder(read, facts)
    output.print(f"added; a plan names it by {read.digest()}")


@encoder_app.command("show")
def show(digest: DigestArgument, *, site_folder: SiteFolderHere = Path(), as_json: JsonOption = False) -> None:
    """Show the card of an encoder.

    Example: `fedward-site encoder show c237a3e9 --site-folder /srv/fedward`
    """
    card = EncoderShelf(SiteFolder(site_folder).encoders).find(digest)
    print_json(encoder_facts(card)) if as_json else print_encoder(card)


@encoder_app.command("list")
def list_all(*, site_folder: SiteFolderHere = Path(), as_json: JsonOption = False) -> None:
    """List the encoders that are here.

    Example: `fedward-site encoder list --site-folder /srv/fedward`
    """
    cards, broken = EncoderShelf(SiteFolder(site_folder).encoders).cards()
    if as_json:
        print_json({"encoders": [encoder_facts(card) for card in cards], "broken": broken})
        return
    print_list(cards) if cards else output.print("no encoder is here; `fedward-site encoder add` takes one in")
    for sentence in broken:
        errors.print(f"not usable: {sentence}", markup=False)


@encoder_app.command("verify")
def verify(digest: DigestArgument, *, site_folder: SiteFolderHere = Path(), as_json: JsonOption = False) -> None:
    """Read an encoder's file again, and check it against its card, as when it came.

    Example: `fedward-site encoder verify c237a3e9 --site-folder /srv/fedward`
    """
    folder = SiteFolder(site_folder)
    shelf = EncoderShelf(folder.encoders)
    card = shelf.find(digest)
    with looking(card, quiet=as_json):
        facts = shelf.verify(card, limit_bytes=read_policy(folder.policy).largest_encoder_bytes)
    if as_json:
        print_json({**encoder_facts(card, facts), "verified": True})
    else:
        output.print(
            f"{card.name}: the file is the one of its card {card.digest()}, whole, and may be run", markup=False
        )


@encoder_app.command("fetch")
def fetch(
    digest: Annotated[str, typer.Argument(help="The card's whole digest, as the plan names it.")],
    *,
    site_folder: SiteFolderHere = Path(),
    replace: Annotated[bool, typer.Option("--replace", help="The file is here with another card.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch an encoder that the coordinator offers, by its card's digest, and check it.

    Its size is known, and compared with policy.toml and the disk, before the file comes. After a break the same
    command goes on where it was. Nothing of this hospital is sent but the question.

    Example: `fedward-site encoder fetch c237a3e9… --site-folder /srv/fedward`
    """
    if not DIGEST.fullmatch(digest):
        raise typer.BadParameter("give all 64 digits of the card's digest: it is what tells the right encoder")
    folder = SiteFolder(site_folder)
    folder.require()
    shelf, limit = EncoderShelf(folder.encoders), read_policy(folder.policy).largest_encoder_bytes
    with _gateway(folder) as gateway:
        card = fetch_card(digest, gateway.ask)
        shelf.refuse_other_card(card, replaces=replace)
        if shelf.file(card.file).exists():
            with looking(card, quiet=as_json):
                facts = shelf.add(shelf.file(card.file), card, limit_bytes=limit, replaces=replace)
        else:
            with _arriving(card, quiet=as_json) as progress:
                facts = fetch_file(shelf, card, gateway.ask, limit_bytes=limit, progress=progress)
            note_added(folder, card)
    if as_json:
        print_json(encoder_facts(card, facts))
        return
    print_encoder(card, facts)
    output.print(f"fetched and checked; a plan names it by {card.digest()}")


def _gateway(folder: SiteFolder) -> Gateway:
    kit, config = read_kit(folder.kit), read_site_config(folder.config)
    proxy = proxy_for(kit, config.network.https_proxy)
    return Gateway(kit, folder.node_key, proxy=None if proxy is None else proxy.geturl())


@contextmanager
def _arriving(card: EncoderCard, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    if quiet or not errors.is_terminal:
        yield lambda _: None
        return
    with Progress(*Progress.get_default_columns(), DownloadColumn(), console=errors, transient=True) as bar:
        task = bar.add_task("fetching the encoder", total=card.bytes)
        yield lambda here: bar.update(task, completed=here)


def looking(card: EncoderCard, *, quiet: bool) -> AbstractContextManager[object]:
    """Say what a person waits for: a large file takes seconds."""
    sentence = f"looking into {card.bytes / 1e6:.0f} MB"
    return errors.status(sentence) if errors.is_terminal and not quiet else nullcontext()


def note_added(folder: SiteFolder, card: EncoderCard) -> None:
    """Write into the audit log that an encoder came."""
    audit(folder, {"what": "encoder added", "encoder": card.digest(), "file": card.file, "time": int(time.time())})
