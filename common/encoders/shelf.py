"""The encoders that a party has: ``FILE.onnx`` and its card ``FILE.toml``, by the SHA-256 of the ONNX file.

Names of files come from digests, never from what a card says. What lies here was checked when it came, and is compared
with its card again whenever it is opened.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.encoders.card import EncoderCard, card_text, read_card
from common.encoders.checking import EncoderFacts, check_encoder, open_encoder
from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.errors import FedwardError, OutputExistsError
from common.files import replace_atomically, sync_folder, write_atomically

CHUNK_BYTES: Final = 1 << 20
SHORTEST_DIGEST: Final = 8


@dataclass(frozen=True)
class EncoderShelf:
    """``folder``: made when the first encoder comes."""

    folder: Path

    def file(self, digest: str) -> Path:
        """Return the place of the ONNX file of that SHA-256."""
        return self.folder / f"{digest}.onnx"

    def card_file(self, digest: str) -> Path:
        """Return the place of the card of the ONNX file of that SHA-256."""
        return self.folder / f"{digest}.toml"

    def add(self, file: Path, card: EncoderCard, *, limit_bytes: int, replaces: bool = False) -> EncoderFacts:
        """Check ``file`` against ``card`` (``check_encoder``), and copy both here; the file comes first.

        ``replaces``: another card for a file that is here already. The same again changes nothing.
        Raises: EncoderInvalidError, OutputExistsError, FileUnreadableError.
        """
        self.refuse_other_card(card, replaces=replaces)
        facts = check_encoder(file, card, limit_bytes=limit_bytes)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self.file(card.file)
        if not target.exists() or not target.samefile(file):
            write_atomically(target, _pieces(file, card), 0o600)
        self._write_card(card)
        return facts

    def refuse_other_card(self, card: EncoderCard, *, replaces: bool) -> None:
        """Refuse a card whose file is here with another one, unless it ``replaces`` that. Raises: OutputExistsError."""
        place = self.card_file(card.file)
        if place.exists() and not replaces and read_card(place) != card:
            raise OutputExistsError(
                f"{place}: this file has another card here, which a plan may name; with --replace it gets the new one"
            )

    def _write_card(self, card: EncoderCard) -> None:
        replace_atomically(self.card_file(card.file), card_text(card).encode(), 0o600)

    def keep(self, arrived: Path, card: EncoderCard, *, limit_bytes: int) -> EncoderFacts:
        """Check a file that arrived in this folder, and give it its name. Raises: as ``add``."""
        facts = check_encoder(arrived, card, limit_bytes=limit_bytes)
        arrived.replace(self.file(card.file))
        sync_folder(self.folder)
        self._write_card(card)
        return facts

    def verify(self, card: EncoderCard, *, limit_bytes: int) -> EncoderFacts:
        """Check the file that lies here again, whole. Raises: EncoderInvalidError, FileUnreadableError."""
        return check_encoder(self.file(card.file), card, limit_bytes=limit_bytes)

    def named(self, *, card: str, file: str) -> EncoderCard:
        """Return the card that a plan names by both digests. Raises: EncoderInvalidError when it is not here."""
        place = self.card_file(file)
        if not place.exists() or not self.file(file).exists():
            raise EncoderInvalidError(
                f"the plan's encoder is not in {self.folder}: `encoder fetch {card}` brings it where the coordinator "
                f"offers it, `encoder add` where its file (SHA-256 {file}) was carried here",
                EncoderFault.NOT_HERE,
            )
        found = read_card(place)
        if (found.digest(), found.file) != (card, file):
            raise EncoderInvalidError(
                f"{place}: another card than the plan names, which is {card}; get that one and `encoder add --replace`",
                EncoderFault.CARD,
            )
        return found

    def find(self, beginning: str) -> EncoderCard:
        """Return the one encoder whose card's or file's digest begins so. Raises: EncoderInvalidError."""
        cards, _ = self.cards()
        found = [card for card in cards if card.digest().startswith(beginning) or card.file.startswith(beginning)]
        if len(beginning) < SHORTEST_DIGEST or len(found) != 1:
            raise EncoderInvalidError(
                f"{len(found)} encoders in {self.folder} have a digest that begins with {beginning[:64]!r}; give "
                f"{SHORTEST_DIGEST} digits or more (`encoder list` shows them)",
                EncoderFault.NOT_HERE,
            )
        return found[0]

    def cards(self) -> tuple[list[EncoderCard], list[str]]:
        """Return all cards by name, and what is wrong with those that cannot be read."""
        found, broken = [], []
        for place in sorted(self.folder.glob("*.toml")):
            try:
                card = read_card(place)
            except FedwardError as error:
                broken.append(str(error))
            else:
                if place.stem == card.file and self.file(card.file).exists():
                    found.append(card)
                else:
                    broken.append(f"{place}: its ONNX file is missing, or it is the card of another one")
        return sorted(found, key=lambda card: (card.name, card.version)), broken


def _pieces(path: Path, card: EncoderCard) -> Iterator[bytes]:
    """Yield a file's content, and make sure at its end that it is still what was checked."""
    seen = hashlib.sha256()
    with open_encoder(path, card) as file:
        while chunk := file.read(CHUNK_BYTES):
            seen.update(chunk)
            yield chunk
    if seen.hexdigest() != card.file:
        raise EncoderInvalidError(f"{path}: changed while it was copied; try again", EncoderFault.OTHER_FILE)
