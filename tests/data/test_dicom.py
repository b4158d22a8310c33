"""DICOM as a viewer shows it: window, lookup table, rescale, MONOCHROME1, and what is refused."""

import builtins

import dicom_files
import numpy as np
import pydicom.examples
import pytest
from dicom_files import RAMP
from PIL import Image
from pydicom import uid
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import UID

from utils.data import dicom
from utils.data.studies import DataError, read_view


def pixels(path, side: int = 64) -> np.ndarray:
    view = read_view(path, side)
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
    window = {"WindowCenter": 1000, "WindowWidth": 1001}
    rising = dicom_files.write(file, RescaleSlope=2, RescaleIntercept=-1000, **window)
    shown = pixels(rising)
    assert (shown[740], shown[1260], shown[1000]) == (0, 255, 128)
    window = {"WindowCenter": 2048, "WindowWidth": 1001}
    falling = dicom_files.write(file, RescaleSlope=-1, RescaleIntercept=4095, **window)
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


BODY = np.linspace(1000, 3000, 48 * 64).reshape(48, 64)  # of a radiograph whose last rows are padding
SHOWN = np.rint(np.linspace(0, 255, BODY.size))


def padded(value: int | np.ndarray, kind: type = np.uint16) -> np.ndarray:
    samples = np.empty((64, 64), kind)
    samples[:48], samples[48:] = np.rint(BODY), value
    return samples


@pytest.mark.parametrize(
    ("samples", "bits", "tags"),
    [
        (padded(65535), 16, {"PixelPaddingValue": 65535}),
        (padded(4095), 12, {"PixelPaddingValue": 4095}),
        (padded(0), 12, {"PixelPaddingValue": 0}),
        (padded(-32768, np.int16), 16, {"PixelPaddingValue": -32768}),
        (padded(np.arange(64) + 60000), 16, {"PixelPaddingValue": 60000, "PixelPaddingRangeLimit": 60063}),
        (padded(np.arange(64) + 60000), 16, {"PixelPaddingValue": 60063, "PixelPaddingRangeLimit": 60000}),
        (
            padded(np.arange(64) - 2064, np.int16),
            16,
            {"PixelPaddingValue": -2001, "PixelPaddingRangeLimit": -2064},
        ),
        (padded(-2000, np.int16), 16, {"PixelPaddingValue": (63536, "US")}),  # as if it were unsigned
        (padded(65535), 16, {"PixelPaddingValue": (-1, "SS")}),  # as if it were signed
        # Counted before rescale.
        (padded(65535), 16, {"PixelPaddingValue": 65535, "RescaleSlope": 0.5, "RescaleIntercept": -1024}),
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_padding_is_black_and_does_not_count_where_there_is_no_window(file, photometric, samples, bits, tags):
    shown = pixels(dicom_files.write(file, samples, photometric, bits, **tags))
    assert abs(shown[: BODY.size] - (SHOWN if photometric == "MONOCHROME2" else 255 - SHOWN)).max() <= 1
    assert set(shown[BODY.size :]) == {0}


def test_padding_is_black_in_a_window_and_by_a_lookup_table_too(file):
    tags = {"PixelPaddingValue": 4095, "WindowCenter": 2000, "WindowWidth": 2001}
    shown = pixels(dicom_files.write(file, padded(4095), **tags))
    assert abs(shown[: BODY.size] - SHOWN).max() <= 1 and set(shown[BODY.size :]) == {0}
    tags = {"PixelPaddingValue": 0, "VOILUTSequence": dicom_files.lookup(0, 8, list(range(255, -1, -1)))}
    shown = pixels(dicom_files.write(file, padded(0), **tags))
    assert set(shown[BODY.size :]) == {0}


def test_a_file_of_nothing_but_padding_is_refused(file):
    dicom_files.write(file, np.full((8, 8), 7, np.uint16), PixelPaddingValue=7)
    with pytest.raises(DataError, match="nothing but padding"):
        read_view(file, 64)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(
    ("kind", "strays"),
    [
        (np.uint16, [((0, 0), 65535)]),
        (np.uint16, [((5, 7), 65535), ((9, 9), 0)]),
        (np.uint16, [(slice(0, 1), 0)]),  # a dead row of the detector
        (np.uint16, [((slice(0, 100), 99), 65535)]),
        (np.int16, [((3, 3), -32768), ((60, 60), 32767)]),
    ],
)
def test_stray_pixels_do_not_count_where_there_is_no_window(file, photometric, kind, strays):
    samples = np.rint(np.linspace(20000, 22000, 100 * 100)).astype(kind).reshape(100, 100)
    clean = pixels(dicom_files.write(file, samples, photometric, 16), 100)
    assert clean.min() == 0 and clean.max() == 255
    for place, value in strays:
        samples[place] = value
    shown = pixels(dicom_files.write(file, samples, photometric, 16), 100)
    apart = np.abs(shown - clean).reshape(100, 100)
    for place, _ in strays:
        apart[place] = 0
    assert apart.max() <= 3


def test_stray_pixels_of_a_picture_of_sixteen_bits_do_not_count_either(tmp_path):
    samples = np.rint(np.linspace(20000, 22000, 4096)).astype(np.uint16).reshape(64, 64)
    samples[5, 5], samples[60, 60] = 65535, 0
    Image.fromarray(samples).save(tmp_path / "a.png")
    shown = pixels(tmp_path / "a.png").reshape(64, 64)
    assert (shown[0, 0], shown[5, 5], shown[60, 60], shown[-1, -1]) == (0, 255, 0, 255)


@pytest.mark.parametrize("function", ["", None, "LINEAR"])
def test_a_window_without_a_function_is_linear(file, function):
    tags = {"WindowCenter": 2048, "WindowWidth": 1001}
    plain = pixels(dicom_files.write(file, **tags))
    assert np.array_equal(pixels(dicom_files.write(file, **tags, VOILUTFunction=function)), plain)


def test_what_is_bright_and_small_but_not_far_away_counts(file):
    """A marker of lead, or a chest that fills a hundredth of the view."""
    samples = np.rint(np.random.default_rng(0).normal(2000, 300, (64, 64))).astype(np.uint16)
    samples[:4, :4] = 3300
    shown = pixels(dicom_files.write(file, samples)).reshape(64, 64)
    assert set(shown[:4, :4].ravel()) == {255} and np.sort(shown.ravel())[-17] < 250
    small = np.full((64, 64), 100, np.uint16)
    small[:4, :4] = 3600
    assert pixels(dicom_files.write(file, small)).reshape(64, 64)[:4, :4].min() == 255


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": 5, "WindowWidth": 0},
        {"WindowCenter": 5, "WindowWidth": -100},
        {"WindowCenter": 5},
        {"WindowWidth": 5},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": 0, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR"},
    ],
)
def test_a_window_that_cannot_be_is_none(file, tags):
    without = pixels(dicom_files.write(file))
    assert np.array_equal(pixels(dicom_files.write(file, **tags)), without)


def test_the_first_window_that_can_be_is_shown(file):
    good = pixels(dicom_files.write(file, WindowCenter=2048, WindowWidth=1001))
    tags = {"WindowCenter": [5, 2048], "WindowWidth": [0, 1001]}
    assert np.array_equal(pixels(dicom_files.write(file, **tags)), good)
    exact = pixels(dicom_files.write(file, WindowCenter=2048, WindowWidth=0.5, VOILUTFunction="LINEAR_EXACT"))
    assert set(exact) <= {0, 128, 255}


def of(modality: str | None, storage: str) -> dict:
    return {"Modality": modality, "SOPClassUID": storage}


@pytest.mark.parametrize(
    ("samples", "tags", "words"),
    [
        (RAMP, {"Modality": "CT"}, "modality CT, not CR or DX"),
        (RAMP, {"Modality": "MR"}, "modality MR, not CR or DX"),
        (RAMP, {"Modality": "US"}, "modality US, not CR or DX"),
        (RAMP, {"Modality": "MG"}, "modality MG, not CR or DX"),
        (RAMP, of("OT", uid.CTImageStorage), "modality OT (CT Image Storage), not CR or DX"),
        (RAMP, of("", uid.MRImageStorage), "modality unknown (MR Image Storage)"),
        (RAMP, of(None, uid.UltrasoundImageStorage), "modality unknown (Ultrasound"),
        (RAMP, of("DR", uid.XRayRadiofluoroscopicImageStorage), "modality DR (X-Ray Radio"),
        (RAMP, {"Modality": "OT", "SliceThickness": 5}, "modality OT (a slice)"),
        (RAMP, {"Modality": "", "ImagePositionPatient": [0, 0, 0]}, "modality unknown (a slice)"),
        (RAMP, {"Modality": "OT", "ConversionType": "SD"}, "modality OT (conversion SD)"),
        (RAMP, {"PhotometricInterpretation": "PALETTE COLOR"}, "in colour"),
        (None, {}, "no pixels"),
        (np.stack([RAMP] * 3), {}, "3 frames, not one"),
        (RAMP, {"Rows": 65}, "pixel data"),
    ],
)
def test_what_is_no_single_radiograph_is_refused_in_words(file, samples, tags, words):
    dicom_files.write(file, samples, **tags)
    with pytest.raises(DataError, match=r"^S1/a\.dcm cannot be read: ") as caught:
        read_view(file, 64)
    assert words.lower() in str(caught.value).lower() and "\n" not in str(caught.value)


@pytest.mark.parametrize("modality", ["DR", "RG", "OT", "", None, "dx", "CR "])
@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"SOPClassUID": uid.ComputedRadiographyImageStorage},
        {"SOPClassUID": uid.SecondaryCaptureImageStorage, "ConversionType": "WSD"},
        {"SOPClassUID": "1.2.3.4"},  # made anew with the other ids, to hide whose it is
        {"SliceThickness": None},
    ],
)
def test_radiographs_are_read_though_their_modality_says_less(file, modality, tags):
    shown = pixels(dicom_files.write(file))
    assert np.array_equal(pixels(dicom_files.write(file, Modality=modality, **tags)), shown)
    assert dicom.header(file).modality == (modality or "").strip().upper()


def jpeg_2000(samples: np.ndarray) -> bytes:
    return dicom_files.picture(samples, "JPEG2000", no_jp2=True)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(
    ("syntax", "compress"),
    [(uid.RLELossless, None), (uid.JPEG2000Lossless, jpeg_2000), (uid.JPEG2000, jpeg_2000)],
)
def test_what_is_compressed_without_loss_is_read_as_if_it_were_not(file, photometric, syntax, compress):
    samples = padded(60000)
    how = {"samples": samples, "photometric": photometric, "bits": 16, "PixelPaddingValue": 60000}
    shown = pixels(dicom_files.write(file, **how))
    stream = compress(samples) if compress else None
    assert np.array_equal(pixels(dicom_files.compressed(file, syntax, stream, **how)), shown)


def test_a_jpeg_of_eight_bits_is_read(file):
    samples = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    stream = dicom_files.picture(samples, "JPEG", quality=100)
    dicom_files.compressed(file, uid.JPEGBaseline8Bit, stream, samples=samples, bits=8)
    assert abs(pixels(file) - np.rint(samples.ravel() * (255 / 252))).max() <= 3


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        (uid.JPEGLosslessSV1, "DICOM files in JPEG Lossless need a decoder: run %pip install pylibjpeg"),
        (uid.JPEGLossless, "DICOM files in JPEG Lossless need a decoder"),
        (uid.JPEGLSLossless, "DICOM files in JPEG-LS Lossless Image Compression need a decoder"),
        (uid.HTJ2KLossless, "need a decoder: run %pip install pylibjpeg[all], restart the runtime"),
        (uid.MPEG2MPML, "No pixel data decoders have been implemented"),
        (UID("1.2.3.4"), "No pixel data decoders have been implemented for '1.2.3.4'"),
    ],
)
def test_the_head_says_that_a_decoder_is_missing(file, monkeypatch, syntax, words):
    monkeypatch.setattr(Decoder, "is_available", False)  # as where pylibjpeg is not installed
    dicom_files.compressed(file, syntax, b"\xff\xd8 whatever")
    for read in (dicom.header, dicom.read):
        with pytest.raises(ValueError) as caught:
            read(file)
        assert words in str(caught.value)
        assert isinstance(caught.value, dicom.NoPackage) == ("need a decoder" in words)


def test_of_each_kind_of_pixels_one_file_is_read_with_the_heads(tmp_path, monkeypatch):
    opened, read = [], dicom.read
    monkeypatch.setattr(dicom, "read", lambda path: opened.append(path.name) or read(path))
    eight = dicom_files.picture(np.zeros((64, 64), np.uint8), "JPEG")
    jpeg = {"samples": np.zeros((64, 64), np.uint8), "bits": 8}
    files = [
        dicom_files.compressed(tmp_path / "damaged.dcm", uid.JPEGBaseline8Bit, eight[:100], **jpeg),
        *(dicom_files.compressed(tmp_path / f"{n}.dcm", uid.JPEGBaseline8Bit, eight, **jpeg) for n in (1, 2)),
        *(dicom_files.compressed(tmp_path / f"{n}.dcm", uid.RLELossless) for n in (3, 4)),
        *(dicom_files.write(tmp_path / f"{n}.dcm") for n in (5, 6)),
        *(dicom_files.write(tmp_path / f"{n}.dcm", padded(0), bits=16) for n in (7, 8)),
    ]
    decoded = set()
    with pytest.raises(ValueError, match="pixels that cannot be read, JPEG Baseline") as caught:
        dicom.header(files[0], decoded)
    assert caught.value.__cause__
    assert all(dicom.header(file, decoded) for file in files[1:])
    assert opened == ["damaged.dcm", "1.dcm", "3.dcm", "5.dcm", "7.dcm"]


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
    assert dicom.header(file) == (("A7", "1.2.3"), "P", (3, 2), "DX")
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
