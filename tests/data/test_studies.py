"""Studies on disk: what is read, what is refused, and in which words."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.data import studies
from utils.data.studies import DataError, data_label, load_studies, read_view, write_annotation

REPORT = {"lung": "Clear.", "heart": "", "mediastinal": None, "bone": "No  acute\nfracture."}
REPORT["others"] = "A clip."


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


# the annotation


def test_studies_have_the_regions_they_mention_and_their_images_in_order(tmp_path):
    views = tuple(f"CXR1_IM-0001/{name}" for name in ("10.png", "2.JPG", "0.jpeg", "notes.png"))
    loaded = load_studies(make_folder(tmp_path, images=views))
    ids = {split: [study.id for study in group] for split, group in loaded.items()}
    assert ids == {"train": ["CXR1_IM-0001", "CXR2"], "val": ["CXR3"], "test": ["CXR4"]}
    first = loaded["train"][0]
    assert first.findings == {"lung": "Clear.", "bone": "No acute fracture.", "others": "A clip."}
    assert [path.name for path in first.images] == ["0.jpeg", "2.JPG", "10.png"]
    assert first.original_report == ""
    assert loaded["train"][1].images == ()
    assert (loaded["val"][0].findings, loaded["val"][0].original_report) == (None, "Clear lungs.")


def test_a_study_may_list_its_images_and_wait_for_its_split_in_any_part(tmp_path):
    train = [{"id": "CXR1", "original_report": "Clear lungs.", "images": ["b/9.png", "a.dcm"]}]
    folder = make_folder(tmp_path, annotation(train=train))
    (study,) = load_studies(folder)["train"]
    assert study.images == (tmp_path / "images/b/9.png", tmp_path / "images/a.dcm")
    assert (study.findings, study.original_report) == (None, "Clear lungs.")
    path = write_annotation(tmp_path / "out.json", folder, {"CXR1": {"lung": "Clear."}})
    assert load_studies(folder, path)["train"][0].findings == {"lung": "Clear."}


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
        ("[]", ("no list of studies named train or val or test",)),
        (annotation(val=None), ("named val:",)),
        (annotation(train=[{"report": REPORT}]), ("study number 1 of train has no id",)),
        (annotation(train=["CXR1"]), ("study number 1 of train has no id",)),
        (annotation(test=[{"id": "CXR9"}]), ("study CXR9 of test has no key report or original_report:",)),
        (annotation(train=[{"id": "CXR9", "report": {}, "images": "0"}]), ("CXR9", "not a list of paths")),
        (
            annotation(train=[{"id": "CXR9", "report": {}, "images": ["a/../../x.png"]}]),
            ("CXR9", "'a/../../x.png', which leads out of images/"),
        ),
        (
            annotation(train=[{"id": "CXR9", "report": {}, "images": ["/etc/x.png"]}]),
            ("CXR9", "'/etc/x.png', which leads out of images/"),
        ),
        (annotation(val=[{"id": "CXR9"}]), ("CXR9 of val has no key report or original_report",)),
        (annotation(val=[{"id": "C9", "original_report": 3}]), ("C9", "original_report that is not text")),
        (annotation(train=[{"id": "CXR9", "report": "Clear."}]), ("CXR9", "not split into regions")),
        (annotation(train=[{"id": "CXR9", "report": {"lungs": ""}}]), ("CXR9", "'lungs'", "mediastinal")),
        (annotation(train=[{"id": "CXR9", "report": {"lung": ["x"]}}]), ("CXR9", "lung that are not text")),
        (annotation(test=[{"id": "CXR2", "report": {}}]), ("CXR2 twice (train and test)",)),
        (annotation(val=[{"id": "V", "report": {}}] * 2), ("V twice (val)",)),
        (annotation(train=[{"id": "../x", "report": {}}]), ("'../x', which cannot name a folder",)),
        (annotation(train=[{"id": "..", "report": {}}]), ("'..', which cannot name a folder",)),
        (annotation(train=[{"id": "a/b", "report": {}}]), ("'a/b'",)),
        (annotation(train=[{"id": 7, "report": {}}]), ("id 7",)),
        (annotation(train=[{"id": "x" * 999, "report": {}}]), ("'xxx", "...", "which cannot name a folder")),
        (annotation(train=[{"id": "ä" * 128, "report": {}}]), ("which cannot name a folder",)),
        ("[" * 100_000 + "]" * 100_000, ("annotation.json is nested too deep",)),
    ],
)
def test_a_faulty_annotation_is_refused_in_one_sentence_that_names_the_place(tmp_path, content, words):
    with pytest.raises(DataError) as caught:
        load_studies(make_folder(tmp_path, content))
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".") and len(str(caught.value)) < 400


def test_a_folder_without_annotation_says_what_to_name(tmp_path):
    with pytest.raises(DataError, match=r"has no annotation\.json: name the folder"):
        load_studies(tmp_path)
    with pytest.raises(DataError, match=r"gone is not a folder"):
        load_studies(tmp_path / "gone")
    with pytest.raises(DataError, match=r"01_region_split"):
        load_studies(make_folder(tmp_path), tmp_path / "not_there.json")


def test_the_real_annotation_has_all_its_studies(shared):
    loaded = load_studies(shared / "iu_xray")
    assert {split: len(group) for split, group in loaded.items()} == studies.IU_XRAY_STUDIES
    ids = [study.id for group in loaded.values() for study in group if study.images]
    assert ids == ["CXR1900_IM-0584", "CXR7_IM-2263"]
    assert all(study.findings is None and study.original_report for study in loaded["val"])
    assert sum("bone" not in study.findings for study in loaded["train"]) == 894


def test_the_written_annotation_adds_the_validation_findings_and_nothing_else(tmp_path):
    val = [{"id": name, "original_report": "x", "split": "val"} for name in ("V1", "V2", "V3")]
    val[1]["report"] = {"heart": "Large."}
    folder = make_folder(tmp_path / "data", annotation(val=val))
    before = (folder / "annotation.json").read_bytes()
    findings = {"V1": {"lung": "Clear."}, "V2": {"lung": "Wrong."}}
    path = write_annotation(tmp_path / "out.json", folder, findings)
    written = json.loads(path.read_text())
    report = {"lung": "Clear.", "heart": "", "mediastinal": "", "bone": "", "others": ""}
    assert written == annotation(val=[{**val[0], "report": report}, *val[1:]])
    findings = [study.findings for study in load_studies(folder, path)["val"]]
    assert findings == [{"lung": "Clear."}, {"heart": "Large."}, None]
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


def test_an_id_may_be_as_long_as_a_folders_name(tmp_path):
    content = annotation(train=[{"id": "x" * 255, "report": REPORT}])
    folder = make_folder(tmp_path, content, images=(f"{'x' * 255}/0.png",))
    assert len(load_studies(folder)["train"][0].images) == 1


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_a_radiograph_is_turned_as_its_file_says(tmp_path, orientation, turns):
    stored = np.zeros((16, 32), np.uint8)
    stored[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "0.jpg", exif=exif, quality=100)
    view = np.asarray(read_view(tmp_path / "0.jpg", 64)).astype(int)
    expected = np.rot90(stored, turns)  # counter-clockwise
    assert view.shape == expected.shape and abs(view - expected).max() < 5


@pytest.mark.parametrize(
    "exif", [b"no orientation", b"Exif\0\0MM\0*\0\0\0\x08\0\x09", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_damaged_notes_of_a_camera_spoil_no_radiograph(tmp_path, exif):
    Image.new("L", (8, 8), 200).save(tmp_path / "0.jpg", exif=exif)
    assert read_view(tmp_path / "0.jpg", 64).getpixel((4, 4)) == 200


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
