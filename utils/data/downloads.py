"""Archives: brought here by HTTP, taken up where a connection dropped, and unpacked with care."""

import json
import shutil
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from pathlib import Path, PureWindowsPath
from stat import S_ISLNK
from typing import IO, NamedTuple

import requests
from tqdm import tqdm

from utils.regions import tidy
from utils.workspace import write_json

from .studies import DataError

ATTEMPTS = 5  # in a row that bring no new byte
PAUSE = 5.0  # seconds between two
TIMEOUT = (20, 60)  # seconds: to connect, and between two bytes
MOST_BYTES = 40 * 2**30  # of an unpacked archive; the whole collection as PNG takes about 14 GiB
_CHUNK = 2**16  # bytes; at most so many are lost with a connection
_BAD_ARCHIVE = (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError)


def drive_address(file_id: str) -> str:
    """Where a public file on Google Drive is downloaded; `confirm` spares the question before large ones."""
    return f"https://drive.usercontent.google.com/download?id={file_id}&export=download&confirm=t"


def fetch(url: str, target: Path, label: str) -> Path:
    """The file at `url`, downloaded to `target`.

    What came before a connection was lost stays in `<target>.part`. The next
    attempt, or the next call, goes on from there where the server still has
    the same version of the file and sends parts of it, and else starts again.
    Google Drive's question before large files is answered. Raises DataError
    where the server refuses, sends a page in place of a file, or stops sending.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, failures = _Part(target.with_name(f"{target.name}.part")), 0
    while True:
        before = part.size
        try:
            _receive(url, part, label)
            break
        except requests.RequestException as error:
            failures = 1 if part.size > before else failures + 1
            if failures == ATTEMPTS:
                raise DataError(
                    f"{label} cannot be downloaded: {ATTEMPTS} attempts in a row brought nothing, the last "
                    f"ended by {_reason(error)}. Run this cell again to go on from what has come."
                ) from None
            print(f"{label}: interrupted by {_reason(error)}; going on from {part.size:,} bytes.")
            time.sleep(PAUSE)
    part.path.replace(target)
    part.note.unlink()
    return target


def extract(archive: Path, folder: Path, most_bytes: int = MOST_BYTES) -> None:
    """Unpack a zip or tar archive to `folder`, after a look at the names and sizes of all that it holds.

    Raises DataError for an archive that is damaged, that holds a link or a
    path which leads out of `folder`, or that unpacks to more than
    `most_bytes` or than the disk has free. What was written by then stays.
    """
    try:
        with _members(archive) as members:
            _check(members, archive, folder, most_bytes)
            for member in members:
                if member.is_folder:
                    continue
                target = folder.joinpath(*member.path.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as source, target.open("xb") as copy:
                    shutil.copyfileobj(source, copy)
    except _BAD_ARCHIVE as error:
        kind = isinstance(error, tarfile.ReadError)
        reason = "neither a zip nor a tar archive, or cut off" if kind else tidy(str(error))
        raise DataError(
            f"{archive} cannot be unpacked ({reason}): delete it and download it again."
        ) from None


class _Interrupted(requests.ConnectionError):
    """A download that another attempt may finish."""


class _Part:
    """A download that is not finished, and a note that says of which version of which file."""

    def __init__(self, path: Path):
        self.path, self.note = path, path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def noted(self, url: str) -> dict:
        """`bytes` in all and `version` of the file at `url`, where this is a part of it; else nothing."""
        try:
            noted = json.loads(self.note.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return noted if self.size and noted.get("url") == url else {}

    def start(self, url: str, response: requests.Response) -> None:
        """Begin anew with the file that `response` brings."""
        length, tag = response.headers.get("Content-Length"), response.headers.get("ETag", "W/")
        # A weak tag may stand for other bytes.
        version = response.headers.get("Last-Modified") if tag.startswith("W/") else tag
        self.path.unlink(missing_ok=True)
        write_json(self.note, {"url": url, "bytes": int(length) if length else None, "version": version})
        self.path.touch()

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _receive(url: str, part: _Part, label: str) -> None:
    """Ask for what is missing of the file and append it to `part`."""
    noted, headers = part.noted(url), {"Accept-Encoding": "identity"}
    if noted:
        headers["Range"] = f"bytes={part.size}-"
        if noted["version"]:
            headers["If-Range"] = noted["version"]  # asks for the whole file where it has changed
    with requests.Session() as session, _answer(session, url, headers, label) as response:
        total = noted.get("bytes")
        if response.status_code in (206, 416):
            if not _goes_on(response, part.size, total):
                part.drop()
                raise _Interrupted("a change of the file on the server")
        else:
            if noted:
                print(f"{label}: the server sends it from the beginning.")
            part.start(url, response)
            total = int(response.headers.get("Content-Length", 0)) or None
        if response.status_code != 416:  # which says that nothing is missing
            bar = tqdm(
                desc=label,
                total=total,
                initial=part.size,
                unit="B",
                unit_scale=True,
                file=sys.stdout,
                ncols=90,
            )
            with bar, part.path.open("ab") as file:
                for chunk in response.iter_content(_CHUNK):
                    bar.update(file.write(chunk))
    if total and part.size != total:
        raise _Interrupted(f"an end after {part.size:,} of {total:,} bytes")


def _goes_on(response: requests.Response, size: int, total: int | None) -> bool:
    """Whether the server has the rest of a part of `size` bytes, or (416) says that there is no more."""
    content = response.headers.get("Content-Range", "")
    if response.status_code == 416:
        return content == f"bytes */{size}"
    return content.startswith(f"bytes {size}-") and content.endswith(f"/{total}")


@contextmanager
def _answer(session: requests.Session, url: str, headers: dict, label: str) -> Iterator[requests.Response]:
    """The server's answer to a request for a file."""
    response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    page = _page(response)
    if page and page.action:
        response = session.get(page.action, params=page.fields, headers=headers, stream=True, timeout=TIMEOUT)
        page = _page(response)
    with response:
        if response.status_code >= 500:
            raise _Interrupted(f"the server's answer {response.status_code} {response.reason}")
        if response.status_code >= 400 and response.status_code != 416:
            what = page.title if page and page.title else response.reason
            raise DataError(
                f"{label} cannot be downloaded: the server answers {response.status_code} ({what})."
            )
        if page:
            raise DataError(
                f"{label} cannot be downloaded: in its place came a page ({page.title or 'without a title'})."
            )
        yield response


class _Page(HTMLParser):
    """A page that came in place of a file: its title, and Google Drive's form to confirm a large download."""

    def __init__(self, text: str):
        super().__init__()
        self.title, self.action, self.fields = "", "", {}
        self.feed(text)
        self.title = tidy(self.title)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form" and given.get("id") == "download-form":
            self.action = given.get("action") or ""
        elif tag == "input" and given.get("type") == "hidden" and given.get("name"):
            self.fields[given["name"]] = given.get("value") or ""

    def handle_data(self, data: str) -> None:
        if self.lasttag == "title":
            self.title += data


def _page(response: requests.Response) -> _Page | None:
    if not response.headers.get("Content-Type", "").startswith("text/html"):
        return None
    return _Page(response.text)


def _reason(error: requests.RequestException) -> str:
    """What interrupted a download; an error of the library's own is only named, as its text is long."""
    return str(error) if isinstance(error, _Interrupted) else f"a {type(error).__name__}"


class _Member(NamedTuple):
    """One entry of an archive. `special`: neither a file nor a folder."""

    name: str
    size: int
    is_folder: bool
    special: bool
    open: Callable[[], IO[bytes]]

    @property
    def path(self) -> PureWindowsPath:
        return PureWindowsPath(self.name)  # reads both / and \


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield [
                _Member(item.filename, item.file_size, item.is_dir(), link, partial(opened.open, item))
                for item in opened.infolist()
                for link in [S_ISLNK(item.external_attr >> 16)]
            ]
    else:
        with tarfile.open(archive) as opened:
            yield [
                _Member(item.name, item.size, item.isdir(), special, partial(opened.extractfile, item))
                for item in opened.getmembers()
                for special in [not (item.isdir() or item.isfile())]
            ]


def _check(members: list[_Member], archive: Path, folder: Path, most_bytes: int) -> None:
    """Raise DataError unless every member lies in the folder, and all fit."""
    for member in members:
        if member.special or member.path.anchor or ".." in member.path.parts:
            raise DataError(
                f"{archive} holds {member.name!r}, a link or a path that leads out: do not use it."
            )
    size = sum(member.size for member in members)
    if size > most_bytes:
        raise DataError(f"{archive} unpacks to more than {most_bytes:,} bytes: do not use it.")
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{archive} unpacks to {size:,} bytes where {free:,} are free: make room and run this cell again."
        )
