"""A dataset on the Hub as studies, over HTTP from a stand-in on the loopback address."""

import json

import datasets
import hub_server
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from PIL import Image

from utils.data.sources import open_data, origin
from utils.data.studies import DataError, load_studies, read_view
from utils.run.workspace import Workspace

TOKEN = "hf_secretsecretsecret"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    hub = hub_server.start()
    address = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    hub.shutdown()
    hub.server_close()


@pytest.fixture
def ws(tmp_path):
    return Workspace(tmp_path / "run")


def split(tmp_path, columns: dict, **kinds) -> bytes:
    features = {name: kinds.get(name, Value("string")) for name in columns}
    path = tmp_path / "split.parquet"
    Dataset.from_dict(columns, features=Features(features)).to_parquet(path)
    return path.read_bytes()


def grey(*values: int) -> list[Image.Image]:
    return [Image.new("L", (8, 8), value) for value in values]


def picture(tmp_path, value: int) -> bytes:
    grey(value)[0].save(tmp_path / "picture.png")
    return (tmp_path / "picture.png").read_bytes()


def test_a_dataset_is_brought_once_in_one_copy_and_the_token_is_kept_nowhere(hub, ws, tmp_path, capsys):
    many = {"images": List(datasets.Image())}
    for number, name in enumerate(("train", "validation", "test")):
        columns = {"study_id": [f"S{number}a", f"S{number}b"], "findings": ["Clear.", "Large heart."]}
        columns |= {"images": [grey(10, 20), grey(30)], "note": ["x", "y"]}
        hub.files[f"data/{name}-00000-of-00001.parquet"] = split(tmp_path, columns, **many)
    data = open_data("me/x", "iu_xray", ws)
    everyone = load_studies(data)
    ids = {part: [study.id for study in group] for part, group in everyone.items()}
    assert ids == {"train": ["S0a", "S0b"], "val": ["S1a", "S1b"], "test": ["S2a", "S2b"]}
    assert [read_view(path, 8).getpixel((0, 0)) for path in everyone["val"][0].images] == [10, 20]
    images = [path for path in ws.root.rglob("*") if path.is_file() and not path.suffix]
    assert len(images) == 9 and origin(data)["revision"] == "0" * 40
    said = capsys.readouterr().out
    assert "not used: note" in said and "6 studies and 9 images from me/x" in said
    asked = len(hub.asked)
    assert open_data("me/x", "iu_xray", ws) == data and len(hub.asked) == asked
    assert hub.authorizations <= {f"Bearer {TOKEN}", None}
    kept = [path.read_bytes() for path in ws.root.rglob("*") if path.is_file()]
    assert TOKEN not in said and not any(TOKEN.encode() in content for content in kept)


def test_one_split_and_no_ids_are_split_by_number(hub, ws, tmp_path, capsys):
    columns = {"image": grey(*range(40)), "report": ["Clear lungs."] * 40}
    hub.files["data/train-00000-of-00001.parquet"] = split(tmp_path, columns, image=datasets.Image())
    everyone = load_studies(open_data("me/x", "iu_xray", ws))
    assert sum(map(len, everyone.values())) == 40 and all(everyone.values())
    said = capsys.readouterr().out
    assert "study from the number of the row" in said and "studies are split 80/10/10" in said


def told(names: list[str], **more) -> dict:
    """A dataset's columns with a column `split`."""
    columns = {"study_id": [f"S{n}" for n in range(len(names))], "image": grey(*range(len(names)))}
    return {**columns, "report": ["Clear lungs."] * len(names), "split": names, **more}


NAMES = ["train", "test", "validation", "train", "test"]


@pytest.mark.parametrize("form", ["text", "label", "in capitals"])
@pytest.mark.parametrize("only", ["train", "test"])
def test_the_column_of_splits_counts_where_the_hub_has_one_split(hub, ws, tmp_path, capsys, form, only):
    kind, names = Value("string"), NAMES
    if form == "label":
        kind = ClassLabel(names=["train", "validation", "test"])
    elif form == "in capitals":
        names = [name.upper() for name in NAMES]
    content = split(tmp_path, told(names), image=datasets.Image(), split=kind)
    hub.files[f"data/{only}-00000-of-00001.parquet"] = content
    everyone = load_studies(open_data("me/x", "iu_xray", ws))
    found = {part: [study.id for study in group] for part, group in everyone.items()}
    assert found == {"train": ["S0", "S3"], "val": ["S2"], "test": ["S1", "S4"]}
    said = capsys.readouterr().out
    assert "split from split" in said and "The splits are the table's own" in said


def test_a_patient_in_two_splits_of_the_column_is_refused(hub, ws, tmp_path):
    columns = told(["train", "test"], patient_id=["P1", "P1"])
    hub.files["data/train-00000-of-00001.parquet"] = split(tmp_path, columns, image=datasets.Image())
    with pytest.raises(DataError, match=r"Patients in two splits: 1, P1 \(train and test\)"):
        open_data("me/x", "iu_xray", ws)


@pytest.mark.parametrize(
    ("names", "words"),
    [(["train", ""], "1 of 2 studies have no split, such as S1"), (["train", "fold3"], "'fold3' of S1")],
)
def test_a_column_of_splits_that_does_not_say_all_is_refused(hub, ws, tmp_path, names, words):
    hub.files["data/train-00000-of-00001.parquet"] = split(tmp_path, told(names), image=datasets.Image())
    with pytest.raises(DataError) as caught:
        open_data("me/x", "iu_xray", ws)
    assert words in str(caught.value)


@pytest.mark.parametrize("names", [["train"], [""], ["fold1", "fold2"]])
def test_a_column_with_one_split_or_other_names_is_none(hub, ws, tmp_path, capsys, names):
    content = split(tmp_path, told(names * (40 // len(names))), image=datasets.Image())
    hub.files["data/train-00000-of-00001.parquet"] = content
    everyone = load_studies(open_data("me/x", "iu_xray", ws))
    said = capsys.readouterr().out
    assert all(everyone.values()) and "studies are split 80/10/10" in said
    assert ("train, val, test, and so counts as none: 40, such as" in said) == any(names)


def test_where_the_hub_has_several_splits_they_count_and_a_column_that_differs_is_told(
    hub, ws, tmp_path, capsys
):
    for place, names in {"train": ["train", "test", ""], "test": ["TEST", "testing"]}.items():
        columns = told(names, study_id=[f"{place}{n}" for n in range(len(names))])
        content = split(tmp_path, columns, image=datasets.Image())
        hub.files[f"data/{place}-00000-of-00001.parquet"] = content
    everyone = load_studies(open_data("me/x", "iu_xray", ws))
    assert {part: len(group) for part, group in everyone.items()} == {"train": 3, "val": 0, "test": 2}
    said = capsys.readouterr().out
    assert "split from the Hub's splits" in said and "not used: split" in said
    assert "another one than the Hub, whose counts: 1, test of train1, in train" in said


def test_a_dataset_without_images_or_findings_names_its_columns(hub, ws, tmp_path):
    columns = {"text": ["Clear lungs."], "label": ["0"]}
    hub.files["data/train-00000-of-00001.parquet"] = split(tmp_path, columns)
    with pytest.raises(
        DataError, match=r"me/x has no column for findings or images: its columns are .*text, label;"
    ):
        open_data("me/x", "iu_xray", ws)
    assert not (ws.root / "own").exists()


def test_what_is_not_on_the_hub_is_one_sentence(hub, ws):
    hub.files["README.md"] = b""
    with pytest.raises(DataError, match=r"^me/gone is neither here nor a dataset on the Hub .*404") as caught:
        open_data("me/gone", "iu_xray", ws)
    assert "\n" not in str(caught.value) and TOKEN not in str(caught.value)


def test_images_that_lie_beside_their_table_are_fetched_one_by_one(hub, ws, tmp_path):
    lines = [json.dumps({"file_name": f"{n}.png", "findings": "Clear."}) for n in range(30)]
    hub.files = {f"train/{n}.png": picture(tmp_path, n) for n in range(30)}
    hub.files["train/metadata.jsonl"] = "\n".join(lines).encode()
    studies = [study for group in load_studies(open_data("me/x", "iu_xray", ws)).values() for study in group]
    shades = {read_view(study.images[0], 8).getpixel((0, 0)) for study in studies}
    assert len(studies) == 30 and shades == set(range(30))


def test_an_image_that_names_a_file_of_this_machine_is_not_read(hub, ws, tmp_path, capsys):
    (tmp_path / "secret.png").write_bytes(picture(tmp_path, 7))
    images = [{"bytes": None, "path": str(tmp_path / "secret.png")}]
    images += [{"bytes": picture(tmp_path, 1), "path": None}] * 30
    features = Features({"image": datasets.Image(), "report": Value("string")})
    table = pa.table({"image": images, "report": ["Clear lungs."] * 31}, schema=features.arrow_schema)
    pq.write_table(table, tmp_path / "split.parquet")
    hub.files["data/train-00000-of-00001.parquet"] = (tmp_path / "split.parquet").read_bytes()
    everyone = load_studies(open_data("me/x", "iu_xray", ws))
    assert sum(map(len, everyone.values())) == 30
    assert "Images that are not there, left out: 1, train/0000001-0" in capsys.readouterr().out
