"""Where studies come from: real archives from a server on the loopback address."""

import io
import json
import re
import tarfile
import zipfile
from pathlib import Path

import file_server
import pytest
from file_server import File
from PIL import Image
from test_studies import annotation, make_folder

from utils.data import downloads, sources
from utils.data.sources import SOURCES, open_data, origin
from utils.data.studies import DataError, load_studies
from utils.run import workspace
from utils.run.disk import file_hash
from utils.run.workspace import Workspace

IDS = ("CXR1_IM-0001", "CXR2_IM-0002", "CXR3_IM-0003", "CXR4_IM-0004")
REGIONS = {"lung": "Clear."}
QUIZ = annotation(
    train=[{"id": IDS[0], "report": REGIONS}, {"id": IDS[1], "report": REGIONS}],
    val=[{"id": IDS[2], "original_report": "Clear lungs."}],
    test=[{"id": IDS[3], "report": REGIONS}],
)
UNSPLIT = {split: [{"id": study["id"], "report": "Clear lungs."} for study in QUIZ[split]] for split in QUIZ}
NOWHERE = "http://127.0.0.1:9/"


def png(grey: int = 90) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), grey).save(file, format="PNG")
    return file.getvalue()


def zipped(members: dict[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in members.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
    return file.getvalue()


def quiz_zip(ids: tuple[str, ...] = IDS, content: dict = QUIZ, view: bytes | None = None) -> bytes:
    images = {f"iu/images/{study}/0.png": view or png() for study in ids}
    return zipped({"iu/annotation_quiz_all.json": json.dumps(content), **images})


_VIEWS = {f"iu_xray/images/{study}/{n}.png": png() for study in IDS for n in (0, 1)}
R2GEN = zipped({"iu_xray/annotation.json": json.dumps(UNSPLIT), **_VIEWS})
_SHADES = {"2001": 20, "1001": 10}
_VIEWS = {f"{study}-{view}.png": png(grey) for study in IDS for view, grey in _SHADES.items()}
OPENI = tarred({**_VIEWS, "CXR99_IM-0099-1001.png": png()})


@pytest.fixture
def server(monkeypatch):
    """Serves the three archives in place of their publishers."""
    monkeypatch.setattr(downloads, "PAUSE", 0)
    monkeypatch.setattr(sources, "IU_XRAY_STUDIES", {"train": 2, "val": 1, "test": 1})
    server = file_server.start()
    table = []
    for source, path, content in zip(
        SOURCES, ("/quiz", "/r2gen", "/openi"), (quiz_zip(), R2GEN, OPENI), strict=True
    ):
        server.files[path] = File(content)
        table.append(source._replace(url=server.url + path))
    monkeypatch.setattr(sources, "SOURCES", tuple(table))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def ws(tmp_path):
    return Workspace(tmp_path / "run")


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """Colab's two places: the run's folder on Drive, and a local disk that a new session finds empty."""
    local = iter(tmp_path / f"session{n}" / "data" for n in range(9))
    monkeypatch.setattr(sources, "DRIVE", tmp_path)
    monkeypatch.setattr(workspace.Workspace, "data", property(lambda _: next(local)))


@pytest.fixture
def given(tmp_path):
    """The quiz's annotation by itself, as a user may have it."""
    path = tmp_path / "annotation_quiz_all.json"
    path.write_text(json.dumps(QUIZ))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def paths(server) -> list[str]:
    return [path for path, _ in server.asked]


def test_a_folder_of_ones_own_comes_first_and_nothing_is_fetched(tmp_path, server, ws, monkeypatch, capsys):
    ours = make_folder(tmp_path / "ours")
    assert open_data(str(ours), "phantoms", ws) == ours
    assert f"your own folder {ours}" in capsys.readouterr().out
    assert origin(ours) == {"source": "the folder ours"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no annotation\.json: name the folder"):
        open_data(tmp_path / "empty", "iu_xray", ws)
    with pytest.raises(DataError, match="is not there: name a folder, table, archive, annotation"):
        open_data(tmp_path / "gone.zip", "iu_xray", ws)
    assert server.asked == []


def test_an_archive_of_ones_own_is_unpacked_once(tmp_path, ws, capsys):
    archive = tmp_path / "my_hospital.tar.gz"
    files = {"d/annotation.json": json.dumps(QUIZ).encode(), f"d/images/{IDS[0]}/0.png": png()}
    archive.write_bytes(tarred(files))
    data = open_data(archive, "iu_xray", ws)
    assert data.name == "my_hospital" and load_studies(data)["train"][0].images
    assert origin(data)["sha256"] == file_hash(archive) and origin(data)["studies_without_view"] == 3
    assert "1 views can be opened; 3 of 4 studies, such as CXR2_IM-0002, have none" in capsys.readouterr().out
    assert open_data(archive, "iu_xray", ws) == data
    assert "unpacked earlier" in capsys.readouterr().out
    archive.write_bytes(quiz_zip())
    with pytest.raises(DataError, match="holds other studies than"):
        open_data(archive, "iu_xray", ws)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped({"readme.txt": "x"}), "holds no annotation.json or annotation_quiz_all.json"),
        (zipped({"annotation.json": json.dumps(QUIZ)}), "has no images/<id>/0.png"),
        (zipped({"q/annotation.json": "{"}), "mine.zip/q/annotation.json is not JSON"),
        (zipped({"../annotation.json": "{"}), "leads out"),
        (quiz_zip(view=b"no picture"), "has no images/<id>/0.png"),
    ],
)
def test_an_archive_that_holds_no_studies_leaves_nothing(tmp_path, ws, content, words):
    archive = tmp_path / "mine.zip"
    archive.write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_data(archive, "iu_xray", ws)
    assert words in str(caught.value) and str(archive) in str(caught.value)
    assert list((ws.root / "unpacked").iterdir()) == [] and archive.read_bytes() == content


def test_the_quiz_archive_is_downloaded_once_and_leaves_only_the_studies(server, ws, capsys):
    data = open_data("", "iu_xray", ws)
    assert data == ws.data and all(study.images for group in load_studies(data).values() for study in group)
    assert open_data("", "iu_xray", ws) == data
    assert paths(server) == ["/quiz"] and names(ws.root) == ["data"]
    said = capsys.readouterr().out
    assert "Downloading the quiz's archive." in said and "every study has one or more" in said
    assert "here already" in said
    found = origin(data)
    assert found["studies"] == {"train": 2, "val": 1, "test": 1} and found["views"] == 4
    assert len(found["sha256"]) == 64 and "no checksum is published" in found["checksum"]


def test_colab_keeps_one_archive_on_drive_and_unpacks_it_in_the_next_session(server, ws, colab, capsys):
    first = open_data("", "iu_xray", ws)
    assert names(ws.root) == ["archives"]
    assert names(ws.root / "archives") == ["iu_xray_quiz.archive", "iu_xray_quiz.archive.json"]
    assert names(first.parent) == ["data"]
    second = open_data("", "iu_xray", ws)
    assert second != first and load_studies(second)["test"][0].images
    assert paths(server) == ["/quiz"] and origin(second) == origin(first)
    assert "kept in" in capsys.readouterr().out


def test_a_kept_archive_that_changed_is_passed_over_and_replaced(server, ws, colab, capsys):
    open_data("", "iu_xray", ws)
    kept = ws.root / "archives" / "iu_xray_quiz.archive"
    kept.write_bytes(kept.read_bytes()[:-100])
    open_data("", "iu_xray", ws)
    assert "has changed since it was saved" in capsys.readouterr().out
    assert paths(server) == ["/quiz", "/quiz"] and kept.read_bytes() == server.files["/quiz"].content


def test_a_drive_that_is_full_is_told_and_stops_nothing(server, ws, colab, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sources.shutil, "copyfile", full)
    assert load_studies(open_data("", "iu_xray", ws))
    assert "could not be kept" in capsys.readouterr().out and names(ws.root / "archives") == []


QUOTA = File(b"<title>Google Drive - Quota exceeded</title>", kind="text/html")


def test_without_the_quiz_archive_the_others_say_what_they_lack_and_are_not_downloaded(server, ws, capsys):
    server.files["/quiz"] = QUOTA
    with pytest.raises(DataError, match=r"No source gave IU X-Ray.*name the file in DATA"):
        open_data("", "iu_xray", ws)
    said = capsys.readouterr().out
    assert "Quota exceeded" in said
    assert "R2Gen's archive lacks findings by region" in said and "Open-i's archive lacks" in said
    assert paths(server) == ["/quiz"] and not ws.data.exists()


@pytest.mark.parametrize(
    "quiz",
    [File(b"", 404), QUOTA, File(quiz_zip()[:-300]), File(b"not an archive"), File(quiz_zip(ids=IDS[:2]))],
    ids=["gone", "quota", "cut off", "no archive", "images missing"],
)
def test_with_the_annotation_given_the_next_source_gives_the_images(server, ws, given, quiz, capsys):
    server.files["/quiz"] = quiz
    data = open_data(given, "iu_xray", ws)
    assert (data / "annotation.json").read_bytes() == given.read_bytes()
    assert all(len(study.images) == 2 for group in load_studies(data).values() for study in group)
    assert origin(data)["source"] == "R2Gen's archive" and paths(server) == ["/quiz", "/r2gen"]
    assert "Downloading R2Gen's archive, which lacks" in capsys.readouterr().out
    assert names(ws.root) == ["data"]


def test_r2gens_annotation_alone_gets_its_images(server, ws, tmp_path, capsys):
    path = tmp_path / "annotation.json"
    entries = {
        split: [{**study, "image_path": [f"{study['id']}/0.png"], "split": split} for study in UNSPLIT[split]]
        for split in UNSPLIT
    }
    path.write_text(json.dumps(entries))
    data = open_data(path, "iu_xray", ws)
    everyone = load_studies(data)
    assert {split: [study.id for study in group] for split, group in everyone.items()} == {
        split: [study["id"] for study in UNSPLIT[split]] for split in UNSPLIT
    }
    assert all(study.images and study.findings is None for study in everyone["train"])
    assert open_data(path, "iu_xray", ws) == data and paths(server) == ["/quiz"]
    assert "step 1 splits them by region" in capsys.readouterr().out


@pytest.mark.parametrize("report", [REGIONS, None])
def test_an_annotation_of_the_quiz_that_names_image_paths_stays_the_quizs(tmp_path, ws, report):
    folder = make_folder(tmp_path / "ours")
    content = json.loads((folder / "annotation.json").read_text())
    study = {"id": "CXR1", "image_path": ["CXR1/0.png"], "original_report": "Clear.", "report": report}
    content["train"] = [study]
    (folder / "annotation.json").write_text(json.dumps({**content, "val": [], "test": []}))
    assert open_data(folder, "iu_xray", ws) == folder
    assert load_studies(folder)["train"][0].original_report == "Clear."


def test_openis_files_become_the_views_of_their_studies(server, ws, given):
    server.files["/quiz"] = server.files["/r2gen"] = File(b"", 404)
    data = open_data(given, "iu_xray", ws)
    first = load_studies(data)["train"][0]
    assert [Image.open(path).getpixel((0, 0)) for path in first.images] == [10, 20]
    assert not (data / "images" / "CXR99_IM-0099").exists()


def test_the_annotation_that_is_given_must_have_regions_and_must_not_change(server, ws, given):
    unsplit = given.with_name("unsplit.json")
    unsplit.write_text(json.dumps(UNSPLIT))
    with pytest.raises(DataError, match="not split into regions"):
        open_data(unsplit, "iu_xray", ws)
    assert server.asked == []
    assert open_data(given, "iu_xray", ws) == open_data(given, "iu_xray", ws)
    given.write_text(json.dumps({**QUIZ, "test": []}))
    with pytest.raises(DataError, match="another annotation than"):
        open_data(given, "iu_xray", ws)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (UNSPLIT, "not split into regions"),
        ({**QUIZ, "test": []}, r"has 2/1/0 where IU X-Ray has 2/1/1 studies \(train/val/test\)"),
    ],
)
def test_an_archive_with_other_studies_is_not_taken(server, ws, content, words, capsys):
    server.files["/quiz"] = File(quiz_zip(content=content))
    with pytest.raises(DataError, match="No source gave"):
        open_data("", "iu_xray", ws)
    assert re.search(words, capsys.readouterr().out) and not ws.data.exists()


def test_what_is_at_the_place_already_is_not_touched(server, ws):
    ws.data.mkdir(parents=True)
    (ws.data / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"has no annotation\.json"):
        open_data("", "iu_xray", ws)
    assert names(ws.data) == ["notes.txt"] and server.asked == []
    with pytest.raises(DataError, match="would be overwritten"):
        sources.unpack(ws.root, ws.data, {})


def test_phantoms_are_drawn_where_nothing_is_named(server, ws, monkeypatch):
    few = {"train": 2, "val": 1, "test": 1, "seed": 1, "processes": 1}
    monkeypatch.setattr(sources.phantoms, "DEMO_SET", few)
    data = open_data("", "phantoms", ws)
    assert [len(group) for group in load_studies(data).values()] == [2, 1, 1] and server.asked == []


def test_the_real_annotation_takes_images_in_either_layout(shared, server, ws, tmp_path):
    given = shared / "iu_xray" / "annotation_quiz_all.json"
    ids = [study.id for group in load_studies(given.parent).values() for study in group]
    server.files["/quiz"] = File(b"", 404)
    server.files["/r2gen"] = File(zipped({f"iu_xray/images/{study}/0.png": png() for study in ids}))
    data = open_data(given, "iu_xray", ws)
    assert origin(data)["studies"] == {"train": 2069, "val": 296, "test": 590}
    assert origin(data)["studies_without_view"] == 0
    server.files["/r2gen"] = File(b"", 404)
    server.files["/openi"] = File(tarred({f"{study}-1001.png": png() for study in ids}))
    data = open_data(given, "iu_xray", Workspace(tmp_path / "other"))
    assert origin(data)["source"] == "Open-i's archive" and origin(data)["views"] == 2955
