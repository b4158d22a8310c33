"""How long a notebook's set-up cells take on Colab's versions, and what they install.

    python benchmarks/setup_cell.py --runs 5

Makes a fresh environment with what `constraints-colab.txt` lists (torch in the
version of `requirements-dev.txt`, as Colab's own build needs CUDA) and neither
trl nor bitsandbytes. Then, each time from an empty folder and without pip's
cache, it runs the form and the set-up of a notebook: clone, install, import.
Compares `pip freeze` before and after. The network and the processor are this
machine's, not Colab's.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "01_region_split.ipynb"


def new_environment(folder: Path, python: str) -> Path:
    """A virtual environment with Colab's versions; its interpreter."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    torch = re.search(r"^torch==\S+$", (ROOT / "requirements-dev.txt").read_text(), re.M)[0]
    interpreter = folder / "bin" / "python"
    wanted = ["-r", str(ROOT / "constraints-colab.txt"), torch]
    subprocess.run([interpreter, "-m", "pip", "install", "--quiet", *wanted], check=True)
    return interpreter


def set_up_cells(address: str) -> str:
    """The code of the notebook's form and set-up, with the address to clone from."""
    cells = [
        "".join(cell["source"])
        for cell in json.loads(NOTEBOOK.read_text())["cells"]
        if cell["cell_type"] == "code"
    ]
    last = next(number for number, code in enumerate(cells) if ".begin(" in code)
    code = "\n".join(cells[: last + 1])
    for name, value in {"REPOSITORY": address, "WORKSPACE": "run"}.items():
        code = re.sub(rf'^{name} = ".*?"', f'{name} = "{value}"', code, flags=re.M)
    return code


def freeze(python: Path) -> set[str]:
    listed = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True)
    return set(listed.stdout.split("\n")) - {""}


def one_run(python: Path, code: str) -> tuple[float, set[str], set[str]]:
    """Seconds that the cells take in a new process, what they added, and what they took away or moved."""
    before = freeze(python)
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, "PIP_NO_CACHE_DIR": "1"}
        start = time.perf_counter()
        subprocess.run([python, "-c", code], cwd=empty, env=environment, check=True)
        seconds = time.perf_counter() - start
    after = freeze(python)
    return seconds, after - before, before - after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--python", default=sys.executable, help="interpreter; Colab has 3.13 (%(default)s)")
    parser.add_argument("--environment", type=Path, help="folder to keep the environment in, made if missing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.environment or Path(scratch) / "environment"
        python = folder / "bin" / "python"
        if not python.exists():
            new_environment(folder, options.python)
        version = subprocess.run([python, "--version"], capture_output=True, text=True).stdout.strip()
        code, times, results = set_up_cells(ROOT.as_uri()), [], set()
        for _ in range(options.runs):
            gone = [python, "-m", "pip", "uninstall", "--quiet", "--yes", "trl", "bitsandbytes"]
            subprocess.run(gone, check=True, capture_output=True)
            seconds, added, moved = one_run(python, code)
            times.append(seconds)
            results.add((tuple(sorted(added)), tuple(sorted(moved))))
    for added, moved in results:
        print(f"added: {', '.join(added)}; moved or taken away: {', '.join(moved) or 'nothing'}")
    print(
        f"set-up: median {statistics.median(times):.0f} s, "
        f"{min(times):.0f} to {max(times):.0f} s (n={len(times)}), {version}"
    )


if __name__ == "__main__":
    main()
