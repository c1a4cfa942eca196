"""The rules of the house, measured on the tree itself."""

import ast
import statistics
from pathlib import Path

import pytest

import client
import common
import server
import simulation

PACKAGES = ("common", "client", "server", "simulation")
ONE_PAGE = {("client/learning/training.py", 80), ("server/rounds.py", 80)}  # read top to bottom
FORBIDDEN_NAMES = {"utils", "helpers", "misc", "manager", "handler", "base"}


def sources(repository: Path) -> list[Path]:
    found = [path for package in PACKAGES for path in sorted((repository / package).rglob("*.py"))]
    return [path for path in found if not path.stem.endswith(("_pb2", "_pb2_grpc"))]


@pytest.fixture(scope="module")
def trees(repository):
    return {
        path.relative_to(repository).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sources(repository)
    }


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines without the docstring."""
    documented = ast.get_docstring(function, clean=False)
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1 - (len(documented.splitlines()) if documented else 0)


def test_files_are_small(repository):
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources(repository)}
    assert {str(path): count for path, count in lengths.items() if count > 300} == {}
    assert statistics.median(lengths.values()) <= 150


def test_functions_are_short(trees):
    lengths = {f"{file}:{f.name}": body_lines(f) for file, tree in trees.items() for f in functions(tree)}
    pages = dict(ONE_PAGE)
    too_long = {n: count for n, count in lengths.items() if count > pages.get(n.partition(":")[0], 50)}
    assert too_long == {}
    ordered = sorted(lengths.values())
    assert ordered[int(0.9 * len(ordered))] <= 25


def test_every_public_name_says_what_it_is_for(trees):
    silent = []
    for file, tree in trees.items():
        if not ast.get_docstring(tree):
            silent.append(file)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                parts = [node, *(node.body if isinstance(node, ast.ClassDef) else [])]
                for part in parts:
                    public = isinstance(part, ast.FunctionDef | ast.ClassDef) and not part.name.startswith("_")
                    if public and not ast.get_docstring(part):
                        silent.append(f"{file}:{node.name}.{part.name}")
    assert silent == []


def test_no_file_has_a_name_that_says_nothing(trees):
    assert [file for file in trees if set(Path(file).stem.split("_")) & FORBIDDEN_NAMES] == []


def imported_modules(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_nothing_imports_pickle_or_loads_it_through_torch(trees, repository):
    for file, tree in trees.items():
        assert "pickle" not in {name.partition(".")[0] for name in imported_modules(tree)}, file
        assert "torch.load(" not in (repository / file).read_text(encoding="utf-8"), file


def test_no_two_modules_import_each_other_even_by_a_detour(trees):
    module_of = {
        file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): tree for file, tree in trees.items()
    }
    graph = {name: imported_modules(tree) & set(module_of) - {name} for name, tree in module_of.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_four_packages_come_from_this_checkout(repository):
    for package in (client, common, server, simulation):
        assert Path(package.__file__).resolve().parent.parent == repository


def test_no_test_folder_is_a_package(repository):
    assert list((repository / "tests").rglob("__init__.py")) == []
