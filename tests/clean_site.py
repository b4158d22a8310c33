"""A folder of packages for an interpreter that has nothing else: some distributions and what they need."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def link(folder: Path, *names: str) -> Path:
    """`folder`, with links to the distributions called `names` and to those that they require."""
    folder.mkdir()
    todo, done = list(names), set()
    while todo:
        name = todo.pop()
        if name in done:
            continue
        done.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            assert name not in names, f"{name} is missing"
            continue  # a build of another system needs it
        needs = map(Requirement, found.requires or ())
        todo += [need.name for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
        for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(found.locate_file(top))
    return folder
