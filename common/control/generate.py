"""Make the Python code of ``site_control.proto`` again: ``python -m common.control.generate`` (needs grpcio-tools)."""

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent
_FIRST_LINE = "# mypy: ignore-errors\n"
NAMES = ("site_control_pb2.py", "site_control_pb2.pyi", "site_control_pb2_grpc.py")


def generated() -> dict[str, str]:
    """Return the text of each generated file, by name. Raises: RuntimeError where the contract has a mistake."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        source = str(_HERE.relative_to(_ROOT) / "site_control.proto")
        if protoc.main(["protoc", f"--proto_path={_ROOT}", *outputs, source]) != 0:
            raise RuntimeError("site_control.proto has a mistake; the compiler has named it")
        made = Path(folder) / "common" / "control"
        return {name: _FIRST_LINE + (made / name).read_text(encoding="utf-8") for name in NAMES}


def main() -> None:
    """Write the files beside the contract."""
    for name, text in generated().items():
        (_HERE / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main()
