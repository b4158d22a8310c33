"""What gets installed where: Colab keeps every package that it ships."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

ADDED = {"trl", "bitsandbytes"}
# Left out of the constraints file, which other machines share: their torch is another.
COLABS_OWN = "torch==2.11.0\nsetuptools==75.2.0\n"
CUDA = re.compile(r"nvidia|cuda|triton|torch$|setuptools$")  # come with Colab's own build of torch


def pins(text: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([\w.!]+)", text, re.M)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.fixture(scope="module")
def resolved(tmp_path_factory):
    """What the resolver would install on Colab: name to version."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    assert uv, "uv is missing: it is in requirements-dev.txt"
    constraints = tmp_path_factory.mktemp("colab") / "constraints.txt"
    constraints.write_text((ROOT / "constraints-colab.txt").read_text() + COLABS_OWN)
    command = [uv, "pip", "compile", "requirements-colab.txt", "--constraint", str(constraints), "--quiet"]
    target = ["--python-version", "3.13", "--python-platform", "x86_64-manylinux_2_28"]
    done = subprocess.run([*command, *target], cwd=ROOT, capture_output=True, text=True)
    if "error sending request" in done.stderr or "dns error" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    return {name: version for name, version in pins(done.stdout).items() if not CUDA.match(name)}


def test_two_packages_are_added_and_none_is_moved(resolved):
    shipped = pins((ROOT / "constraints-colab.txt").read_text())
    assert set(resolved) - set(shipped) == ADDED
    assert {name: shipped[name] for name in resolved if name in shipped} == {
        name: version for name, version in resolved.items() if name in shipped
    }


def test_the_constraints_are_what_colab_ships(shared):
    freeze = pins((shared.parent / "colab" / "pip-freeze.gpu.txt").read_text())
    ours = pins((ROOT / "constraints-colab.txt").read_text())
    assert ours == {name: freeze[name] for name in ours}


def test_colab_gets_only_what_it_lacks(shared):
    freeze = pins((shared.parent / "colab" / "pip-freeze.gpu.txt").read_text())
    asked = pins((ROOT / "requirements-colab.txt").read_text())
    assert set(asked) == ADDED and not set(asked) & set(freeze)
