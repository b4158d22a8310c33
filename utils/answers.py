"""The store of answers: a file of JSON lines that grows as answers come, so that a run that dies loses none.

Splits, reports and judgements are kept in such files.
"""

import json
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class AnswerFile:
    """A file of JSON lines, read when it is opened and appended to line by line.

    path: the file; None keeps nothing
    what: what a line holds, as messages say it: "an answer of a judge"
    take: called with each entry that the file holds; raises KeyError or TypeError for one that is not `what`
    error: raised with one sentence, which names the file, for one that is not ours
    header: the first line, where the file has one

    A line that a kill cut off is left out, and said in a warning. Several
    processes may append to one file: each line is one write at its end.
    """

    def __init__(
        self,
        path: Path | None,
        what: str,
        take: Callable[[dict], None],
        error: type[Exception],
        header: dict | None = None,
    ):
        self.path = Path(path) if path else None
        if not self.path:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = self.path.read_bytes() if self.path.exists() else b""
        lines, first = content.split(b"\n"), json.dumps(header).encode()
        if header and first not in lines:
            if not first.startswith(content):
                raise error(f"{self.path} does not have {what} on each line. Name another file.")
            self.add(header)
        cut_off = 0
        for number, line in enumerate(lines, 1):
            if not line or (header and first.startswith(line)):
                continue
            try:
                take(json.loads(line))
            except (json.JSONDecodeError, UnicodeDecodeError):  # the latter: cut off inside a letter
                cut_off += line.startswith(b"{")
                if not line.startswith(b"{"):
                    raise error(_foreign(self.path, number, what)) from None
            except (KeyError, TypeError):
                raise error(_foreign(self.path, number, what)) from None
        if cut_off:
            warnings.warn(
                f"{self.path.name}: ignored a line that was cut off while it was written.", stacklevel=4
            )

    def add(self, entry: dict) -> None:
        """Append `entry`, in the file at once."""
        if not self.path:
            return
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
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
