"""Archives: brought here by HTTP, taken up where a connection dropped, and unpacked with care.

tenacity asks again, gdown answers Google Drive's question, the standard library unpacks. To receive is our
own: gdown 5.2 joins the halves of two versions, and an error page to a part; pooch 1.9 starts again after
each drop.
"""

import lzma
import shutil
import sys
import tarfile
import textwrap
import zipfile
import zlib
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from stat import S_ISLNK

import requests
from bs4 import BeautifulSoup
from gdown.download import get_url_from_gdrive_confirmation
from gdown.exceptions import FileURLRetrievalError
from tenacity import Future, RetryError, Retrying, retry_if_exception_type, wait_fixed
from tqdm import tqdm

from utils.regions import tidy
from utils.run.disk import read_note, write_json

from .studies import DataError

ATTEMPTS = 5  # in a row that bring no new byte
PAUSE = 5.0  # seconds between two
TIMEOUT = (20, 60)  # seconds: to connect, and between two bytes
MOST_BYTES = 40 * 2**30  # of an unpacked archive; the whole collection as PNG takes about 14 GiB
_CHUNK = 2**16  # bytes; at most so many are lost with a connection
_BYTES = {"unit": "B", "unit_scale": True, "ncols": 90}  # of a progress bar
_MOST_LETTERS = 160  # of a page that came in place of a file
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)


def drive_address(file_id: str) -> str:
    """Where a public file on Google Drive is downloaded; `confirm` spares the question before large ones."""
    return f"https://drive.usercontent.google.com/download?id={file_id}&export=download&confirm=t"


def fetch(url: str, target: Path, label: str) -> Path:
    """The file at `url`, downloaded to `target`. Google Drive's question before large files is answered.

    What came before a connection was lost stays in `<target>.part`. The next attempt, or call, goes on from
    there where the server still has the same version and sends parts of it, and else starts again. Raises
    DataError where the server refuses, sends a page in place of a file, or stops sending.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, sizes = target.with_name(f"{target.name}.part"), deque(maxlen=ATTEMPTS)
    retrying = Retrying(
        retry=retry_if_exception_type(requests.RequestException),
        before=lambda _: sizes.append(_size(part)),
        stop=lambda _: len(sizes) == ATTEMPTS and _size(part) <= sizes[0],
        wait=wait_fixed(PAUSE),
        before_sleep=lambda state: print(
            f"{label}: interrupted by {_reason(state.outcome)}; going on from {_size(part):,} bytes."
        ),
    )
    try:
        retrying(_receive, url, part, label)
    except RetryError as error:
        raise DataError(
            f"{label} cannot be downloaded: {ATTEMPTS} attempts in a row brought nothing, the last "
            f"ended by {_reason(error.last_attempt)}. Run this cell again to go on from what has come."
        ) from None
    part.replace(target)
    Path(f"{part}.json").unlink()
    return target


def extract(archive: Path, folder: Path, most_bytes: int = MOST_BYTES) -> None:
    """Unpack a zip or tar archive to `folder`, after a look at the names and sizes of all that it holds.

    Raises DataError for an archive that is damaged, that holds a link, a path which leads out of `folder` or
    a file that would be written over another, or that unpacks to more than `most_bytes` or than the disk has
    free. What was written by then stays.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                items = opened.infolist()
                for item in items:
                    item.filename = _safe(archive, item.filename, S_ISLNK(item.external_attr >> 16))
                sizes = [(item.filename, item.file_size) for item in items if not item.is_dir()]
                _check(archive, folder, sizes, most_bytes)
                opened.extractall(folder, items)
        else:
            with tarfile.open(archive) as opened:
                items = opened.getmembers()
                while opened.fileobj.read(_CHUNK):
                    pass  # to the very end, where gzip has its checksum
                for item in items:
                    item.name = _safe(archive, item.name, not (item.isfile() or item.isdir()))
                sizes = [(item.name, item.size) for item in items if item.isfile()]
                _check(archive, folder, sizes, most_bytes)
                opened.extractall(folder, items, filter="data")
    except DataError:
        raise
    except (*_DAMAGED, OSError, ValueError, RuntimeError) as error:
        unknown = isinstance(error, tarfile.ReadError)
        fault = "neither a zip nor a tar archive, or cut off" if unknown else tidy(str(error))
        raise DataError(f"{archive} cannot be unpacked ({fault}): delete it and download it again.") from None


class _Interrupted(requests.ConnectionError):
    """A download that another attempt may finish."""


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _receive(url: str, part: Path, label: str) -> None:
    """Ask for what is missing of the file at `url` and append it to `part`."""
    headers = {"Accept-Encoding": "identity"}
    note = Path(f"{part}.json")  # of which version of which file `part` is
    noted = read_note(note)
    if not (_size(part) and noted.get("url") == url and noted.get("bytes")):
        noted = {}
    total = noted.get("bytes", 0)  # 0 where nobody says
    if noted and _size(part) == total:
        return
    if noted:  # `If-Range` asks for the whole file where it has changed; requests leaves out what is None
        headers |= {"Range": f"bytes={_size(part)}-", "If-Range": noted["version"]}
    with requests.Session() as session:
        response = _ask(session, url, headers, label)
        if response.status_code not in (206, 416):
            if noted:
                print(f"{label}: the server sends it from the beginning.")
            total, tag = int(response.headers.get("Content-Length", 0)), response.headers.get("ETag", "W/")
            # A weak tag may stand for other bytes.
            version = response.headers.get("Last-Modified") if tag.startswith("W/") else tag
            part.unlink(missing_ok=True)
            write_json(note, {"url": url, "bytes": total, "version": version})
            part.touch()
        elif response.headers.get("Content-Range") != f"bytes {_size(part)}-{total - 1}/{total}":
            part.unlink(missing_ok=True)
            raise _Interrupted("a change of the file on the server")
        bar = tqdm(desc=label, total=total or None, initial=_size(part), file=sys.stdout, **_BYTES)
        with bar, part.open("ab") as file:
            for chunk in response.iter_content(_CHUNK):
                bar.update(file.write(chunk))
    if total and _size(part) != total:
        raise _Interrupted(f"an end after {_size(part):,} of {total:,} bytes")


def _ask(session: requests.Session, url: str, headers: dict, label: str) -> requests.Response:
    """The server's answer to a request for a file, of which nothing but the head is read."""
    response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    if _is_page(response):
        with suppress(FileURLRetrievalError, LookupError, AssertionError):  # another page
            confirmed = get_url_from_gdrive_confirmation(tidy(response.text))
            response = session.get(confirmed, headers=headers, stream=True, timeout=TIMEOUT)
    status, reason = response.status_code, response.reason
    if status >= 500:
        raise _Interrupted(f"the server's answer {status} {reason}")
    if _is_page(response):
        words = BeautifulSoup(response.content, "html.parser").get_text(" ")
        reason = textwrap.shorten(words, _MOST_LETTERS, placeholder=" ...") or "without a word"
    if _is_page(response) or 400 <= status != 416:
        fault = f"the server answers {status}" if status >= 400 else "in its place came a page"
        raise DataError(f"{label} cannot be downloaded: {fault} ({reason}).")
    return response


def _is_page(response: requests.Response) -> bool:
    return response.headers.get("Content-Type", "").startswith("text/html")


def _reason(attempt: Future) -> str:
    """What interrupted a download; an error of the library's own is only named, as its text is long."""
    error = attempt.exception()
    return str(error) if isinstance(error, _Interrupted) else f"a {type(error).__name__}"


def _safe(archive: Path, name: str, special: bool) -> str:
    """A name in an archive, with / as on Unix. Refuses links and what leads out; the libraries do not."""
    path = PureWindowsPath(name)
    if special or path.anchor or ".." in path.parts:
        raise DataError(f"{archive} holds {name!r}, a link or a path that leads out: do not use it.")
    return name.replace("\\", "/")


def _check(archive: Path, folder: Path, sizes: list[tuple[str, int]], most_bytes: int) -> None:
    """Raise DataError unless all files of an archive, by name and size, fit, each in a place of its own."""
    size = sum(size for _, size in sizes)
    if size > most_bytes:
        raise DataError(f"{archive} unpacks to more than {most_bytes:,} bytes: do not use it.")
    folder.mkdir(parents=True, exist_ok=True)
    for path, times in Counter(PurePosixPath(name) for name, _ in sizes).items():
        if times > 1 or (folder / path).exists():
            raise DataError(f"{archive} holds {str(path)!r}, which would be written over another file.")
    if size > (free := shutil.disk_usage(folder).free):
        sizes = f"{size:,} bytes where {free:,} are free"
        raise DataError(f"{archive} unpacks to {sizes}: make room and run this cell again.")
