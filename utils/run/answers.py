"""The store of answers: a file of JSON lines that grows as answers come, so that a run that dies loses none.

Of several processes that share the work, the first appends to the file itself, `answers.jsonl`, the second to
`answers.1.jsonl` beside it, and so on, which needs no locks: Google Drive has none. They are read as one.
While a file cannot be written, because Drive is away or full, its lines wait on this machine's own disk.
"""

import hashlib
import json
import re
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from . import disk
from .disk import DiskError, patiently, reason_of, waits_at
from .processes import rank, started

# How the official client asks a language model's server, whatever the question.
MAX_RETRIES = 8  # per request, by the client itself: 429 (it honours Retry-After), 5xx, dropped connections
TIMEOUT = 120.0  # seconds per request
PAUSE = 30.0  # seconds between two tries to write a file that could not be written
Take = Callable[[dict], None]


def key_of(*parts: str) -> str:
    """The key under which the answer to a question with these parts is kept: their SHA-256."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def files_of(path: Path) -> list[Path]:
    """The file `path` and those of other processes beside it, as far as they are there."""
    name = re.compile(rf"{re.escape(path.stem)}(\.\d+)?{re.escape(path.suffix)}")
    files = [file for file in patiently(lambda: disk.listed(path.parent), path) if name.fullmatch(file.name)]
    return sorted(files, key=lambda file: (len(file.name), file.name))


class AnswerFile:
    """A file of JSON lines, read when it is opened and appended to line by line.

    path: the file; None keeps nothing
    what: what a line holds, as messages say it: "an answer of a judge"
    take: called with each entry that the file holds; raises KeyError or TypeError for one that is not `what`
    error: raised with one sentence, which names the file, for one that is not ours, and where a line can be
        kept nowhere
    header: the first line, where the file has one

    It warns of a line that a kill cut off. Runs that know nothing of each other may append to one file: each
    line is one write at its end. Raises DiskError where the file cannot be read.
    """

    def __init__(
        self, path: Path | None, what: str, take: Take, error: type[Exception], header: dict | None = None
    ):
        self.path = self._first = Path(path) if path else None
        if not self.path:
            return
        self._what, self._take, self._error = what, take, error
        self._header = json.dumps(header).encode() if header else None
        self._read: dict[Path, tuple[int, int]] = {}  # of each file the bytes and lines that were taken
        self._next_try = 0.0  # to write the file; 0: it can be written
        if rank():
            self.path = self.path.with_suffix(f".{rank()}{self.path.suffix}")
        patiently(lambda: disk.make_folder(self.path.parent), self.path)
        self._catch_up()
        files = [*files_of(self._first), *files_of(waits_at(self._first))]
        cut_off = [file.name for file in files if self._take_new(file)]
        if header and (not self.path.exists() or self._header not in self.path.read_bytes().split(b"\n")):
            self.add(header)
        for name in cut_off:
            warnings.warn(f"{name}: ignored a line that was cut off while it was written.", stacklevel=4)

    def more(self) -> None:
        """Take what this and other processes have added since then, also while the disk is away."""
        with suppress(DiskError):  # the rest is read the next time
            for file in files_of(self._first):
                self._take_new(file)
        for file in files_of(waits_at(self._first)):
            self._take_new(file)

    def _take_new(self, path: Path) -> int:
        """Take the entries that are new in a file; the number of lines that do not end, or never will."""
        waits = path.parent != self._first.parent  # such a file is emptied again
        start, before = (0, 0) if waits else self._read.get(path, (0, 0))

        def read() -> bytes:
            with path.open("rb") as file:
                file.seek(start)
                return file.read()

        content = patiently(read, path)
        lines, cut_off, first = content.split(b"\n"), 0, not start and not waits
        if self._header and first and self._header not in lines and not self._header.startswith(content):
            raise self._error(f"{path} does not have {self._what} on each line. Name another file.")
        for number, line in enumerate(lines, before + 1):
            if not line or (self._header and self._header.startswith(line)):
                continue
            try:
                self._take(json.loads(line))
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
                # The first two: cut off, the second inside a letter.
                if not (isinstance(error, ValueError) and line.startswith(b"{")):
                    text = f"{path}, line {number} is not {self._what}. Move the file to another folder."
                    raise self._error(text) from None
                cut_off += 1
        self._read[path] = (start + len(content) - len(lines[-1]), before + len(lines) - 1)
        return cut_off

    def add(self, entry: dict) -> None:
        """Append `entry`, in the file at once, or as soon as it can be written again."""
        if not self.path:
            return
        # Half a character (a lone surrogate), which UTF-8 cannot hold, becomes JSON's own escape.
        line = json.dumps(entry, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        if self._next_try:
            self._keep_here(line)
            if time.monotonic() >= self._next_try:
                self._catch_up()
            return
        try:
            patiently(lambda: disk.append(self.path, line), self.path)
        except OSError as error:
            self._keep_here(line)
            self._wait(error)

    def _keep_here(self, line: bytes) -> None:
        try:
            disk.keep_here(self.path, line)
        except OSError as error:
            raise self._error(
                f"Neither {self.path} nor {waits_at(self.path)} can be written ({reason_of(error)}). Free "
                "some space, then run this cell again: what was kept so far is not asked for again."
            ) from error

    def _wait(self, error: OSError) -> None:
        if not self._next_try:
            tqdm.write(
                f"{self.path} cannot be written ({reason_of(error)}). What comes is kept in "
                f"{waits_at(self.path)}, which goes with this machine, until it can be. The work continues."
            )
        self._next_try = time.monotonic() + PAUSE

    def _catch_up(self) -> None:
        """Add what waits: this process's lines, and those of others where no other is at work."""
        waiting = files_of(waits_at(self._first)) if started() == 1 else [waits_at(self.path)]
        try:
            for path in waiting:
                if number := disk.catch_up(self.path.with_name(path.name)):
                    tqdm.write(f"{number:,} lines that waited are in {self.path.with_name(path.name)} now.")
            self._next_try = 0.0
        except OSError as error:
            self._wait(error)
