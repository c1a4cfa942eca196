"""``python -m common.encoders.inspecting``: look into an encoder's file, in a process that may take little memory.

The file comes through standard input, opened by whoever asks, with its card before it on the command line; what was
found goes to standard output as one JSON object. From the first byte of the file on this process opens nothing more and
has a limit of memory and of processor time: parsers have faults, and a file of a few bytes can claim gigabytes.
"""

import hashlib
import json
import os
import resource
import sys
from typing import Any, Final

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto, ValueInfoProto

from common.encoders.card import EncoderCard, parse_card
from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.encoders.form import check_form, shown
from common.encoders.sizes import Sizes, load_what_loads_late, sizes_of
from common.faults import fault_without_text

OWN_BYTES: Final = 512 << 20  # address space of Python, numpy and onnx (180 MB), and of what is known of each node
TIMES_THE_FILE: Final = 3  # what was read, what was parsed, and room between them
MOST_CPU_S: Final = 600
LONGEST_SHAPE: Final = 100  # characters of a sentence


def inspect(content: bytes, card: EncoderCard) -> Sizes:
    """Check a file's form, sizes, and that it is what its card says. Raises: EncoderInvalidError."""
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, RecursionError):
        raise EncoderInvalidError("it is no ONNX file, or only a part of one", EncoderFault.NOT_ONNX) from None
    check_form(model)
    _check_input(model, card)
    sizes = sizes_of(model, card)
    _check_outputs(model, sizes, card)
    return sizes


def _check_input(model: ModelProto, card: EncoderCard) -> None:
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if [value.name for value in inputs] != [card.input_name]:
        names = ", ".join(shown(value.name) for value in inputs[:4])
        raise EncoderInvalidError(
            f"its inputs are {names or 'none'}; the card says one, {card.input_name!r}", EncoderFault.INPUT
        )
    wanted = (1, *card.input_shape)
    if not _takes(inputs[0], wanted):
        raise EncoderInvalidError(
            f"its input does not take 32-bit numbers of shape {list(wanted)}, as the card says", EncoderFault.INPUT
        )


def _takes(value: ValueInfoProto, wanted: tuple[int, ...]) -> bool:
    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    return (
        tensor.elem_type == TensorProto.FLOAT
        and len(dims) == len(wanted)
        and all(dim in (None, size) for dim, size in zip(dims, wanted, strict=True))
    )


def _check_outputs(model: ModelProto, sizes: Sizes, card: EncoderCard) -> None:
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    for output in card.outputs:
        if output.name not in sizes.outputs:
            names = ", ".join(map(shown, sorted(sizes.outputs)[:8]))
            raise EncoderInvalidError(f"it has no output {output.name!r}; its outputs are {names}", EncoderFault.OUTPUT)
        found, wanted = sizes.outputs[output.name], (1, *output.shape)
        if found != wanted or kinds[output.name] != TensorProto.FLOAT:
            shape = str(list(found))[:LONGEST_SHAPE]  # a file may give it thousands of dimensions
            raise EncoderInvalidError(
                f"its output {output.name!r} has shape {shape}; the card says 32-bit numbers of {list(wanted)}",
                EncoderFault.OUTPUT,
            )


def _require_file_of(card: EncoderCard, content: bytes) -> None:
    """Compare the very bytes that are looked into: a file may change after whoever asked has compared it."""
    if hashlib.sha256(content).hexdigest() != card.file:
        raise EncoderInvalidError("it changed while it was read", EncoderFault.OTHER_FILE)


def limit_this_process(file_bytes: int) -> None:
    """Take no more memory and time than a file of this size needs, open nothing, start nothing, leave no core file."""
    memory = OWN_BYTES + TIMES_THE_FILE * file_bytes
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, MOST_CPU_S),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)  # one that is there may not be raised
        resource.setrlimit(kind, (limit, limit))


def main() -> None:
    """Answer for the file at standard input and the card (canonical JSON) in the first argument."""
    answer: dict[str, Any]
    try:
        card = parse_card(sys.argv[1].encode())
        load_what_loads_late()
        limit_this_process(card.bytes)
        with os.fdopen(sys.stdin.fileno(), "rb", closefd=False) as file:
            content = file.read(card.bytes + 1)
        _require_file_of(card, content)
        sizes = inspect(content, card)
        answer = {"bytes_at_once": sizes.bytes_at_once, "multiply_adds": sizes.multiply_adds}
    except EncoderInvalidError as error:
        answer = {"refused": str(error)}
    except MemoryError:
        answer = {"refused": str(EncoderInvalidError(TOO_MUCH, EncoderFault.MEMORY))}
    except Exception as error:  # noqa: BLE001 (its text holds what the file holds)
        answer = {"failed": fault_without_text(error)}
    sys.stdout.write(json.dumps(answer))


TOO_MUCH: Final = "looking into it takes more memory than a file of its size may"

if __name__ == "__main__":
    main()
