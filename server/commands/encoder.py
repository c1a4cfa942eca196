"""fedward-server encoder: the public encoders that a federation's plans may name."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from common.encoders.card import MAX_ENCODER_BYTES, read_card
from common.encoders.showing import encoder_facts, plan_section, print_encoder, print_list
from common.terminal import JsonOption, errors, output, print_json
from server.commands.federation_options import HERE, FolderOption, federation_at
from server.encoders.offers import OfferedEncoders
from server.federation.admission import audit

DigestArgument = Annotated[str, typer.Argument(help="First digits of the card's digest, or of the file's.")]

encoder_app = typer.Typer(name="encoder", help="Add and show public encoders.", no_args_is_help=True)


@encoder_app.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="The ONNX file.")],
    *,
    card: Annotated[Path, typer.Option("--card", help="Its card (TOML).")],
    by_hand: Annotated[
        bool, typer.Option("--by-hand", help="Do not offer it over the gateway: hospitals get it in another way.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="The file is here with another card.")] = False,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Check an encoder against its card, keep it, and offer it to the federation's hospitals.

    Nothing of it is run. Hospitals fetch it by digest with `fedward-site encoder fetch`; whether you may pass it on,
    its licence says (`--by-hand` where not).

    Example: `fedward-server encoder add encoder.onnx --card encoder.toml`
    """
    federation, _ = federation_at(folder)
    read = read_card(card)
    encoders = OfferedEncoders(federation.encoders)
    with errors.status(f"looking into {read.bytes / 1e6:.0f} MB") if errors.is_terminal else nullcontext():
        facts = encoders.shelf.add(file, read, limit_bytes=MAX_ENCODER_BYTES, replaces=replace)
    encoders.offer(read, is_offered=not by_hand)
    offered = "no" if by_hand else "yes"
    audit(federation, "encoder added", encoder=read.digest(), file=read.file, offered=offered)
    if as_json:
        print_json({**encoder_facts(read, facts), "offered": not by_hand})
        return
    print_encoder(read, facts)
    way = (
        "carry file and card to the hospitals"
        if by_hand
        else f"hospitals: `fedward-site encoder fetch {read.digest()}`"
    )
    output.print(f"added; {way}. In a plan:\n", markup=False)
    output.print(plan_section(read), markup=False)


@encoder_app.command("show")
def show(digest: DigestArgument, *, folder: FolderOption = HERE, as_json: JsonOption = False) -> None:
    """Show the card of an encoder, and the section of a plan that names it.

    Example: `fedward-server encoder show c237a3e9`
    """
    federation, _ = federation_at(folder)
    encoders = OfferedEncoders(federation.encoders)
    card = encoders.shelf.find(digest)
    if as_json:
        print_json({**encoder_facts(card), "offered": encoders.is_offered(card)})
        return
    print_encoder(card)
    output.print("offered over the gateway" if encoders.is_offered(card) else "not offered over the gateway")
    output.print(f"\n{plan_section(card)}", markup=False)


@encoder_app.command("list")
def list_all(*, folder: FolderOption = HERE, as_json: JsonOption = False) -> None:
    """List the encoders of a federation.

    Example: `fedward-server encoder list`
    """
    federation, _ = federation_at(folder)
    encoders = OfferedEncoders(federation.encoders)
    cards, broken = encoders.shelf.cards()
    if as_json:
        shown = [{**encoder_facts(card), "offered": encoders.is_offered(card)} for card in cards]
        print_json({"encoders": shown, "broken": broken})
        return
    print_list(cards) if cards else output.print("no encoder is here; `fedward-server encoder add` takes one in")
    for sentence in broken:
        errors.print(f"not usable: {sentence}", markup=False)
