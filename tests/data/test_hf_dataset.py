"""The dataset: what is in a row, what is left out, and that others can read it."""

import io
import multiprocessing
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd
import pytest
from datasets import DatasetDict, load_dataset
from PIL import Image

from utils.data import hf_dataset, shards
from utils.data.hf_dataset import build, instruction, load, skip_summary, statistics
from utils.data.studies import DataError, Study, load_studies
from utils.regions import REGIONS, parse
from utils.settings import DatasetSettings

FINDINGS = {"bone": "No fracture.", "lung": "Clear lungs.", "others": "A clip."}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keeps what `load_dataset` caches out of the user's home."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def view(folder: Path, name: str, shade: int = 90, size: tuple[int, int] = (24, 16)) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size[::-1], shade, np.uint8)).save(path)
    return path


@pytest.fixture
def splits(tmp_path) -> dict[str, list[Study]]:
    """Two training studies with three and one views, a study in each of the other splits."""
    images = tmp_path / "images"
    views = {name: (view(images, f"{name}/0.png", 99),) for name in ("T2", "V1", "E1")}
    views["T1"] = tuple(view(images, f"T1/{k}.png", 10 * (k + 1)) for k in range(3))
    return {
        "train": [
            Study("T1", "train", FINDINGS, "", views["T1"]),
            Study("T2", "train", {"heart": "Large heart."}, "", views["T2"]),
        ],
        "val": [Study("V1", "val", {"lung": "Clear."}, "Clear.", views["V1"])],
        "test": [Study("E1", "test", {"mediastinal": "Wide."}, "", views["E1"])],
    }


def made(
    splits: dict, folder: Path, processes: int = 1, show=lambda *_: None, **settings: int
) -> tuple[DatasetDict, pd.DataFrame]:
    how = {"data_label": "drawn for a test", "processes": processes, "show": show, "longest_side": 672}
    return build(splits, DatasetSettings(**settings), folder, **how)


def test_the_instruction_names_the_regions_asked_for_and_shows_the_form():
    assert list(parse(instruction())) == list(REGIONS)
    assert list(parse(instruction(["bone", "lung"]))) == ["lung", "bone"]
    assert "heart" not in instruction(["bone", "lung"])
    with pytest.raises(ValueError, match="liver"):
        instruction(["liver"])


def test_a_row_asks_for_the_regions_of_its_study_and_answers_them(splits, tmp_path):
    dataset, skipped = made(splits, tmp_path / "dataset")
    row = dataset["train"][0]
    assert row["id"] == "T1"
    assert row["prompt"] == [{"role": "user", "content": instruction(["lung", "bone"])}]
    assert row["completion"] == [{"role": "assistant", "content": "lung: Clear lungs.\nbone: No fracture."}]
    texts = {"lung": "Clear lungs.", "heart": "", "mediastinal": "", "bone": "No fracture."}
    assert {name: row[name] for name in REGIONS} == texts
    assert "clip" not in str(row)  # findings in others
    assert row["views"] == 2
    assert [(image.mode, image.getpixel((0, 0))) for image in row["images"]] == [("L", 10), ("L", 20)]
    assert skipped.empty
    assert skip_summary(skipped, splits) == "all 4 studies are in the dataset"


def test_views_and_their_size_are_what_the_settings_say(splits, tmp_path):
    views = (view(tmp_path, "T1/0.png", size=(240, 160)),) * 4
    splits["train"][0] = Study("T1", "train", FINDINGS, "", views)
    dataset, _ = made(splits, tmp_path / "dataset", views=3, longest_side=120)
    assert [image.size for image in dataset["train"][0]["images"]] == [(120, 80)] * 3


def test_what_is_left_out_is_listed_and_counted(splits, tmp_path):
    damaged = view(tmp_path, "D/0.png")
    damaged.write_bytes(damaged.read_bytes()[:40])
    good = splits["train"][0].images
    splits["train"] = [
        Study("no_image", "train", FINDINGS, "", ()),
        Study("no_image_2", "train", FINDINGS, "", ()),
        Study("half", "train", FINDINGS, "", (damaged, *good)),
        Study("damaged", "train", FINDINGS, "", (damaged, damaged)),
        Study("others_only", "train", {"others": "A clip."}, "", good),
    ]
    splits["val"] = [Study("unsplit", "val", None, "Clear.", good)]
    dataset, skipped = made(splits, tmp_path / "dataset")
    assert dataset.num_rows == {"train": 1, "test": 1}  # an empty split is not in it
    assert dataset["train"][0]["id"] == "half"
    assert dataset["train"][0]["views"] == 2  # the damaged view's place is taken by the next
    assert list(skipped[["id", "split", "file"]].itertuples(index=False, name=None)) == [
        ("no_image", "train", ""),
        ("no_image_2", "train", ""),
        ("half", "train", "half/0.png"),
        ("damaged", "train", "damaged/0.png"),
        ("damaged", "train", "damaged/0.png"),
        ("damaged", "train", ""),
        ("others_only", "train", ""),
        ("unsplit", "val", ""),
    ]
    assert "cannot be read" in skipped["reason"][2]
    line = skip_summary(skipped, splits)
    assert line.startswith("2 of 7 studies have no image; ")
    assert "1 of 7 studies have no image that can be read" in line
    assert "1 of 7 studies have findings that are not split into regions yet" in line
    assert "1 of 7 studies have no findings of lung, heart, mediastinal, bone" in line
    assert line.endswith("damaged views: 3 (half/0.png, damaged/0.png, damaged/0.png)")
    assert "\n" not in line


def test_a_long_list_of_damaged_views_is_cut():
    left_out = [("a", "train", f"a/{k}.png", "bad") for k in range(5)]
    skipped = pd.DataFrame(left_out, columns=hf_dataset.Skip._fields)
    assert skip_summary(skipped, {"train": []}) == "damaged views: 5 (a/0.png, a/1.png, a/2.png and 2 more)"


def test_nothing_to_build_is_an_error(splits, tmp_path):
    bare = {"train": [Study("T1", "train", FINDINGS, "", ())], "val": [], "test": []}
    with pytest.raises(DataError, match=r"No study can be used in the dataset: 1 of 1 studies have no image"):
        made(bare, tmp_path / "dataset")


def test_what_was_saved_is_read_back_by_plain_load_dataset(splits, tmp_path):
    folder = tmp_path / "dataset"
    built, _ = made(splits, folder)
    (folder / "manifest.json").write_text('{"step": "dataset"}')  # as the workspace leaves it
    for loaded in (load_dataset(str(folder)), load(folder)):
        assert loaded.num_rows == {"train": 2, "val": 1, "test": 1}
        assert loaded["train"].features == built["train"].features
        shades = [[image.getpixel((0, 0)) for image in row["images"]] for row in loaded["train"]]
        assert shades == [[10, 20], [99]]


def test_the_same_studies_give_the_same_bytes(splits, tmp_path):
    one, two = (tmp_path / name / "dataset" for name in ("one", "two"))
    made(splits, one)
    made(splits, two, processes=2)
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    shards = [f"data/{split}-00000-of-00001.parquet" for split in ("test", "train", "val")]
    assert [name.as_posix() for name in names] == ["README.md", *shards]
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def test_a_large_split_is_written_in_shards(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(hf_dataset, "STUDIES", 1)
    folder = tmp_path / "dataset"
    made(splits, folder)
    shards = sorted(path.name for path in (folder / "data").glob("train-*"))
    assert shards == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert load(folder)["train"]["id"][:] == ["T1", "T2"]


def test_a_dataset_that_was_replaced_is_read_anew(splits, tmp_path):
    folder = tmp_path / "dataset"
    assert made(splits, folder)[0]["train"][0]["views"] == 2
    (folder / "manifest.json").write_text("{}")
    made(splits, folder, views=1)
    assert load_dataset(str(folder))["train"][0]["views"] == 1
    assert not (folder / "manifest.json").exists()  # it spoke of the other dataset


def test_the_cache_does_not_mix_up_two_runs(splits, tmp_path):
    one, two = (tmp_path / f"{views}" / "dataset" for views in (1, 2))
    for views, folder in enumerate((one, two), start=1):
        made(splits, folder, views=views)
    assert load_dataset(str(one))["train"][0]["views"] == 1
    assert load_dataset(str(two))["train"][0]["views"] == 2


def test_a_failure_leaves_the_dataset_that_was_there(splits, tmp_path, monkeypatch):
    folder = tmp_path / "dataset"
    made(splits, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    monkeypatch.setattr(hf_dataset, "dataset_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made(splits, folder, views=1)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_no_dataset_says_which_notebook_to_run(tmp_path):
    with pytest.raises(DataError, match="02_build_hf_dataset"):
        load(tmp_path)


def test_the_card_says_what_the_data_are_and_counts_them(splits, tmp_path):
    made(splits, tmp_path / "dataset")
    card = (tmp_path / "dataset" / "README.md").read_text()
    assert "**drawn for a test**" in card
    assert "Not for clinical use" in card
    assert "CC BY-NC-ND" in card
    assert "| train | 2 | 3 | 1 | 1 | 0 | 1 |" in card
    assert "- longest side: 672" in card


def test_statistics_count_studies_views_and_mentions(splits, tmp_path):
    dataset, _ = made(splits, tmp_path / "dataset")
    table = statistics(dataset)
    assert list(table.index) == ["train", "val", "test"]
    counts = {"studies": 2, "views": 3, "lung": 1, "heart": 1, "mediastinal": 0, "bone": 1}
    assert table.loc["train"].to_dict() == counts
    assert table.loc["test", list(REGIONS)].tolist() == [0, 0, 1, 0]


def tiny_processor():
    """A LLaVA-NeXT processor for 28-pixel tiles, its tokenizer one token a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: n for n, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    sizes = {"crop_size": {"height": 28, "width": 28}, "image_grid_pinpoints": [[28, 28], [28, 56]]}
    sizes["size"] = {"shortest_edge": 28}
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "additional_special_tokens": ["<image>"]}
    return LlavaNextProcessor(
        LlavaNextImageProcessor(**sizes),
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=(
            "{% for message in messages %}{{ message.role }}{% for part in message.content %}"
            "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
        ),
    )


def test_trl_takes_the_rows_and_learns_the_completion_only(splits, tmp_path):
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    processor = tiny_processor()
    collate = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
    dataset, _ = made(splits, tmp_path / "dataset")
    train = dataset["train"].select_columns(["images", "prompt", "completion"])
    batch = collate(list(train))
    assert len(batch["pixel_values"]) == 2 + 1  # one entry a view
    pairs = zip(batch["input_ids"], batch["labels"], strict=True)
    learnt = [processor.tokenizer.decode(ids[labels != -100]) for ids, labels in pairs]
    assert learnt == ["assistantlung: Clear lungs.\nbone: No fracture.", "assistantheart: Large heart."]


def test_the_two_real_studies_are_built_and_the_rest_is_told(shared, tmp_path):
    splits = load_studies(shared / "iu_xray")
    dataset, skipped = made(splits, tmp_path / "dataset")
    assert skip_summary(skipped, splits) == "2,953 of 2,955 studies have no image"
    assert dataset["train"]["id"][:] == ["CXR1900_IM-0584", "CXR7_IM-2263"]
    assert [[image.size for image in row["images"]] for row in dataset["train"]] == [[(512, 512)] * 2] * 2


def test_images_are_stored_as_png(splits, tmp_path):
    dataset, _ = made(splits, tmp_path / "dataset")
    stored = dataset["train"].data.column("images")[0].as_py()[0]["bytes"]
    assert Image.open(io.BytesIO(stored)).format == "PNG"


@pytest.fixture
def shard_a_study(monkeypatch):
    """Shards of one study each; the radiographs that are read, by study."""
    read, really = [], shards.read_view
    monkeypatch.setattr(hf_dataset, "STUDIES", 1)
    monkeypatch.setattr(
        shards, "read_view", lambda path, side: read.append(path.parent.name) or really(path, side)
    )
    monkeypatch.setattr(hf_dataset, "_fits", lambda *_: True)  # it reads some
    return read


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


def killed_after(count: int):
    """A `show` that ends the build when `count` studies are done."""

    def show(done: int, _: int) -> None:
        if done == count:
            raise KeyboardInterrupt

    return show


@pytest.mark.parametrize("fault", ["", "cut off", "one byte", "no note", "half a note"])
def test_a_killed_build_goes_on_where_it_stopped(splits, tmp_path, shard_a_study, fault):
    made(splits, tmp_path / "whole")
    folder, room = tmp_path / "dataset", tmp_path / ".dataset.shards"
    with pytest.raises(KeyboardInterrupt):
        made(splits, folder, show=killed_after(2))
    first, note = room / "train-00000.parquet", room / "train-00000.json"
    (room / ".val-00000.parquet.part").write_bytes(b"PAR1")  # as a kill leaves it
    content = first.read_bytes()
    if fault == "cut off":
        first.write_bytes(content[:-9])
    elif fault == "one byte":
        first.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
    elif fault == "no note":
        note.unlink()
    elif fault == "half a note":
        note.write_bytes(note.read_bytes()[:40])
    shard_a_study.clear()
    made(splits, folder)
    assert shard_a_study == (["T1", "T1"] if fault else []) + ["V1", "E1"]
    assert bytes_of(folder) == bytes_of(tmp_path / "whole") and not room.exists()


def test_finished_shards_of_other_studies_or_settings_are_made_again(splits, tmp_path, shard_a_study):
    for views, expected in ((2, ["T1", "T1", "T2"]), (1, ["T1", "T2"]), (1, [])):
        shard_a_study.clear()
        with pytest.raises(KeyboardInterrupt):
            made(splits, tmp_path / "dataset", show=killed_after(2), views=views)
        assert shard_a_study == expected
    view(tmp_path, "images/T2/0.png", 50, size=(240, 160))
    shard_a_study.clear()
    dataset, _ = made(splits, tmp_path / "dataset", views=1)
    assert shard_a_study == ["T2", "V1", "E1"] and dataset["train"][1]["images"][0].size == (240, 160)


def test_a_killed_process_is_one_sentence_and_the_rest_is_kept(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(hf_dataset, "STUDIES", 1)

    def kill(done: int, _: int) -> None:
        for process in multiprocessing.active_children():
            process.kill()

    many = [replace(study, id=f"T{n}") for n, study in enumerate(splits["train"] * 10)]
    with pytest.raises(DataError, match="continues where it stopped"):
        made({"train": many}, tmp_path / "dataset", processes=2, show=kill)
    assert list((tmp_path / ".dataset.shards").glob("*.json"))


def build_and_wait(splits: dict, folder: Path, told) -> None:
    """Build in two processes up to the second shard, tell which these are, and wait to be killed."""
    hf_dataset.STUDIES = 1

    def show(done: int, _: int) -> None:
        if done == 2:
            told.put([process.pid for process in multiprocessing.active_children()])
            time.sleep(60)

    made(splits, folder, processes=2, show=show)


def runs(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc here")
def test_a_build_whose_process_is_killed_leaves_none_behind_and_goes_on(splits, tmp_path, shard_a_study):
    spawn = multiprocessing.get_context("spawn")
    told = spawn.Queue()
    process = spawn.Process(target=build_and_wait, args=(splits, tmp_path / "dataset", told))
    process.start()
    workers = told.get(timeout=60)
    process.kill()
    process.join()
    for _ in range(1000):
        if not any(map(runs, workers)):
            break
        time.sleep(0.02)
    assert not any(map(runs, workers))
    made(splits, tmp_path / "whole")
    shard_a_study.clear()
    made(splits, tmp_path / "dataset")
    assert not {"T1", "T2"} & set(shard_a_study)
    assert bytes_of(tmp_path / "dataset") == bytes_of(tmp_path / "whole")


@pytest.fixture
def full_disk(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))


def test_without_room_the_radiographs_stay_where_they_are(splits, tmp_path, full_disk, capsys):
    views = (view(tmp_path, "images/T1/0.png", size=(240, 160)),) * 2
    splits["train"][0] = Study("T1", "train", FINDINGS, "", views)
    dataset, _ = made(splits, tmp_path / "dataset", longest_side=120)
    said = capsys.readouterr().out
    assert f"So the radiographs stay in {tmp_path / 'images'}, and" in said and said.count("\n") == 1
    assert not any(image["bytes"] for image in dataset["train"].data.column("images")[0].as_py())
    for rows in (dataset["train"], dataset["train"].select([0]).select_columns(["images"])):
        assert [(image.mode, image.size) for image in rows[0]["images"]] == [("L", (120, 80))] * 2
    assert [len(views) for views in dataset["train"]["images"]] == [2, 1]
    assert load_dataset(str(tmp_path / "dataset"))["val"].num_rows == 1


def test_radiographs_that_have_gone_since_are_told(splits, tmp_path, full_disk):
    dataset, _ = made(splits, tmp_path / "dataset")
    splits["train"][1].images[0].unlink()
    with pytest.raises(DataError, match=r"T2/0\.png cannot be read"):
        dataset["train"][1]["images"]
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(DataError, match=r"\w/0\.png, which is not there any more: put"):
        load(tmp_path / "dataset")


PATTERNS = "run [v2]|[!a]|a]b|a*b|a?b|**|{a,b}|a#b|50%|a%20b|with spaces|Übung|日本"
SIGNS = """it's|say "x"|a:b|a,b|a=b&c;d|back\\slash|!(a)|~x|$5|-x|.hidden|data|train"""
NAMES = [
    *PATTERNS.split("|"),
    *SIGNS.split("|"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_may_have_any_name(splits, tmp_path, full_disk, name):
    """Of a run, of the radiographs that stay where they are, and of the library's copy."""
    datasets.config.HF_DATASETS_CACHE = tmp_path / name / "cache"
    for other in ("aXb", "ab", "v"):  # what a pattern would find besides
        made({"val": splits["val"]}, tmp_path / other / "dataset")
    there = view(tmp_path / name / "images", "T2/0.png", 40)
    splits["train"][1] = replace(splits["train"][1], images=(there,))
    dataset, skipped = made(splits, tmp_path / name / "dataset")
    ids = {split: list(rows["id"]) for split, rows in dataset.items()}
    assert ids == {"train": ["T1", "T2"], "val": ["V1"], "test": ["E1"]}
    assert skipped.empty and dataset["train"][1]["images"][0].getextrema() == (40, 40)
    made(splits, tmp_path / "plain" / "dataset")
    assert bytes_of(tmp_path / name / "dataset") == bytes_of(tmp_path / "plain" / "dataset")


def test_a_split_that_is_needed_and_has_no_images_is_told_with_what_to_do(phantom_studies, tmp_path):
    build({**phantom_studies, "test": []}, DatasetSettings(), tmp_path, data_label="phantoms")
    assert set(load(tmp_path)) == {"train", "val"}
    with pytest.raises(DataError, match=r"No test study has an image\. In 02, set DATA"):
        load(tmp_path, "test")
