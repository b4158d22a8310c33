"""Small models and real tokenizers in published form, made once by the versions of their time."""

import hashlib
import os
import subprocess
from pathlib import Path

from filelock import FileLock

from utils.run.disk import replacing

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE.parent / ".venv-published"  # made by the Makefile from requirements-published.txt
PYTHON = ENVIRONMENT / "bin" / "python"
SCRIPTS = HERE / "published"


def folder() -> Path:
    """The fixtures, as `published/make.py` leaves them; made at the first call, and again when it changes.

    Raises FileNotFoundError where there is no environment to make them in.
    """
    if not PYTHON.exists():
        raise FileNotFoundError(f"{ENVIRONMENT.name} is missing: make {ENVIRONMENT.name}/ready")
    scripts = b"".join(path.read_bytes() for path in sorted(SCRIPTS.glob("*.py")))
    made = ENVIRONMENT / "models" / hashlib.sha256(scripts).hexdigest()[:16]
    with FileLock(ENVIRONMENT / "models.lock"):
        if not made.exists():
            with replacing(made) as new:
                command = [PYTHON, SCRIPTS / "make.py", ENVIRONMENT / "vocabularies", new]
                done = subprocess.run(command, env=offline(), capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(done.stderr)
    return made


def offline() -> dict[str, str]:
    """The environment for a program that must not ask the Hub."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def fill_cache(home: Path, fixtures: Path) -> None:
    """Put the fixtures under `home` as the Hub's cache has them, the real models' names on them."""
    from utils.judge.green import GREEN_MODEL
    from utils.models.bases import REGISTRY

    base = REGISTRY["llava-v1.6-mistral-7b"]
    models = {
        base.processor: fixtures / "llava-v1.6-mistral-7b",
        base.weights: fixtures / "copies" / "vision-in-4-bits",
        GREEN_MODEL: fixtures / "green",
    }
    for name, model in models.items():
        repository = home / "hub" / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("0" * 40)
        (repository / "snapshots").mkdir()
        (repository / "snapshots" / ("0" * 40)).symlink_to(model)
