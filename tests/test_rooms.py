"""One folder for each job: the rooms of the packages, and what documents and docstrings say about them."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from common.trust.provenance import PACKAGE, code_digest

PACKAGES = ("common", "client", "server", "simulation")
MOST_ENTRIES = 20  # of a package's root: what a stranger sees at once
NAME = re.compile(r"(?<![\w./-])(?:client|server|common|simulation)(?:\.\w+)+")
FILE = re.compile(r"(?<![\w./-])(?:client|server|common|simulation|tests|docs)/[\w./-]*\w\.(?:py|md|toml|service|sh)\b")
# in the record of how something came to be, a module that is gone may be named
HISTORY = {"CHANGELOG.md"}


def entries(package: Path) -> list[str]:
    return sorted(path.name for path in package.iterdir() if path.name not in {"__pycache__", "__init__.py"})


def module_names(repository: Path) -> dict[str, Path]:
    """Dotted name -> its file, packages included."""
    found = {}
    for package in PACKAGES:
        for path in (repository / package).rglob("*.py"):
            parts = path.relative_to(repository).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def folder_imports(repository: Path, modules: dict[str, Path]) -> dict[Path, set[Path]]:
    """Folder -> the folders from which its files import something, itself and those above and below it left out."""
    found: dict[Path, set[Path]] = defaultdict(set)
    for path in modules.values():
        for name in imports(ast.parse(path.read_text(encoding="utf-8"))) & set(modules):
            here, there = path.parent, modules[name].parent
            if here not in (there, *there.parents) and there not in here.parents:
                found[here.relative_to(repository)].add(there.relative_to(repository))
    return found


def test_no_two_folders_import_each_other(repository):
    graph = folder_imports(repository, module_names(repository))
    assert [(str(a), str(b)) for a in graph for b in graph[a] if a < b and a in graph.get(b, ())] == []
    assert len(graph) > 30, "the graph is empty: this test sees nothing"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_stranger_sees_few_entries_and_each_room_says_its_job(repository, package):
    names = entries(repository / package)
    assert len(names) <= MOST_ENTRIES, names
    for room in (path for path in (repository / package).iterdir() if (path / "__init__.py").is_file()):
        said = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
        assert said, room
        assert said.partition("\n\n")[0].endswith((".", ":")), f"{room}: not one sentence"


def test_a_package_says_its_job_and_re_exports_nothing(repository):
    for package in PACKAGES:
        tree = ast.parse((repository / package / "__init__.py").read_text(encoding="utf-8"))
        assert ast.get_docstring(tree)
        assert len(tree.body) == 1, package


def texts(repository: Path) -> dict[str, str]:
    """Every document, and of every program its docstrings and comments (its file, which has them)."""
    found = [repository / "README.md", repository / "pyproject.toml", repository / "Makefile"]
    found += [path for path in (repository / "docs").rglob("*") if path.is_file()]
    found += [path for package in (*PACKAGES, "tests") for path in (repository / package).rglob("*.py")]
    found = [path for path in found if not path.stem.endswith(("_pb2", "_pb2_grpc"))]
    return {str(path.relative_to(repository)): path.read_text(encoding="utf-8") for path in found}


def names_of(file: Path) -> set[str]:
    """What a module defines or imports at its top."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name) for alias in node.names}
    return found


def stale_name(name: str, modules: dict[str, Path]) -> bool:
    """Tell whether a dotted name neither is a module nor something that a module has."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        file = modules.get(".".join(parts[:length]))
        if file is not None:
            return length < len(parts) and parts[length] not in names_of(file)
    return True


def quoted(text: str) -> str:
    """What stands in backticks, in an import line, after ``python -m`` or in double quotes: where names are meant."""
    patterns = (r"`+([^`]+)`+", r"^ *(?:from|import) (\S+)", r"python3? -m (\S+)", r'"-m", "([^"]+)"')
    return "\n".join(found for pattern in patterns for found in re.findall(pattern, text, flags=re.MULTILINE))


def test_no_document_and_no_docstring_names_a_module_that_does_not_exist(repository):
    modules, seen, stale = module_names(repository), 0, []
    for file, text in texts(repository).items():
        for name in NAME.findall(quoted(text)):
            seen += 1
            # ``server.stage``: of a variable of that name, in the program texts of docs/protocol.md and in tests
            if stale_name(name, modules) and not re.search(rf"\b{name.partition('.')[0]} = ", text):
                stale.append(f"{file}: {name}")
    assert stale == []
    assert seen > 1000, "the pattern finds nothing: this test sees nothing"


def test_no_document_names_a_file_that_does_not_exist(repository):
    for file, text in texts(repository).items():
        if not file.startswith("tests/") and file not in HISTORY:
            for named in FILE.findall(text):
                assert (repository / named).exists(), f"{file}: {named}"


def test_a_stale_name_would_be_found(repository):
    modules = module_names(repository)
    assert stale_name("client.patient_batches", modules)
    assert stale_name("client.learning.losses.no_such_loss", modules)
    assert not stale_name("client.learning.losses", modules)
    assert not stale_name("client.dicom.record.Stratum.LABELLED", modules)


def test_the_digest_of_the_code_covers_everything_both_sides_must_agree_on(repository, tmp_path):
    assert repository / "common" == PACKAGE
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan/plan.py").write_text("one")
    before = code_digest(tmp_path)
    (tmp_path / "plan/plan.py").write_text("two")
    code_digest.cache_clear()
    assert code_digest(tmp_path) != before
