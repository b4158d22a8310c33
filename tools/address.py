"""The project's public address: noted in one place, `pyproject.toml`, and what follows from it.

`python tools/address.py https://github.com/owner/name` notes the address and
writes the badges of the notebooks and of the README, and the address from
which a notebook that was opened alone clones the project. Without an address
no badge is shown. A fork runs the same command with its own address.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils.pages.opening import colab_link, public_address  # noqa: E402
from utils.run.disk import write_text  # noqa: E402
from utils.run.workspace import STEPS  # noqa: E402

_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
_README_BLOCK = re.compile(r"(<!-- badges: .*? -->\n).*?(<!-- /badges -->)", re.DOTALL)


def files(address: str) -> dict[Path, str]:
    """Every file that holds the address or a badge, with its text for `address`."""
    toml, readme = ROOT / "pyproject.toml", ROOT / "README.md"
    noted = re.sub(
        r'^Repository = ".*?"', f'Repository = "{address}"', toml.read_text(encoding="utf-8"), flags=re.M
    )
    badges = "".join(f"{_badge(address, name, f'Open {name[:2]} in Colab')}\n" for name in STEPS.values())
    shown = _README_BLOCK.sub(
        lambda block: block[1] + (badges if address else "") + block[2], readme.read_text(encoding="utf-8")
    )
    notebooks = {ROOT / "notebooks" / f"{name}.ipynb": name for name in STEPS.values()}
    return {toml: noted, readme: shown} | {
        path: _notebook(path.read_text(encoding="utf-8"), name, address) for path, name in notebooks.items()
    }


def _badge(address: str, notebook: str, text: str = "Open in Colab") -> str:
    return f"[![{text}]({_BADGE})]({colab_link(address, notebook)})"


def _notebook(text: str, name: str, address: str) -> str:
    """A notebook's file with its badge below the title and `REPOSITORY` among its parameters."""
    notebook = json.loads(text)
    title, rest = notebook["cells"][0]["source"][0], notebook["cells"][0]["source"][1:]
    body = "".join(line for line in rest if _BADGE not in line).lstrip("\n")
    head = [title, *([_badge(address, name) + "\n"] if address else [])]
    notebook["cells"][0]["source"] = "\n".join([*head, body]).splitlines(keepends=True)
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = [
                re.sub(r'^REPOSITORY = ".*?"', f'REPOSITORY = "{address}"', line) for line in cell["source"]
            ]
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Note the address that is given, and write what follows from the one that is noted."""
    address = arguments[0].removesuffix("/").removesuffix(".git") if arguments else public_address()
    if address and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        print(f"{address} is not the address of a GitHub repository, such as https://github.com/owner/name")
        return 1
    for path, text in files(address).items():
        write_text(path, text)
    print(f"The badges and the first cells now use {address}" if address else "No address, so no badges.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
