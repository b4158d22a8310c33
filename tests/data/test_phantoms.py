"""Phantoms: the same from the same seed, true in pixels and in words, and written whole or not at all."""

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from utils.data import drawing
from utils.data.anatomy import SIGN, Frontal, Lateral
from utils.data.phantoms import SPLITS, PhantomError, draw, stream, write
from utils.data.wording import LEFT_OUT, PLACES, SHARED, SIDES, VALUES, Attributes, original, report, sample
from utils.regions import ALL, REGIONS

COUNTS = {"train": 8, "val": 4, "test": 3}


def pixels(kind=Frontal, views=6, **attributes) -> np.ndarray:
    """`views` pictures (views, 256, 256) of one finding, of different patients."""
    seen = Attributes(**attributes)
    drawn = (kind(seen, np.random.default_rng(k), 256).view() for k in range(views))
    return np.stack([np.asarray(view, float) for view in drawn])


def patch(pictures: np.ndarray, side: str, x: tuple[float, float], y: tuple[float, float]) -> float:
    """Mean grey between two distances from the midline, on one side, and two heights."""
    near, far = sorted(round(256 * (0.5 + SIGN[side] * distance)) for distance in x)
    return pictures[:, round(256 * y[0]) : round(256 * y[1]), near:far].mean()


@pytest.fixture(scope="module")
def normal() -> np.ndarray:
    return pixels()


@pytest.fixture(scope="module")
def reports() -> list[tuple[Attributes, dict[str, str], str]]:
    rng = np.random.default_rng(0)
    drawn = [sample(rng) for _ in range(1200)]
    written = [(seen, report(seen, rng)) for seen in drawn]
    return [(seen, findings, original(seen, findings, rng)) for seen, findings in written]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("phantoms") / "set", **COUNTS, seed=5, size=128, processes=2)


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The set on disk


def test_the_layout_is_the_quiz_archives(folder):
    annotation = json.loads((folder / "annotation.json").read_text())
    assert {split: len(entries) for split, entries in annotation.items()} == COUNTS
    ids = [entry["id"] for split in SPLITS for entry in annotation[split]]
    assert ids == [f"PHANTOM{k:04}" for k in range(1, 16)]
    for split in SPLITS:
        for entry in annotation[split]:
            assert set(entry) == {"id", "split", "original_report" if split == "val" else "report"}
            assert entry["split"] == split
            assert split == "val" or set(entry["report"]) == set(ALL)
            names = sorted(path.name for path in (folder / "images" / entry["id"]).iterdir())
            assert names in (["0.png"], ["0.png", "1.png"])
    with Image.open(folder / "images" / ids[0] / "0.png") as view:
        assert (view.mode, view.size, view.format) == ("L", (128, 128), "PNG")


def test_the_truth_is_that_of_the_seed(folder):
    truth = json.loads((folder / "truth.json").read_text())
    entries = json.loads((folder / "annotation.json").read_text())["val"]
    for index, entry in enumerate(entries):
        phantom = draw((5, SPLITS.index("val"), index), size=128)
        assert truth[entry["id"]] == asdict(phantom.attributes)
        assert entry["original_report"] == phantom.original
        with Image.open(folder / "images" / entry["id"] / "0.png") as view:
            assert view.tobytes() == phantom.views[0].tobytes()


def test_the_set_is_the_same_whatever_the_number_of_processes(folder, tmp_path):
    calls = []
    how = {"processes": 1, "progress": lambda *at: calls.append(at)}
    other = write(tmp_path / "b", **COUNTS, seed=5, size=128, **how)
    assert contents(folder) == contents(other)
    assert calls == [(k, 15) for k in range(1, 16)]


def test_a_finished_set_is_left_as_it_is_and_another_is_refused(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write(folder, **COUNTS, seed=5, size=128) == folder
    with pytest.raises(PhantomError, match="another set of phantoms"):
        write(folder, **COUNTS, seed=6, size=128)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["annotation.json", "phantoms.json"])
def test_a_foreign_folder_is_refused_and_not_touched(tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("mine")
    with pytest.raises(PhantomError, match="not a finished set"):
        write(tmp_path / "mine", **COUNTS, seed=5)
    assert contents(tmp_path) == {f"mine/{name}": b"mine"}


def test_a_broken_off_set_leaves_nothing(tmp_path):
    def stop(done, number):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set", 2, 0, 0, seed=1, size=64, processes=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_counts_and_sizes_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(PhantomError, match="at least 0 studies"):
        write(tmp_path / "set", -1, 0, 0, seed=1)
    with pytest.raises(PhantomError, match="at least 64 pixels"):
        write(tmp_path / "set", 1, 0, 0, seed=1, size=20)


# Phantoms in memory


def test_a_seed_gives_one_phantom_and_the_stream_others():
    one, again, other = draw((3, 0, 0)), draw((3, 0, 0)), next(stream(3, 1))
    assert one.views[0].tobytes() == again.views[0].tobytes() and one.findings == again.findings
    assert one.views[0].tobytes() != other.views[0].tobytes()


def test_about_one_study_in_ten_has_no_lateral_view():
    views = [len(phantom.views) for phantom in stream(3, 120, size=64)]
    assert len(views) == 120 and set(views) == {1, 2} and 3 <= views.count(1) <= 24


def test_attributes_take_known_values_only():
    with pytest.raises(
        ValueError, match=r"heart is one of normal, mildly enlarged, markedly enlarged, not 'big'"
    ):
        Attributes(heart="big")


def test_each_region_is_abnormal_in_about_half_of_the_studies(reports):
    for region in REGIONS:
        share = np.mean([seen.abnormal(region) for seen, _, _ in reports])
        assert 0.42 < share < 0.55, region
    for name, values in VALUES.items():
        assert {getattr(seen, name) for seen, _, _ in reports} == set(values)


def test_regions_are_left_out_as_often_as_in_iu_xray_whatever_they_show(reports):
    for region in REGIONS:
        for abnormal in (False, True):
            empty = [not found[region] for seen, found, _ in reports if seen.abnormal(region) == abnormal]
            assert np.mean(empty) == pytest.approx(LEFT_OUT[region], abs=0.06), region


# The words


TERMS = {
    "heart": "cardiomegaly|enlarged",
    "effusion": "effusion|blunt",
    "opacity": "opacity|consolidation|airspace",
    "nodule": "nodule",
    "pneumothorax": "pneumothorax",
    "mediastinum": "widen",
    "aorta": "tortuous",
    "fracture": "fracture",
    "scoliosis": "scoliosis",
    "spine": "osteophyte|degenerative|spondylosis",
    "clips": "clips",
}
DENIAL = re.compile(r"^(There is )?(no|negative)\b|\bnot\b", re.IGNORECASE)


def test_what_is_affirmed_is_drawn_and_what_is_drawn_is_affirmed(reports):
    region_of = {"heart": "heart", "mediastinum": "mediastinal", "aorta": "mediastinal", "clips": "others"}
    region_of |= dict.fromkeys(("effusion", "opacity", "nodule", "pneumothorax"), "lung")
    region_of |= dict.fromkeys(("fracture", "scoliosis", "spine"), "bone")
    for seen, findings, _ in reports:
        for name, terms in TERMS.items():
            text = findings[region_of[name]]
            said = [s for s in re.split(r"(?<=\.) ", text) if re.search(terms, s, re.IGNORECASE)]
            if not text:
                continue
            if not seen.found(name):
                assert all(DENIAL.search(sentence) for sentence in said), text
                continue
            assert len(said) == 1 and not DENIAL.search(said[0]), text
            value = getattr(seen, name)
            if value in (*SIDES, *PLACES) and name != "clips":
                assert all(word in said[0].lower() for word in value.split()), text
                others = {*SIDES, "upper", "lower"} - set(value.split())
                assert not any(word in said[0].lower() for word in others)


def test_normal_words_are_for_normal_regions(reports):
    normal = re.compile(r"\bclear\b|unremarkable|intact|normal limits|bony abnormality|sharp", re.IGNORECASE)
    for seen, findings, _ in reports:
        for region in REGIONS:
            if seen.abnormal(region) and region != "lung":
                assert not normal.search(findings[region]), findings[region]
        if seen.abnormal("lung"):
            assert "clear" not in findings["lung"]
        if seen.found("effusion"):
            assert "sharp" not in findings["lung"]


def test_a_study_is_worded_in_many_ways_and_in_few_sentences(reports):
    assert len({findings["heart"] for _, findings, _ in reports}) > 10
    most = {"lung": 4, "heart": 1, "mediastinal": 2, "bone": 3, "others": 1}
    for _, findings, _ in reports:
        assert all(findings[region].count(".") <= most[region] for region in ALL)
        assert not findings["lung"] or findings["lung"].count(".") >= 2


def test_the_original_holds_every_region_that_is_told(reports):
    orders = set()
    for seen, findings, text in reports:
        shared = [sentence for sentence in SHARED if sentence in text]
        assert not shared or not (seen.abnormal("heart") or seen.abnormal("mediastinal"))
        told = [region for region in ALL if findings[region]]
        whole = [region for region in told if findings[region] in text]
        assert set(told) - set(whole) <= ({"heart", "mediastinal"} if shared else set())
        orders.add(tuple(sorted(whole, key=lambda region: text.index(findings[region]))))
    assert len(orders) > 20
    assert 0.05 < np.mean([any(sentence in text for sentence in SHARED) for *_, text in reports]) < 0.35


# The pixels


def heart_breadth(pictures: np.ndarray) -> float:
    """Mean share of the row through the heart, inside the ribs, that is as bright as heart."""
    rows = pictures[:, 140:148, 45:211].mean(axis=1)
    return (rows > 150).mean()


def test_an_enlarged_heart_is_broader_in_both_views(normal):
    mild, marked = pixels(heart="mildly enlarged"), pixels(heart="markedly enlarged")
    assert heart_breadth(normal) + 0.05 < heart_breadth(mild) < heart_breadth(marked) - 0.05
    behind = slice(115, 150), slice(75, 160)
    lateral = [pixels(Lateral, heart=value)[:, *behind].mean() for value in VALUES["heart"]]
    assert lateral == sorted(lateral) and lateral[2] > lateral[0] + 15


@pytest.mark.parametrize("side", SIDES)
def test_an_effusion_whitens_its_own_costophrenic_angle(normal, side):
    other = SIDES[1 - SIDES.index(side)]
    corner = (0.24, 0.31), (0.58, 0.64)
    fluid = pixels(effusion=side)
    assert patch(fluid, side, *corner) > patch(normal, side, *corner) + 60
    assert patch(fluid, other, *corner) == pytest.approx(patch(normal, other, *corner), abs=12)
    assert patch(pixels(effusion="bilateral"), other, *corner) > patch(normal, other, *corner) + 60


def test_an_effusion_whitens_the_back_of_the_lateral_view():
    corner = slice(165, 180), slice(185, 205)
    assert pixels(Lateral, effusion="left")[:, *corner].mean() > pixels(Lateral)[:, *corner].mean() + 40


@pytest.mark.parametrize("finding", ["opacity", "nodule"])
@pytest.mark.parametrize("place", PLACES)
def test_a_lesion_brightens_its_own_zone_and_no_other(normal, finding, place):
    pictures = pixels(**{finding: place})
    for other in PLACES:
        side, zone = other.split()
        box = (0.19, 0.27), {"upper": (0.24, 0.33), "lower": (0.46, 0.55)}[zone]
        gain = patch(pictures, side, *box) - patch(normal, side, *box)
        assert gain > 25 if other == place else abs(gain) < 10, other


@pytest.mark.parametrize("side", SIDES)
def test_a_pneumothorax_is_black_along_its_own_wall(normal, side):
    other = SIDES[1 - SIDES.index(side)]
    rim = (0.27, 0.30), (0.30, 0.55)
    free = pixels(pneumothorax=side)
    assert patch(free, side, *rim) < patch(normal, side, *rim) - 12
    assert patch(free, other, *rim) == pytest.approx(patch(normal, other, *rim), abs=12)


def test_a_wide_mediastinum_is_white_on_both_sides_and_a_tortuous_aorta_on_the_left(normal):
    upper = ((0.08, 0.11), (0.24, 0.34))
    wide, tortuous = pixels(mediastinum="widened"), pixels(aorta="tortuous")
    for side in SIDES:
        assert patch(wide, side, *upper) > patch(normal, side, *upper) + 40
    assert patch(tortuous, "left", *upper) > patch(normal, "left", *upper) + 40
    assert patch(tortuous, "right", *upper) == pytest.approx(patch(normal, "right", *upper), abs=12)
    arch = slice(65, 80), slice(130, 185)
    assert pixels(Lateral, aorta="tortuous")[:, *arch].mean() > pixels(Lateral)[:, *arch].mean() + 8


@pytest.mark.parametrize("side", SIDES)
def test_scoliosis_bends_the_spine_to_its_side(normal, side):
    def column(pictures):
        """Where the brightest column of the lower chest lies, from the midline to `side`."""
        rows = pictures[:, 120:150, 88:168].mean(axis=(0, 1))
        smooth = np.convolve(rows, np.ones(15) / 15, mode="valid")
        return SIGN[side] * (smooth.argmax() + 7 + 88 - 128)

    assert column(pixels(scoliosis=side)) > column(normal) + 8


@pytest.mark.parametrize("side", SIDES)
def test_a_broken_rib_is_brighter_and_stepped_on_its_own_side(normal, side):
    other = SIDES[1 - SIDES.index(side)]
    lateral = (0.14, 0.32), (0.36, 0.56)

    def edges(pictures, at):
        """Mean of the steepest vertical steps of grey on one side, at 112 pixels."""
        images = (Image.fromarray(picture.astype(np.uint8)) for picture in pictures)
        small = np.stack([np.asarray(image.resize((112, 112)), float) for image in images])
        near, far = sorted(round(112 * (0.5 + SIGN[at] * distance)) for distance in lateral[0])
        box = small[:, round(112 * lateral[1][0]) : round(112 * lateral[1][1]), near:far]
        return np.sort(np.abs(np.diff(box, axis=1)).reshape(len(box), -1))[:, -12:].mean()

    broken = pixels(fracture=side)
    assert edges(broken, side) > edges(normal, side) + 8
    assert edges(broken, other) < edges(normal, other) + 4


def test_a_degenerative_spine_has_spurs_in_both_views(normal):
    beside_spine = (0.05, 0.065), (0.72, 0.95)
    spurs = pixels(spine="degenerative")
    for side in SIDES:
        assert patch(spurs, side, *beside_spine) > patch(normal, side, *beside_spine) + 3
    front = slice(100, 160), slice(172, 186)
    assert pixels(Lateral, spine="degenerative")[:, *front].mean() > pixels(Lateral)[:, *front].mean() + 8


def test_clips_are_metal_in_the_right_upper_abdomen(normal):
    def metal(pictures):
        return (pictures[:, 195:235, 64:104] > 250).sum(axis=(1, 2))

    assert metal(pixels(clips="right")).min() > 20 > metal(normal).max()


@pytest.mark.parametrize("kind", [Frontal, Lateral])
def test_every_view_is_labelled_a_phantom_and_only_its_corner_is_used(kind, monkeypatch):
    labelled = pixels(kind, views=2)
    monkeypatch.setattr(drawing, "LABEL", "")
    ink = np.abs(labelled - pixels(kind, views=2)) > 0
    label = slice(240, 256), slice(0, 64)
    letters = labelled[:, *label]
    assert ((letters > 170) & ink[:, *label])[0].sum() > 100
    assert ((letters < 60) & ink[:, *label])[1].sum() > 100
    ink[:, *label] = False
    assert not ink.any()


def test_the_left_is_marked(normal):
    assert (normal[:, 5:28, 228:250] > 200).sum() > 100
    assert (normal[:, 5:28, 6:28] > 200).sum() == 0
