"""The house: which package may import which, and how long a file is."""

import ast
import importlib.util
import inspect
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

UTILS = ROOT / "utils"
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = re.findall(r"^\| `utils/(\w+)(?:/|\.py)`", README[README.index("## Map of the files") :], re.M)
SUFFIXES = {"py", "json", "jsonl", "csv", "md", "html", "parquet", "toml", "txt"}
FILES = sorted(UTILS.rglob("*.py"))


def module(path: Path) -> str:
    """The dotted name of a file below `utils`, without `utils`."""
    return (
        ".".join(path.relative_to(UTILS.parent).with_suffix("").parts[1:]).removesuffix("__init__").strip(".")
    )


MODULES = {module(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """The modules of the project that a file imports, wherever in the file, but for annotations only."""
    package = module(path) if path.stem == "__init__" else module(path).rpartition(".")[0]
    found, tree = set(), ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if ast.unparse(getattr(node, "test", node)) != "TYPE_CHECKING"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("utils") for alias in node.names), "import from, not import"
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = ".".join([*package.split(".")[: len(package.split(".")) + 1 - node.level]])
            source = f"{base}.{node.module or ''}".strip(".")
        elif (node.module or "").split(".")[0] == "utils":
            source = node.module.removeprefix("utils").strip(".")
        else:
            continue
        for alias in node.names:
            name = f"{source}.{alias.name}".strip(".")
            found.add(name if name in MODULES else source)
    return found - {module(path), ""}


GRAPH = {name: imported(path) for name, path in MODULES.items()}


def package(name: str) -> str:
    return name.split(".")[0]


def test_the_readmes_map_is_the_tree():
    there = {path.stem for path in UTILS.iterdir() if not path.name.startswith("_")}
    assert len(MAP) == len(set(MAP)) and set(MAP) == there
    assert len(MAP) <= 12


def test_imports_run_up_the_map():
    wrong = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if name and package(name) != package(other) and MAP.index(package(name)) < MAP.index(package(other))
    ]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others():
    list(TopologicalSorter(GRAPH).static_order())  # raises CycleError


def test_the_way_from_a_notebook_to_the_ground_is_short():
    ground = {path.stem for path in UTILS.glob("*.py")} | {"run"}
    packages = {name: set() for name in MAP}
    for name, others in GRAPH.items():
        if name:
            packages[package(name)] |= {package(other) for other in others} - {package(name)}
    longest = dict.fromkeys(ground, 1)
    for name in TopologicalSorter(packages).static_order():
        if name not in ground:
            longest[name] = 1 + max((longest[other] for other in packages[name]), default=0)
    assert max(longest.values()) <= 6, longest


@pytest.mark.parametrize("path", FILES, ids=module)
def test_a_file_is_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 330


def named(text: str) -> list[str]:
    """The modules, and what they define, that a text names in backticks: `scores.statistics`."""
    found = re.findall(r"`((?:utils\.)?[a-z]\w*(?:\.\w+)+)`", text)
    return [name.removeprefix("utils.") for name in found if name.split(".")[-1] not in SUFFIXES]


def is_there(name: str) -> bool:
    """Whether a module of the project, or what stands in it, has this name; or a library begins it."""
    first, *rest = name.split(".")
    homes = [home for home in MODULES if home.split(".")[-1] == first]
    values = [importlib.import_module(f"utils.{home}") for home in homes]
    for part in rest:
        for value in filter(inspect.ismodule, values):
            if f"{value.__name__}.{part}".removeprefix("utils.") in MODULES:
                importlib.import_module(f"{value.__name__}.{part}")
        values = [getattr(value, part) for value in values if hasattr(value, part)]
    return bool(values) or (not homes and importlib.util.find_spec(first) is not None)


@pytest.mark.parametrize("path", FILES, ids=module)
def test_what_a_text_names_is_there(path):
    assert [name for name in named(path.read_text(encoding="utf-8")) if not is_there(name)] == []
