"""Which encoders of a federation hospitals may fetch over the gateway, and the pieces in which they travel."""

from dataclasses import dataclass
from pathlib import Path

from common.encoders.card import EncoderCard, read_card
from common.encoders.shelf import EncoderShelf
from common.errors import FedwardError
from common.files import replace_atomically


@dataclass(frozen=True)
class OfferedEncoders:
    """``folder``: the federation's ``encoders``; ``FILE.offered`` lies beside an encoder that they may have."""

    folder: Path

    @property
    def shelf(self) -> EncoderShelf:
        """All encoders, offered or not."""
        return EncoderShelf(self.folder)

    def offer(self, card: EncoderCard, *, is_offered: bool) -> None:
        """Let hospitals fetch an encoder, or not any more. Raises: FileUnreadableError."""
        if is_offered:
            replace_atomically(self._mark(card.file), b"", 0o600)
        else:
            self._mark(card.file).unlink(missing_ok=True)

    def is_offered(self, card: EncoderCard) -> bool:
        """Tell whether hospitals may fetch an encoder."""
        return self._mark(card.file).exists()

    def card_of(self, digest: str) -> EncoderCard | None:
        """Return the offered card of that digest (64 hexadecimal digits); None for any other."""
        for mark in self.folder.glob("*.offered"):
            try:
                card = read_card(self.shelf.card_file(mark.stem))
            except FedwardError:
                continue  # `encoder list` says what is wrong with it
            if card.digest() == digest and card.file == mark.stem:
                return card
        return None

    def _mark(self, file: str) -> Path:
        return self.folder / f"{file}.offered"
