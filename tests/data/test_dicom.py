"""DICOM as a viewer shows it: window, lookup table, rescale, MONOCHROME1, and what is refused."""

import builtins

import dicom_files
import numpy as np
import pydicom.examples
import pytest
from dicom_files import RAMP

from utils.data import dicom
from utils.data.studies import DataError, read_view


def pixels(path) -> np.ndarray:
    view = read_view(path, 64)
    assert view.mode == "L"
    return np.asarray(view).ravel().astype(int)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "S1" / "a.dcm"


def test_without_a_window_twelve_bits_are_stretched_over_their_own_range(file):
    assert np.array_equal(pixels(dicom_files.write(file)), np.rint(np.arange(4096) * 255 / 4095))


def test_sixteen_signed_bits_are_right_too(file):
    samples = np.linspace(-30000, 30000, 4096).astype(np.int16).reshape(64, 64)
    shown = pixels(dicom_files.write(file, samples, bits=16))
    assert (shown[0], shown[-1]) == (0, 255) and abs(shown - np.linspace(0, 255, 4096)).max() < 1


def test_the_first_window_is_shown_and_what_lies_outside_is_black_or_white(file):
    shown = pixels(dicom_files.write(file, WindowCenter=[2048, 100], WindowWidth=[1001, 50]))
    expected = np.clip((np.arange(4096) - 2047.5) / 1000 + 0.5, 0, 1) * 255
    assert abs(shown - expected).max() <= 0.5
    assert shown[1500] == 0 and shown[2600] == 255


def test_a_window_wider_than_the_samples_is_not_stretched(file):
    narrow = np.full((64, 64), 1000, np.uint16)
    narrow[:, 32:] = 1400
    shown = pixels(dicom_files.write(file, narrow, WindowCenter=2048, WindowWidth=4096))
    assert set(shown) == {62, 87}  # 1000 and 1400 of 4095, not 0 and 255


def test_the_window_counts_after_rescale_whichever_way_that_runs(file):
    rising = dicom_files.write(
        file, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000, WindowWidth=1001
    )
    shown = pixels(rising)
    assert (shown[740], shown[1260], shown[1000]) == (0, 255, 128)
    falling = dicom_files.write(
        file, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048, WindowWidth=1001
    )
    shown = pixels(falling)
    assert (shown[0], shown[4095]) == (255, 0)


def test_monochrome1_is_turned_round_after_the_window(file):
    plain = pixels(dicom_files.write(file, WindowCenter=1000, WindowWidth=1001))
    turned = pixels(dicom_files.write(file, RAMP, "MONOCHROME1", WindowCenter=1000, WindowWidth=1001))
    assert np.array_equal(turned, 255 - plain) and turned[0] == 255


def test_a_lookup_table_comes_before_the_window(file):
    table = dicom_files.lookup(1000, 10, [0, 341, 682, 1023])
    shown = pixels(dicom_files.write(file, VOILUTSequence=table, WindowCenter=1, WindowWidth=2))
    assert [shown[at] for at in (0, 1000, 1001, 1002, 1003, 4095)] == [0, 0, 85, 170, 255, 255]
    rescaled = {"RescaleSlope": 1, "RescaleIntercept": 0, "VOILUTSequence": table}
    assert np.array_equal(pixels(dicom_files.write(file, **rescaled)), shown)


@pytest.mark.parametrize(
    ("samples", "tags", "words"),
    [
        (RAMP, {"Modality": "CT"}, "modality CT, not CR or DX"),
        (RAMP, {"Modality": "MR"}, "modality MR, not CR or DX"),
        (RAMP, {"Modality": ""}, "modality unknown"),
        (None, {}, "no pixels"),
        (np.stack([RAMP] * 3), {}, "3 frames, not one"),
        (RAMP, {"WindowCenter": 5, "WindowWidth": 0}, "Window Width"),
        (RAMP, {"Rows": 65}, "pixel data"),
    ],
)
def test_what_is_no_single_radiograph_is_refused_in_words(file, samples, tags, words):
    dicom_files.write(file, samples, **tags)
    with pytest.raises(DataError, match=r"^S1/a\.dcm cannot be read: ") as caught:
        read_view(file, 64)
    assert words.lower() in str(caught.value).lower() and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["ct", "mr"])
def test_a_real_file_of_another_machine_is_refused(kind):
    with pytest.raises(DataError, match=f"modality {kind.upper()}, not CR or DX"):
        read_view(pydicom.examples.get_path(kind), 64)


def test_colour_and_damage_are_refused_in_words(file):
    dicom_files.write(file, np.zeros((8, 8, 3), np.uint8), "RGB", 8)
    with pytest.raises(DataError, match="in colour"):
        read_view(file, 64)
    whole = dicom_files.write(file).read_bytes()
    for damaged in (whole[:200], whole[:3000], b"", b"not DICOM", whole[:132] + b"\xff" * 500):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"^S1/a\.dcm cannot be read: "):
            read_view(file, 64)


def test_the_head_tells_whose_it_is_and_reads_no_pixels(file):
    tags = {"AccessionNumber": "A7", "StudyInstanceUID": "1.2.3", "PatientID": "P", "ViewPosition": "LL"}
    dicom_files.write(file, **tags, InstanceNumber=2)
    assert dicom.header(file) == (("A7", "1.2.3"), "P", (3, 2))
    dicom_files.write(file, **tags | {"Modality": "CT"})
    with pytest.raises(ValueError, match="modality CT"):
        dicom.header(file)


def test_files_without_a_suffix_are_known_by_their_first_bytes(tmp_path):
    dicom_files.write(tmp_path / "export" / "IM0001")
    dicom_files.write(tmp_path / "export" / "1.2.840.7")
    (tmp_path / "export" / "DICOMDIR.txt").write_text("an index")
    found = [path.name for path in dicom.find(tmp_path)]
    assert found == ["1.2.840.7", "IM0001"] and pixels(tmp_path / "export" / "IM0001")[-1] == 255


def test_without_pydicom_one_sentence_says_what_to_install(file, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name.startswith("pydicom"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    dicom_files.write(file)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(DataError, match="need the package pydicom: run %pip install pydicom"):
        read_view(file, 64)
