"""Disks that come and go, as Google Drive does: whole writes, trying again, what waits until they are back.

Drive is mounted by a program of its own. It may stop ("Transport endpoint is not connected"), be full, or
come back later. What it deletes stays in its trash.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from . import machine

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

Result = TypeVar("Result")
PATIENCE = 30.0  # seconds in which a disk that is away is tried again
WAITING = Path.home() / ".cache" / "xray_reports" / "waiting"  # lines for files that cannot be written
ADVICE = (
    'Mount its disk again, in Colab by drive.mount("/content/drive", force_remount=True), then run this cell '
    "again."
)
_AWAY = "ENOTCONN EIO ESTALE ETIMEDOUT ECONNABORTED ECONNRESET EHOSTDOWN EAGAIN EBUSY"
AWAY = {getattr(errno, name) for name in _AWAY.split() if hasattr(errno, name)}


class DiskError(OSError):
    """A disk that stayed away, or is full; the message says which, why, and what to do."""

    def __str__(self) -> str:
        return self.strerror


def number_of(error: OSError) -> int | None:
    """The errno of an error; of a folder's copy, that of its first file."""
    if not isinstance(error, shutil.Error):
        return error.errno
    match = re.search(r"\[Errno (\d+)\]", str(error))  # it holds texts only
    return int(match[1]) if match else None


def reason_of(error: OSError) -> str:
    """Why a disk did not do it, in the system's words: `No space left on device`."""
    number = number_of(error)
    return os.strerror(number) if number else str(error.strerror or error)


def is_away(error: BaseException) -> bool:
    """Whether `error` says that a disk is away, and may come back; a DiskError says that it did not."""
    return isinstance(error, OSError) and not isinstance(error, DiskError) and number_of(error) in AWAY


def patiently(act: Callable[[], Result], path: Path) -> Result:
    """What `act` gives, which needs `path`. While the disk is away, it is tried again for `PATIENCE`
    seconds. Raises DiskError where it stays away, and any other error at once."""
    stop, wait = stop_after_delay(PATIENCE), wait_exponential(max=8)
    try:
        return Retrying(retry=retry_if_exception(is_away), stop=stop, wait=wait, reraise=True)(act)
    except OSError as error:
        if not is_away(error):
            raise
        text = f"{path} cannot be reached ({reason_of(error)}). {ADVICE}"
        raise DiskError(number_of(error), text) from error


def make_folder(folder: Path) -> None:
    """Make `folder` where it is not there. Raises DiskError where it is on a Drive that is not mounted."""
    if machine.in_colab() and folder.is_relative_to(machine.DRIVE) and not machine.DRIVE.exists():
        raise DiskError(errno.ENOENT, f"{folder} is on Google Drive, which is not mounted. {ADVICE}")
    folder.mkdir(parents=True, exist_ok=True)


def listed(folder: Path) -> list[Path]:
    """What a folder holds, sorted; nothing where it is not there. Unlike `glob`, raises where it is away."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def discard(path: Path) -> None:
    """Delete a file or a folder, if it is there. Its files are emptied first: Drive's trash keeps them."""
    is_folder = path.is_dir() and not path.is_symlink()
    for file in path.rglob("*") if is_folder else [path]:
        if file.is_file() and not file.is_symlink() and file.stat().st_nlink == 1:  # else others need it
            with suppress(PermissionError):  # a file that is read only can be deleted all the same
                os.truncate(file, 0)
    if is_folder:
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replacing_file(path: Path):
    """A temporary file that takes the place of `path` if all goes well, and vanishes if not."""
    make_folder(path.parent)
    # Processes that share the work may write the same file, such as the features of a block.
    temporary = path.with_name(f".{path.name}{os.environ.get('RANK', '')}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        discard(temporary)


@contextmanager
def replacing(folder: Path):
    """A temporary folder that takes the place of `folder` if all goes well, and vanishes if not."""
    temporary, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("part", "old"))
    discard(temporary)
    make_folder(temporary)
    try:
        yield temporary
    except BaseException:
        with suppress(OSError):  # what is left of it is swept away the next time
            discard(temporary)
        raise
    # What is replaced is not emptied: a process that has its weights or rows mapped would be killed.
    if old.exists():
        shutil.rmtree(old)
    if folder.exists():
        folder.replace(old)
    temporary.replace(folder)
    with suppress(OSError):
        shutil.rmtree(old)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""

    def digest() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return patiently(digest, path)


def write_text(path: Path, text: str) -> Path:
    """Write a text file as a whole or not at all; where its disk is away, as `patiently` says."""

    def write() -> None:
        with replacing_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    patiently(write, path)
    return path


def write_json(path: Path, content: dict) -> Path:
    """Write a JSON file as a whole or not at all."""
    return write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path):
    """What a JSON file holds; where its disk is away, as `patiently` says."""
    return json.loads(patiently(lambda: path.read_text(encoding="utf-8"), path))


def read_note(path: Path) -> dict:
    """What a JSON file holds, as `read_json` reads it; `{}` where it is not there or damaged."""
    with suppress(FileNotFoundError, NotADirectoryError, ValueError):
        return read_json(path)
    return {}


# Lines that wait


def append(path: Path, line: bytes) -> None:
    """Add a line to the end of a file, in one write. Raises OSError where that was perhaps not done."""
    with path.open("a+b", buffering=0) as file:
        _lock(file)
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        after_half_a_line = file.read(1) not in (b"", b"\n")  # of another run that was killed
        whole = b"\n" * after_half_a_line + line
        if file.write(whole) < len(whole):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def waits_at(path: Path) -> Path:
    """The file on this machine's own disk where lines for `path` wait."""
    path = path.absolute()  # not resolved: links on a disk that is away cannot be followed
    return WAITING / path.relative_to(path.anchor)


def keep_here(path: Path, line: bytes) -> None:
    """Keep a line for `path` until it can be added there."""
    waiting = waits_at(path)
    waiting.parent.mkdir(parents=True, exist_ok=True)
    append(waiting, line)


def catch_up(path: Path) -> int:
    """Add the lines that wait for `path`, each once; their number. Raises OSError, and loses none then."""
    waiting = waits_at(path)
    if not waiting.exists():
        return 0
    with waiting.open("r+b") as file:
        _lock(file)
        lines = [line for line in dict.fromkeys(file.read().split(b"\n")) if _is_whole(line)]
        if lines:
            present = set(path.read_bytes().split(b"\n")) if path.exists() else set()
            append(path, b"".join(line + b"\n" for line in lines if line not in present))
        file.truncate(0)
    return len(lines)


def catch_up_below(folder: Path) -> None:
    """Add the lines that wait for files below `folder`. Raises DiskError where that cannot be done yet."""
    kept = waits_at(folder)
    for waiting in sorted(path for path in kept.rglob("*") if path.is_file()):
        path = folder / waiting.relative_to(kept)
        try:
            patiently(lambda path=path: catch_up(path), path)
        except OSError as error:
            text = f"{path} cannot be written ({reason_of(error)}), and lacks what waits in {waiting}. "
            raise DiskError(number_of(error), f"{text}If it is full, free some space. {ADVICE}") from error


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:  # nothing, or a line that a kill cut off
        return False
    return True


def _lock(file: BinaryIO) -> None:
    """Hold `file` for this process alone until it is closed, where the system and the disk know locks."""
    if fcntl:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
