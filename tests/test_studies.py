"""Studies on disk: what is read, what is refused and in which words, and the quiz's archive."""

import io
import json
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils import studies
from utils.studies import (
    DataError,
    data_label,
    download,
    find_data,
    load_studies,
    read_view,
    unpack,
    write_annotation,
)

REPORT = {
    "lung": "Clear.",
    "heart": "",
    "mediastinal": None,
    "bone": "No  acute\nfracture.",
    "others": "A clip.",
}


def annotation(**changes: object) -> dict:
    return {
        "train": [{"id": "CXR1_IM-0001", "report": REPORT}, {"id": "CXR2", "report": {"heart": "Large."}}],
        "val": [{"id": "CXR3", "original_report": "Clear lungs."}],
        "test": [{"id": "CXR4", "report": {"lung": "Clear."}}],
        **changes,
    }


def make_folder(
    folder: Path, content: object = None, images: tuple[str, ...] = ("CXR1_IM-0001/0.png",)
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content or annotation())
    (folder / "annotation.json").write_text(text)
    for name in images:
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 90).save(path)
    return folder


def make_zip(path: Path, members: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def png() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), 90).save(file, format="PNG")
    return file.getvalue()


def quiz_zip(path: Path, inside: str = "") -> Path:
    return make_zip(
        path,
        {
            f"{inside}annotation_quiz_all.json": json.dumps(annotation()),
            f"{inside}images/CXR1_IM-0001/0.png": png(),
        },
    )


# the annotation


def test_studies_have_the_regions_they_mention_and_their_images_in_order(tmp_path):
    views = tuple(f"CXR1_IM-0001/{name}" for name in ("10.png", "2.JPG", "0.jpeg", "notes.png"))
    loaded = load_studies(make_folder(tmp_path, images=views))
    assert {split: [study.id for study in group] for split, group in loaded.items()} == {
        "train": ["CXR1_IM-0001", "CXR2"],
        "val": ["CXR3"],
        "test": ["CXR4"],
    }
    first = loaded["train"][0]
    assert first.findings == {"lung": "Clear.", "bone": "No acute fracture.", "others": "A clip."}
    assert [path.name for path in first.images] == ["0.jpeg", "2.JPG", "10.png"]
    assert first.original_report == ""
    assert loaded["train"][1].images == ()
    assert (loaded["val"][0].findings, loaded["val"][0].original_report) == (None, "Clear lungs.")


def test_the_split_validation_set_is_read_in_place_of_the_folders_own(tmp_path):
    split = annotation(val=[{"id": "CXR3", "original_report": "Clear lungs.", "report": {"lung": "Clear."}}])
    other = tmp_path / "regions.json"
    other.write_text("\ufeff" + json.dumps(split), encoding="utf-8")
    loaded = load_studies(make_folder(tmp_path / "data"), other)
    assert loaded["val"][0].findings == {"lung": "Clear."}
    assert loaded["val"][0].original_report == "Clear lungs."
    assert len(loaded["train"][0].images) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ("annotation.json is not JSON",)),
        ("[]", ("no list of studies called train or val or test",)),
        (annotation(val=None), ("called val:",)),
        (annotation(train=[{"report": REPORT}]), ("study number 1 of train has no id",)),
        (annotation(train=["CXR1"]), ("study number 1 of train has no id",)),
        (annotation(test=[{"id": "CXR9"}]), ("study CXR9 of test has no key report:",)),
        (
            annotation(train=[{"id": "CXR9", "original_report": "x"}]),
            ("study CXR9 of train has no key report:",),
        ),
        (annotation(val=[{"id": "CXR9"}]), ("CXR9 of val has no key report or original_report",)),
        (
            annotation(val=[{"id": "CXR9", "original_report": 3}]),
            ("CXR9", "original_report that is not text"),
        ),
        (annotation(train=[{"id": "CXR9", "report": "Clear."}]), ("CXR9", "not split into regions")),
        (annotation(train=[{"id": "CXR9", "report": {"lungs": ""}}]), ("CXR9", "'lungs'", "mediastinal")),
        (annotation(train=[{"id": "CXR9", "report": {"lung": ["x"]}}]), ("CXR9", "lung that are not text")),
        (annotation(test=[{"id": "CXR2", "report": {}}]), ("CXR2 twice (train and test)",)),
        (annotation(val=[{"id": "V", "report": {}}] * 2), ("V twice (val)",)),
        (annotation(train=[{"id": "../x", "report": {}}]), ("'../x', which cannot name a folder",)),
        (annotation(train=[{"id": "..", "report": {}}]), ("'..', which cannot name a folder",)),
        (annotation(train=[{"id": "a/b", "report": {}}]), ("'a/b'",)),
        (annotation(train=[{"id": 7, "report": {}}]), ("id 7",)),
    ],
)
def test_a_faulty_annotation_is_refused_in_one_sentence_that_names_the_place(tmp_path, content, words):
    with pytest.raises(DataError) as caught:
        load_studies(make_folder(tmp_path, content))
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_folder_without_annotation_says_what_to_name(tmp_path):
    with pytest.raises(DataError, match=r"has no annotation\.json: name the folder"):
        load_studies(tmp_path)
    with pytest.raises(DataError, match=r"gone is not a folder"):
        load_studies(tmp_path / "gone")
    with pytest.raises(DataError, match=r"01_region_split"):
        load_studies(make_folder(tmp_path), tmp_path / "not_there.json")


def test_the_field_comes_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("XRAY_DATA", raising=False)
    assert find_data() is None
    ours, theirs = make_folder(tmp_path / "ours"), make_folder(tmp_path / "theirs")
    monkeypatch.setenv("XRAY_DATA", str(theirs))
    assert find_data() == theirs
    assert find_data(str(ours)) == ours
    with pytest.raises(DataError, match="elsewhere"):
        find_data(tmp_path / "elsewhere")


def test_the_real_annotation_has_all_its_studies(shared):
    loaded = load_studies(shared / "iu_xray")
    assert {split: len(group) for split, group in loaded.items()} == studies.IU_XRAY_STUDIES
    assert [study.id for group in loaded.values() for study in group if study.images] == [
        "CXR1900_IM-0584",
        "CXR7_IM-2263",
    ]
    assert all(study.findings is None and study.original_report for study in loaded["val"])
    assert sum("bone" not in study.findings for study in loaded["train"]) == 894


def test_the_written_annotation_adds_the_validation_findings_and_nothing_else(tmp_path):
    val = [{"id": name, "original_report": "x", "split": "val"} for name in ("V1", "V2", "V3")]
    val[1]["report"] = {"heart": "Large."}
    folder = make_folder(tmp_path / "data", annotation(val=val))
    before = (folder / "annotation.json").read_bytes()
    path = write_annotation(
        tmp_path / "out.json", folder, {"V1": {"lung": "Clear."}, "V2": {"lung": "Wrong."}}
    )
    written = json.loads(path.read_text())
    report = {"lung": "Clear.", "heart": "", "mediastinal": "", "bone": "", "others": ""}
    assert written == annotation(val=[{**val[0], "report": report}, *val[1:]])
    assert [study.findings for study in load_studies(folder, path)["val"]] == [
        {"lung": "Clear."},
        {"heart": "Large."},
        None,
    ]
    assert (folder / "annotation.json").read_bytes() == before


def test_the_label_says_what_the_studies_are(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "my_hospital")
    splits = load_studies(folder)
    assert data_label(folder, splits) == "studies of my_hospital"
    monkeypatch.setattr(studies, "IU_XRAY_STUDIES", {"train": 2, "val": 1, "test": 1})
    assert data_label(folder, splits) == "IU X-Ray"
    (folder / "phantoms.json").write_text('{"label": "drawn, not patients"}')
    assert data_label(folder, splits) == "drawn, not patients"


# radiographs


def saved(tmp_path: Path, image: Image.Image, name: str = "0.png") -> Path:
    image.save(tmp_path / name)
    return tmp_path / name


def test_sixteen_bits_are_stretched_over_the_images_own_range(tmp_path):
    samples = np.linspace(1000, 5000, 64, dtype=np.uint16).reshape(8, 8)
    view = read_view(saved(tmp_path, Image.fromarray(samples)), 64)
    assert view.mode == "L"
    expected = np.rint((samples.astype(float) - 1000) * 255 / 4000)
    assert np.array_equal(np.asarray(view), expected)


def test_sixteen_bits_of_one_value_are_black(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.full((8, 8), 700, np.uint16)))
    assert read_view(path, 64).getextrema() == (0, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_become_black(tmp_path, mode):
    grey = Image.new("L", (8, 8), 200)
    alpha = Image.new("L", (8, 8), 255)
    alpha.paste(0, (0, 0, 4, 8))
    image = grey.convert(mode)
    image.putalpha(alpha)
    pixels = np.asarray(read_view(saved(tmp_path, image), 64))
    assert pixels[:, :4].max() == 0
    assert pixels[:, 4:].min() == 200


@pytest.mark.parametrize(("mode", "name"), [("L", "0.png"), ("RGB", "0.jpg"), ("1", "0.png"), ("P", "0.png")])
def test_other_modes_become_grey(tmp_path, mode, name):
    view = read_view(saved(tmp_path, Image.new("L", (8, 8), 255).convert(mode), name), 64)
    assert view.mode == "L"
    assert view.getextrema() == (255, 255)


def test_only_larger_radiographs_are_scaled_and_keep_their_shape(tmp_path):
    path = saved(tmp_path, Image.effect_noise((120, 90), 40))
    assert read_view(path, 60).size == (60, 45)
    assert np.array_equal(np.asarray(read_view(path, 120)), np.asarray(Image.open(path)))
    assert read_view(path, 2000).size == (120, 90)


def test_a_damaged_radiograph_is_named(tmp_path):
    path = saved(tmp_path, Image.effect_noise((64, 64), 40))
    whole = path.read_bytes()
    wrong_byte = bytearray(whole)
    wrong_byte[len(whole) // 2] ^= 255
    for damaged in (whole[: len(whole) // 2], whole[:20], b"", b"not an image", bytes(wrong_byte)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"^{tmp_path.name}/0\.png cannot be read: "):
            read_view(path, 64)


def test_real_radiographs_are_read(shared):
    paths = [path for path in (shared / "radiographs").rglob("*") if path.suffix in (".png", ".jpg", ".jpeg")]
    assert paths
    for path in paths:
        view = read_view(path, 300)
        low, high = view.getextrema()
        assert (view.mode, max(view.size)) == ("L", 300)
        assert high - low > 100


# the archive


@pytest.mark.parametrize("inside", ["", "iu_xray/", "a/b/"])
def test_an_archive_is_unpacked_to_the_folder_of_its_annotation(tmp_path, inside):
    target = tmp_path / "new" / "data"
    assert unpack(quiz_zip(tmp_path / "quiz", inside), target) == target
    assert [path.name for path in load_studies(target)["train"][0].images] == ["0.png"]
    assert names(target.parent) == ["data"]  # no rest of the unpacking


def test_a_tar_archive_is_unpacked_too(tmp_path):
    source = make_folder(tmp_path / "source")
    with tarfile.open(tmp_path / "quiz", "w:gz") as archive:
        archive.add(source, "iu")
    target = unpack(tmp_path / "quiz", tmp_path / "data")
    assert load_studies(target)["train"][0].images


def test_names_written_on_windows_become_folders(tmp_path):
    members = {"q\\annotation.json": json.dumps(annotation()), "q\\images\\CXR2\\0.png": png()}
    target = unpack(make_zip(tmp_path / "quiz", members), tmp_path / "data")
    assert load_studies(target)["train"][1].images


def link_zip(path: Path) -> Path:
    link = zipfile.ZipInfo("images/CXR2")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc")
    return path


def tar_of(path: Path, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Path:
    with tarfile.open(path, "w") as archive:
        item = tarfile.TarInfo(name)
        item.type, item.linkname = kind, link
        archive.addfile(item)
    return path


def huge_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotation.json", b" " * 2_000_000)
    return path


def broken_zip(path: Path) -> Path:
    quiz_zip(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"CXR2")
    content[at : at + 4] = b"CXR5"  # no longer what its checksum says
    path.write_bytes(content)
    return path


def text(path: Path) -> Path:
    path.write_text("<html>Sign in to download</html>")
    return path


MALICIOUS = {
    "zip .. ": (lambda path: make_zip(path, {"images/../../evil": "x"}), "leads out"),
    "zip absolute": (lambda path: make_zip(path, {"/evil": "x"}), "leads out"),
    "zip backslash": (lambda path: make_zip(path, {"..\\evil": "x"}), "leads out"),
    "zip drive": (lambda path: make_zip(path, {"C:/evil": "x"}), "leads out"),
    "zip link": (link_zip, "leads out"),
    "tar .. ": (lambda path: tar_of(path, "../evil"), "leads out"),
    "tar link": (lambda path: tar_of(path, "images", tarfile.SYMTYPE, "/etc"), "leads out"),
    "tar hard link": (lambda path: tar_of(path, "images", tarfile.LNKTYPE, "/etc/passwd"), "leads out"),
    "tar device": (lambda path: tar_of(path, "images", tarfile.CHRTYPE), "leads out"),
    "too large": (huge_zip, "more than 1,000,000 bytes"),
    "broken": (broken_zip, "cannot be unpacked"),
    "no archive": (text, "cannot be unpacked"),
    "missing": (lambda path: path, "cannot be unpacked"),
    "foreign": (lambda path: make_zip(path, {"readme.txt": "x"}), "holds no annotation.json"),
    "no images": (
        lambda path: make_zip(path, {"annotation.json": json.dumps(annotation())}),
        "has no images",
    ),
    "faulty": (lambda path: make_zip(path, {"q/annotation.json": "{"}), "quiz/q/annotation.json is not JSON"),
}


@pytest.mark.parametrize("case", MALICIOUS)
def test_an_archive_that_is_not_what_it_should_be_leaves_nothing(tmp_path, case):
    make, words = MALICIOUS[case]
    inner = tmp_path / "inner"
    inner.mkdir()
    archive = make(tmp_path / "quiz")
    with pytest.raises(DataError) as caught:
        unpack(archive, inner / "data", most_bytes=1_000_000)
    assert words in str(caught.value)
    assert str(archive) in str(caught.value)
    assert list(inner.iterdir()) == []
    assert not list(tmp_path.rglob("evil"))


def test_what_is_at_the_target_stays(tmp_path):
    archive = quiz_zip(tmp_path / "quiz")
    target = tmp_path / "data"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="already there"):
        unpack(archive, target)
    assert [path.name for path in target.iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="already there"):
        unpack(archive, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert load_studies(unpack(archive, tmp_path / "empty"))["train"]


def test_another_number_of_studies_is_told(tmp_path):
    with pytest.raises(DataError, match=r"2/1/1 where IU X-Ray has 2,069/296/590 studies \(train/val/test\)"):
        unpack(quiz_zip(tmp_path / "quiz"), tmp_path / "data", expected=studies.IU_XRAY_STUDIES)
    assert not (tmp_path / "data").exists()


# the download, with a stand-in for gdown


@pytest.fixture
def drive(monkeypatch):
    """A Google Drive that holds the quiz's archive; the calls to it."""
    calls = []

    def fetch(*, id, output, resume):
        calls.append((id, resume))
        quiz_zip(Path(output))
        return output

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=fetch))
    monkeypatch.setattr(studies, "IU_XRAY_STUDIES", {"train": 2, "val": 1, "test": 1})
    return calls


def test_the_download_happens_once_and_leaves_only_the_studies(tmp_path, drive):
    target = tmp_path / "deep" / "iu_xray"
    assert download(target) == target
    assert download(target) == target
    assert drive == [("1cdcsyJtW8G2YYptlujzDAU-fMXOpew5K", True)]
    assert names(target.parent) == ["iu_xray"]


def test_a_wrong_download_is_told_and_kept_for_a_look(tmp_path, drive, monkeypatch):
    monkeypatch.setattr(studies, "IU_XRAY_STUDIES", {"train": 3, "val": 1, "test": 1})
    with pytest.raises(DataError, match=r"iu\.archive has 2/1/1 where IU X-Ray has 3/1/1"):
        download(tmp_path / "iu")
    assert names(tmp_path) == ["iu.archive"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: (folder / "notes.txt").write_text("mine"), "has no annotation.json"),
        (lambda folder: make_folder(folder, annotation(train=[])), "0/1/1 where IU X-Ray has 2/1/1"),
        (lambda folder: make_folder(folder, images=()), "has no images"),
    ],
)
def test_a_foreign_or_half_written_target_is_named_and_left_alone(tmp_path, drive, make, words):
    target = tmp_path / "iu"
    target.mkdir()
    make(target)
    before = sorted(target.rglob("*"))
    with pytest.raises(DataError) as caught:
        download(target)
    assert words in str(caught.value)
    assert str(target) in str(caught.value)
    assert sorted(target.rglob("*")) == before
    assert drive == []


def test_a_failed_download_says_how_to_do_it_by_hand(tmp_path, monkeypatch):
    def refuse(**_):
        raise RuntimeError("Too many users\nhave viewed this file")

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=refuse))
    with pytest.raises(
        DataError, match=r"Too many users have viewed.*https://drive\.google\.com/file/d/1cdc"
    ):
        download(tmp_path / "iu")
    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=lambda **_: None))
    with pytest.raises(DataError, match="nothing arrived"):
        download(tmp_path / "iu")
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(DataError, match="pip install gdown"):
        download(tmp_path / "iu")
