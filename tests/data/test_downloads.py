"""Downloads over real HTTP on the loopback address, with the faults of real servers; and unpacking."""

import json
import tarfile
import zipfile
from pathlib import Path

import file_server
import numpy as np
import pytest
from file_server import File

from utils.data import downloads
from utils.data.downloads import extract, fetch
from utils.data.studies import DataError

CONTENT = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0)
    server = file_server.start()
    yield server
    server.shutdown()
    server.server_close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_leaves_nothing_beside_it(tmp_path, server, capsys):
    server.files["/a"] = File(CONTENT)
    target = fetch(f"{server.url}/a", tmp_path / "new" / "a.zip", "the archive")
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["a.zip"]
    assert "the archive" in capsys.readouterr().out


def test_a_dropped_connection_is_taken_up_where_it_dropped(tmp_path, server, capsys):
    server.files["/a"] = File(CONTENT, drops=[1_000_000, 500_000])
    assert fetch(f"{server.url}/a", tmp_path / "a", "it").read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=983040-", "bytes=1441792-"]  # of 64 KiB each
    assert "going on from 983,040 bytes" in capsys.readouterr().out


def test_a_later_call_goes_on_too(tmp_path, server):
    server.files["/a"] = File(CONTENT, drops=[700_000, *[0] * 9])
    with pytest.raises(DataError, match=r"it cannot be downloaded: 5 attempts.*Run this cell again"):
        fetch(f"{server.url}/a", tmp_path / "a", "it")
    assert names(tmp_path) == ["a.part", "a.part.json"]
    server.files["/a"].drops.clear()
    assert fetch(f"{server.url}/a", tmp_path / "a", "it").read_bytes() == CONTENT
    assert server.asked[-1] == ("/a", "bytes=655360-")
    assert names(tmp_path) == ["a"]


def test_a_server_that_knows_no_parts_is_asked_for_all_of_it(tmp_path, server, capsys):
    server.files["/a"] = File(CONTENT, drops=[1_000_000], ranges=False)
    assert fetch(f"{server.url}/a", tmp_path / "a", "it").read_bytes() == CONTENT
    assert "sends it from the beginning" in capsys.readouterr().out


def test_a_server_that_begins_again_each_time_is_not_asked_for_ever(tmp_path, server):
    server.files["/a"] = File(CONTENT, drops=[500_000, 900_000] * 9, ranges=False)
    with pytest.raises(DataError, match="5 attempts in a row"):
        fetch(f"{server.url}/a", tmp_path / "a", "it")


@pytest.mark.parametrize("tag", ['"2"', 'W/"2"'])
def test_a_file_that_changed_meanwhile_is_not_mixed_of_two(tmp_path, server, tag):
    server.files["/a"] = File(CONTENT, drops=[1_000_000, *[0] * 9], tag=tag.replace("2", "1"))
    with pytest.raises(DataError):
        fetch(f"{server.url}/a", tmp_path / "a", "it")
    server.files["/a"] = File(other := CONTENT[::-1] + b"more", tag=tag)
    assert fetch(f"{server.url}/a", tmp_path / "a", "it").read_bytes() == other


def test_a_part_that_lacks_nothing_is_the_file(tmp_path, server):
    server.files["/a"] = File(CONTENT)
    (tmp_path / "a.part").write_bytes(CONTENT)
    note = {"url": f"{server.url}/a", "bytes": len(CONTENT), "version": '"1"'}
    (tmp_path / "a.part.json").write_text(json.dumps(note))
    assert fetch(f"{server.url}/a", tmp_path / "a", "it").read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("note", ["{", "{}", '{"url": "http://other/", "bytes": 9, "version": null}', None])
def test_a_part_of_something_else_is_not_used(tmp_path, server, note):
    server.files["/a"] = File(CONTENT)
    (tmp_path / "a.part").write_bytes(b"something")
    if note:
        (tmp_path / "a.part.json").write_text(note)
    assert fetch(f"{server.url}/a", tmp_path / "a", "it").read_bytes() == CONTENT


def test_a_server_that_does_not_say_how_long_the_file_is(tmp_path, server):
    server.files["/a"] = File(CONTENT, says_length=False)
    assert fetch(f"{server.url}/a", tmp_path / "a", "it").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (File(b"", 404), r"it cannot be downloaded: the server answers 404 \(Not Found\)"),
        (
            File(b"<title>Google Drive - Quota  exceeded</title>", kind="text/html; charset=utf-8"),
            r"in its place came a page \(Google Drive - Quota exceeded\)",
        ),
        (
            File(
                b"<title>Quota</title><style>p {}</style><p>Too many\nusers.</p>" + b"<p>More</p>" * 99,
                kind="text/html",
            ),
            r"a page \(Quota Too many users\. (More )+\.\.\.\)",
        ),
        (File(b"<title>Sign in</title>", 403, "text/html"), r"answers 403 \(Sign in\)"),
        (File(b'<form id="download-form">', kind="text/html"), "in its place came a page"),
        (File(b"<p>", kind="text/html"), "a page .without a word"),
        (File(b"busy", 503), "5 attempts.*503 Service Unavailable"),
    ],
)
def test_what_is_not_the_file_is_told_and_not_kept(tmp_path, server, answer, words):
    server.files["/a"] = answer
    with pytest.raises(DataError, match=words):
        fetch(f"{server.url}/a", tmp_path / "a", "it")
    assert names(tmp_path) == []


def test_a_server_that_is_not_there_is_told(tmp_path, server):
    with pytest.raises(DataError, match="ended by a ConnectionError"):
        fetch("http://127.0.0.1:9/", tmp_path / "a", "it")


def test_google_drives_question_before_a_large_file_is_answered(tmp_path, server):
    page = f"""<html><head><title>Google Drive - Virus scan warning</title></head><body>
        <form id="download-form" action="{server.url}/download" method="get">
        <input type="hidden" name="id" value="abc"><input type="hidden" name="confirm" value="t">
        <input type="hidden" name="uuid" value="1-2"><input type="submit" value="Download anyway"></form>"""
    server.files["/uc"] = File(page.encode(), kind="text/html", ranges=False)
    server.files["/download"] = File(CONTENT, drops=[1_000_000])
    assert fetch(f"{server.url}/uc?id=abc", tmp_path / "a", "it").read_bytes() == CONTENT
    assert server.asked[1] == ("/download?id=abc&confirm=t&uuid=1-2", None)
    assert server.asked[3][1] == "bytes=983040-"


def test_the_address_on_google_drive_names_the_file():
    assert "id=abc&" in downloads.drive_address("abc")


# unpacking


def make_zip(path: Path, members: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def link_zip(path: Path) -> Path:
    link = zipfile.ZipInfo("images/CXR2")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc")
    return path


def make_tar(path: Path, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Path:
    with tarfile.open(path, "w") as archive:
        item = tarfile.TarInfo(name)
        item.type, item.linkname = kind, link
        archive.addfile(item)
    return path


def twice_tar(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for name in ("a", "./a"):
            archive.addfile(tarfile.TarInfo(name))
    return path


def damaged(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[50_000] ^= 1
    path.write_bytes(content)
    return path


def cut_off(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-200])
    return path


def large_tar(path: Path, packed: str = "gz") -> Path:
    (path.parent / "noise").write_bytes(CONTENT[:100_000])
    with tarfile.open(path, f"w:{packed}") as archive:
        archive.add(path.parent / "noise", "noise")
    return path


def broken_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "CXR2")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"CXR2", b"CXR5"))  # no longer what its checksum says
    return path


def page(path: Path) -> Path:
    path.write_text("<html>Sign in to download</html>")
    return path


REFUSED = {
    "zip ..": (lambda path: make_zip(path, {"images/../../evil": "x"}), "leads out"),
    "zip absolute": (lambda path: make_zip(path, {"/evil": "x"}), "leads out"),
    "zip backslash": (lambda path: make_zip(path, {"..\\evil": "x"}), "leads out"),
    "zip drive": (lambda path: make_zip(path, {"C:/evil": "x"}), "leads out"),
    "zip link": (link_zip, "leads out"),
    "tar ..": (lambda path: make_tar(path, "../evil"), "leads out"),
    "tar absolute": (lambda path: make_tar(path, "/evil"), "leads out"),
    "tar backslash": (lambda path: make_tar(path, "a\\..\\..\\evil"), "leads out"),
    "tar link inside": (lambda path: make_tar(path, "a", tarfile.SYMTYPE, "b"), "leads out"),
    "tar link": (lambda path: make_tar(path, "images", tarfile.SYMTYPE, "/etc"), "leads out"),
    "tar hard link": (lambda path: make_tar(path, "images", tarfile.LNKTYPE, "/etc/passwd"), "leads out"),
    "tar device": (lambda path: make_tar(path, "images", tarfile.CHRTYPE), "leads out"),
    "zip twice": (lambda p: make_zip(p, {"a/b": "x", "a\\b": "y"}), "'a/b', which would be written over"),
    "tar twice": (twice_tar, "'a', which would be written over"),
    "zip folder and file": (lambda path: make_zip(path, {"a": "x", "a/b": "y"}), "cannot be unpacked"),
    "zip without a name": (lambda path: make_zip(path, {".": "x"}), "'.', which would be written over"),
    "tgz damaged": (lambda path: damaged(large_tar(path)), "CRC check failed"),
    "xz damaged": (lambda path: damaged(large_tar(path, "xz")), "cannot be unpacked"),
    "too large": (lambda path: make_zip(path, {"a": b" " * 2_000_000}), "more than 1,000,000 bytes"),
    "broken": (broken_zip, "cannot be unpacked"),
    "zip cut off": (lambda path: cut_off(make_zip(path, {"a": CONTENT[:9000]})), "or cut off"),
    "tgz cut off": (lambda path: cut_off(large_tar(path)), "cannot be unpacked"),
    "a page": (page, "neither a zip nor a tar archive"),
    "missing": (lambda path: path, "cannot be unpacked"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_archive_that_is_not_what_it_should_be_is_refused(tmp_path, case):
    make, words = REFUSED[case]
    archive = make(tmp_path / "archive")
    with pytest.raises(DataError) as caught:
        extract(archive, tmp_path / "inner" / "data", most_bytes=1_000_000)
    assert words in str(caught.value) and str(archive) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("evil"))


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "archive", {"a": "12345"})
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 4}))
    with pytest.raises(DataError, match="unpacks to 5 bytes where 4 are free: make room"):
        extract(archive, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_text("mine")
    for make in (lambda path: make_zip(path, {"b": "x", "a": "x"}), lambda path: make_tar(path, "a")):
        with pytest.raises(DataError, match="'a', which would be written over another file"):
            extract(make(tmp_path / "archive"), tmp_path / "data")
    assert names(tmp_path / "data") == ["a"] and (tmp_path / "data/a").read_text() == "mine"


def test_zip_and_tar_are_unpacked_and_names_written_on_windows_become_folders(tmp_path):
    members = {"q\\images\\": b"", "q\\images\\CXR2\\0.png": b"png"}
    extract(make_zip(tmp_path / "zip", members), tmp_path / "z")
    assert (tmp_path / "z/q/images/CXR2/0.png").read_bytes() == b"png"
    extract(make_tar(tmp_path / "tar", "q\\images\\0.png"), tmp_path / "w")
    assert (tmp_path / "w/q/images/0.png").is_file()
    extract(large_tar(tmp_path / "tgz"), tmp_path / "t")
    assert (tmp_path / "t/noise").read_bytes() == CONTENT[:100_000]
