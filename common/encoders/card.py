"""The card of a public encoder: what the file is, where it is from, what goes in and what comes out.

An encoder is an ONNX file that somebody trained on public images. Its card is a small TOML file beside it, which people
read and a plan names by digest; the card holds the file's own digest, so that naming the card names both.
"""

import json
import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.settings_file import read_settings
from common.trust.canonical import canonical_bytes, digest

LEAST_SCALE: Final = 1e-6  # of a value in [0, 1]; far below, single precision knows no difference
FORMAT: Final = "fedward-encoder/1"
MAX_CARD_BYTES: Final = 32 * 1024
MAX_ENCODER_BYTES: Final = (1 << 31) - 1  # protobuf's own limit
MAX_FEATURES: Final = 65_536
MOST_VALUES: Final = 1 << 26  # of one output

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_BLANK: Final = frozenset(
    "\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5"
)  # letters and signs that are drawn as nothing


_SELECTORS: Final = frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), *range(0x180B, 0x1810), 0x1D159))
)
MOST_MARKS: Final = 3  # on one letter; more are drawn over what stands beside it


def _seen(text: str) -> str:
    """Refuse characters that nobody sees or that show a text in another order: people decide by these words."""
    kinds = [unicodedata.category(each) for each in text]
    unseen = any(kind in _UNSEEN or (kind == "Zs" and each != " ") for kind, each in zip(kinds, text, strict=True))
    unseen = unseen or bool((_BLANK | _SELECTORS) & set(text))
    stacked = "M" * (MOST_MARKS + 1) in "".join(kind[0] for kind in kinds)
    if unseen or stacked or text != text.strip():
        raise ValueError("must be one line without invisible characters, and without blanks at its ends")
    return text


Content = bytes  # the card has a key of that name
Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_seen)]
Paragraph = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_seen)]
TensorName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./:-]{0,119}$")]
Factor = Annotated[float, Field(ge=-1e6, le=1e6)]
Length = Annotated[int, Field(ge=1, le=MAX_FEATURES)]
Pixels = Annotated[int, Field(ge=8, le=1024)]


class CardPart(BaseModel):
    """A section of the card: values of exactly the declared type, no unknown key, no change after reading."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class GreyMapping(CardPart):
    """How a prepared value in [0, 1] becomes what the encoder was trained on: value * scale + offset, by channel."""

    scale: Annotated[tuple[Factor, ...], Field(strict=False, min_length=1, max_length=3)]
    offset: Annotated[tuple[Factor, ...], Field(strict=False, min_length=1, max_length=3)]

    @model_validator(mode="after")
    def _keeps_the_image(self) -> Self:
        if any(abs(scale) < LEAST_SCALE for scale in self.scale):
            raise ValueError(f"scale has a number below {LEAST_SCALE:g}, which would make every image the same")
        return self


class EncoderOutput(CardPart):
    """One named output, without its batch dimension.

    ``kind``: "vector", ``shape`` [length]; or "map", ``shape`` [channels, height, width] ([channels, depth, height,
    width] in 3-D).
    """

    name: TensorName
    kind: Literal["vector", "map"]
    shape: Annotated[tuple[Length, ...], Field(strict=False, min_length=1, max_length=4)]

    @property
    def length(self) -> int:
        """Numbers of the vector; of a map: its channels."""
        return self.shape[0]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind == "vector") != (len(self.shape) == 1):
            raise ValueError(f"{self.name}: a vector's shape is [length], a map's is [channels, height, width]")
        if math.prod(self.shape) > MOST_VALUES:
            raise ValueError(f"{self.name}: {math.prod(self.shape)} numbers, the limit is {MOST_VALUES}")
        return self


class EncoderCard(CardPart):
    """The whole card.

    ``source``: where the file can be had, or what it was made from. ``licence``: of the weights, by its SPDX name
    where it has one. ``file``, ``bytes``: SHA-256 and length of the ONNX file. ``size_px``: (height, width), or (depth,
    height, width) in 3-D. ``channels``: of the input; 3 takes a grey image three times. ``outputs``: of the file, those
    that a plan may name; at most one map.
    """

    format: Literal["fedward-encoder/1"]
    name: Line
    version: Line
    source: Paragraph
    licence: Line
    training_data: Paragraph
    intended_use: Paragraph
    file: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=1, le=MAX_ENCODER_BYTES)]
    input_name: TensorName
    size_px: Annotated[tuple[Pixels, ...], Field(strict=False, min_length=2, max_length=3)]
    channels: Literal[1, 3]
    mapping: GreyMapping
    outputs: Annotated[tuple[EncoderOutput, ...], Field(strict=False, min_length=1, max_length=32)]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image as the encoder takes it: (channels, *size_px)."""
        return (self.channels, *self.size_px)

    def canonical(self) -> Content:
        """Return the bytes that are hashed (RFC 8785): equal for every key order, spacing and machine."""
        return canonical_bytes(self.model_dump(mode="json"))

    def digest(self) -> str:
        """Return the SHA-256 digest, 64 hexadecimal digits: what a plan names."""
        return digest(FORMAT, self.canonical())

    def output(self, name: str) -> EncoderOutput:
        """Return the output of that name. Raises: EncoderInvalidError."""
        found = next((output for output in self.outputs if output.name == name), None)
        if found is None:
            names = ", ".join(output.name for output in self.outputs)
            raise EncoderInvalidError(f"the card of {self.name} has no output {name!r}; it has {names}", _OUTPUT)
        return found

    def features_of(self, outputs: Sequence[str]) -> int:
        """Return the total length of the vectors ``outputs``, joined in this order.

        Raises: EncoderInvalidError for none, a name that is unknown, twice there or a map's, and for more than
        ``MAX_FEATURES``.
        """
        if not outputs or len(set(outputs)) != len(outputs):
            raise EncoderInvalidError("name one or more outputs of the encoder, each once", _OUTPUT)
        for name in outputs:
            if self.output(name).kind != "vector":
                raise EncoderInvalidError(f"output {name!r} is a map; features are vectors: name one of those", _OUTPUT)
        total = sum(self.output(name).length for name in outputs)
        if total > MAX_FEATURES:
            raise EncoderInvalidError(f"the outputs have {total} numbers, the limit is {MAX_FEATURES}", _OUTPUT)
        return total

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [output.name for output in self.outputs]
        if len(set(names)) != len(names):
            raise ValueError("outputs has a name twice; each may appear once")
        if sum(output.kind == "map" for output in self.outputs) > 1:
            raise ValueError("outputs has several maps; name the one that shows where the encoder looks")
        if any(output.kind == "map" and len(output.shape) != 1 + len(self.size_px) for output in self.outputs):
            raise ValueError("a map has as many dimensions after its channels as size_px")
        if {len(self.mapping.scale), len(self.mapping.offset)} != {self.channels}:
            raise ValueError(f"mapping needs {self.channels} numbers in scale and in offset, one for each channel")
        return self


_OUTPUT: Final = EncoderFault.OUTPUT


def read_card(path: Path) -> EncoderCard:
    """Read a card (TOML); unknown keys and bad values are refused, never ignored.

    Raises: EncoderInvalidError, NotTomlError, FileUnreadableError, FileTooLargeError, NotUtf8Error.
    """
    try:
        return read_settings(
            path, EncoderCard, max_bytes=MAX_CARD_BYTES, refusal=EncoderInvalidError,
            advice="docs/encoders.md has the form",
        )  # fmt: skip
    except EncoderInvalidError as error:
        raise EncoderInvalidError(str(error), EncoderFault.CARD) from None


def parse_card(content: bytes) -> EncoderCard:
    """Return the card of its canonical bytes, as it travels. Raises: EncoderInvalidError."""
    try:
        card = EncoderCard.model_validate_json(content, strict=False)
    except ValueError:
        raise EncoderInvalidError("what came is no card of an encoder", EncoderFault.CARD) from None
    if card.canonical() != content:
        raise EncoderInvalidError("what came is no card in its canonical form", EncoderFault.CARD)
    return card


def card_text(card: EncoderCard) -> str:
    """Return a card as a TOML file for people; ``read_card`` gives the same card again."""
    plain = card.model_dump(mode="json")
    mapping, outputs = plain.pop("mapping"), plain.pop("outputs")
    lines = [*_lines(plain), "", "[mapping]", *_lines(mapping)]
    for output in outputs:
        lines += ["", "[[outputs]]", *_lines(output)]
    return "\n".join([*lines, ""])


def _lines(plain: dict[str, object]) -> list[str]:
    # a JSON text, number or list of numbers is the same in TOML, where no character is invisible
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
