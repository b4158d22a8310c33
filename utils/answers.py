"""The store of answers: a file of JSON lines that grows as answers come, so that a run that dies loses none.

Splits, reports and judgements are kept in such files. Of several processes that share the work, the first
appends to the file itself, `answers.jsonl`, the second to `answers.1.jsonl` beside it, and so on, which needs
no locks: Google Drive has none. They are read as one.
"""

import json
import os
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from .processes import rank

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def files_of(path: Path) -> list[Path]:
    """The file `path` and those of other processes beside it, as far as they are there."""
    name = re.compile(rf"{re.escape(path.stem)}(\.\d+)?{re.escape(path.suffix)}")
    found = [one for one in path.parent.glob("*") if name.fullmatch(one.name)]
    return sorted(found, key=lambda one: (len(one.name), one.name))


class AnswerFile:
    """A file of JSON lines, read when it is opened and appended to line by line.

    path: the file; None keeps nothing
    what: what a line holds, as messages say it: "an answer of a judge"
    take: called with each entry that the file holds; raises KeyError or TypeError for one that is not `what`
    error: raised with one sentence, which names the file, for one that is not ours
    header: the first line, where the file has one

    What other processes have left beside it is read, too. A line that a kill
    cut off is left out, and said in a warning. Runs that know nothing of each
    other may append to one file: each line is one write at its end.
    """

    def __init__(
        self,
        path: Path | None,
        what: str,
        take: Callable[[dict], None],
        error: type[Exception],
        header: dict | None = None,
    ):
        self.path = self._first = Path(path) if path else None
        if not self.path:
            return
        self._what, self._take, self._error = what, take, error
        self._header = json.dumps(header).encode() if header else None
        self._read: dict[Path, tuple[int, int]] = {}  # of each file the bytes and lines that were taken
        if rank():
            self.path = self.path.with_suffix(f".{rank()}{self.path.suffix}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_off = [path.name for path in files_of(self._first) if self._take_new(path)]
        if header and (not self.path.exists() or self._header not in self.path.read_bytes().split(b"\n")):
            self.add(header)
        for name in cut_off:
            warnings.warn(f"{name}: ignored a line that was cut off while it was written.", stacklevel=4)

    def more(self) -> None:
        """Take what this and other processes have added since the file was read."""
        for path in files_of(self._first):
            self._take_new(path)

    def _take_new(self, path: Path) -> int:
        """Take the entries that are new in a file; the number of lines that do not end, or never will."""
        start, before = self._read.get(path, (0, 0))
        with path.open("rb") as file:
            file.seek(start)
            content = file.read()
        lines, cut_off = content.split(b"\n"), 0
        if self._header and not start and self._header not in lines and not self._header.startswith(content):
            raise self._error(f"{path} does not have {self._what} on each line. Name another file.")
        for number, line in enumerate(lines, before + 1):
            if not line or (self._header and self._header.startswith(line)):
                continue
            try:
                self._take(json.loads(line))
            except (json.JSONDecodeError, UnicodeDecodeError):  # the latter: cut off inside a letter
                cut_off += 1
                if not line.startswith(b"{"):
                    raise self._error(_foreign(path, number, self._what)) from None
            except (KeyError, TypeError):
                raise self._error(_foreign(path, number, self._what)) from None
        self._read[path] = (start + len(content) - len(lines[-1]), before + len(lines) - 1)
        return cut_off

    def add(self, entry: dict) -> None:
        """Append `entry`, in the file at once."""
        if not self.path:
            return
        # Half a character (a lone surrogate), which UTF-8 cannot hold, becomes JSON's own escape.
        line = json.dumps(entry, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        with self.path.open("a+b", buffering=0) as file:
            _lock(file)
            file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
            after_half_a_line = file.read(1) not in (b"", b"\n")  # of another run that was killed
            file.write(b"\n" * after_half_a_line + line)


def _lock(file: BinaryIO) -> None:
    """Hold `file` for this process alone until it is closed, where the system and the disk know locks."""
    if fcntl:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)


def _foreign(path: Path, number: int, what: str) -> str:
    return f"{path}, line {number} is not {what}. Move the file to another folder."
