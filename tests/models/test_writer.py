"""Reports: written in batches, kept as they come, resumed, and never mixed up."""

import json
import shutil

import pytest
import torch
from peft import get_peft_model

from utils.models import loading
from utils.models.loading import READING
from utils.models.writer import (
    MODEL,
    SHUFFLED,
    EveryRegion,
    Writer,
    other_studies,
    read_generations,
    write_reports,
)
from utils.regions import REGIONS
from utils.settings import GenerationSettings, preset
from utils.workspace import StepError

SHORT = GenerationSettings(batch_size=2, max_new_tokens=16)


@pytest.fixture(scope="module")
def adapter(tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    reading = {"base": str(tiny_base), "image_tokens": "base", "precision": "fp32"}
    get_peft_model(
        loading.load_model(**reading), loading.lora_config(preset("demo").training)
    ).save_pretrained(folder)
    (folder / READING).write_text(json.dumps({**reading, "views": 2}))
    return folder


@pytest.fixture(scope="module")
def writer(adapter):
    return Writer(adapter)


def test_every_study_gets_a_report_and_none_twice(writer, phantom_dataset, tmp_path, monkeypatch):
    path, split = tmp_path / "generations.jsonl", phantom_dataset["test"]
    rows = write_reports(writer, split, "test", path, SHORT)
    assert [row["id"] for row in rows] == split["id"]
    monkeypatch.setattr(writer, "write", lambda *_: pytest.fail("a report was written again"))
    assert write_reports(writer, split, "test", path, SHORT) == rows


def test_a_line_cut_off_by_a_kill_is_left_out_said_and_written_again(writer, phantom_dataset, tmp_path):
    path, split = tmp_path / "generations.jsonl", phantom_dataset["test"]
    rows = write_reports(writer, split, "test", path, SHORT)
    whole = path.read_bytes()
    path.write_bytes(whole[:-25])
    with pytest.warns(UserWarning, match="cut off"):
        assert write_reports(writer, split, "test", path, SHORT) == rows
    assert set(whole.splitlines()) <= set(path.read_bytes().splitlines())


def test_every_report_names_every_region_once_and_in_order(writer, phantom_dataset):
    texts = writer.write([study["images"] for study in phantom_dataset["test"]], 80)
    for text in texts:
        # An untrained model may use up its tokens before the last line.
        names = [line.split(":")[0].strip() for line in text.split("\n")]
        assert names and tuple(names) == REGIONS[: len(names)]


def test_a_line_that_ends_is_followed_by_the_next_heading(writer):
    tokenizer = writer.processor.tokenizer
    force = EveryRegion(writer.processor, 3)
    ids, said = torch.zeros(1, 3, dtype=torch.long), []
    for _ in range(100):
        scores = torch.zeros(1, len(tokenizer))
        scores[0, tokenizer.eos_token_id] = 1  # a model that always wants to stop
        token = force(ids, scores).argmax(-1)
        if token.item() == tokenizer.eos_token_id:
            break
        said.append(token.item())
        ids = torch.cat([ids, token[None]], dim=1)
    assert tokenizer.decode(said) == " lung:\nheart:\nmediastinal:\nbone:"


def test_batching_does_not_change_a_report(writer, phantom_dataset):
    studies = [study["images"] for study in phantom_dataset["test"]]
    alone = [writer.write([views], 12)[0] for views in studies[:3]]
    assert writer.write(studies[:3], 12) == alone


def test_a_batch_that_memory_does_not_hold_is_written_in_parts(
    writer, phantom_dataset, tmp_path, monkeypatch
):
    whole = write_reports(writer, phantom_dataset["test"], "test", tmp_path / "whole.jsonl", SHORT)
    write, sizes = writer.write, []

    def full(studies, most):
        sizes.append(len(studies))
        if len(studies) > 1:
            raise torch.OutOfMemoryError
        return write(studies, most)

    monkeypatch.setattr(writer, "write", full)
    rows = write_reports(writer, phantom_dataset["test"], "test", tmp_path / "parts.jsonl", SHORT)
    assert rows == whole and 2 in sizes
    monkeypatch.setattr(writer, "write", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(StepError, match="does not hold one study"):
        write_reports(writer, phantom_dataset["test"], "test", tmp_path / "none.jsonl", SHORT)


def test_reports_of_another_adapter_are_refused(writer, phantom_dataset, tmp_path):
    path = tmp_path / "generations.jsonl"
    line = {
        "system": MODEL,
        "split": "test",
        "id": "x",
        "text": "",
        "report": {},
        "adapter": "other",
    }
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(StepError, match="another adapter"):
        write_reports(writer, phantom_dataset["test"], "test", path, SHORT)
    assert json.loads(path.read_text()) == line


def test_a_foreign_file_is_named_and_left_alone(tmp_path):
    path = tmp_path / "generations.jsonl"
    path.write_text("my notes\n")
    with pytest.raises(StepError, match=r"generations\.jsonl, line 1 is not a report"):
        read_generations(path, "a")
    assert path.read_text() == "my notes\n"


def test_shuffled_studies_are_each_written_from_another(writer, phantom_dataset, tmp_path):
    split = phantom_dataset["test"]
    order = other_studies(len(split))
    assert sorted(order) == list(range(len(split))) and all(i != other for i, other in enumerate(order))
    seen = []
    real = writer.write
    writer.write = lambda studies, most: seen.extend(studies) or real(studies, most)
    try:
        write_reports(writer, split, "test", tmp_path / "g.jsonl", SHORT, SHUFFLED)
    finally:
        writer.write = real
    pixels = {study["id"]: study["images"][0].tobytes() for study in split}
    by_pixels = {value: name for name, value in pixels.items()}
    assert {by_pixels[views[0].tobytes()] for views in seen} == set(split["id"])
    lines = [json.loads(line) for line in (tmp_path / "g.jsonl").read_text().splitlines()]
    assert all(by_pixels[views[0].tobytes()] != line["id"] for views, line in zip(seen, lines, strict=True))


def test_the_limits_of_studies_hold(writer, phantom_dataset, tmp_path):
    few = SHORT.model_copy(update={"studies": 2, "shuffled": 3})
    split = phantom_dataset["test"]
    assert len(write_reports(writer, split, "test", tmp_path / "a.jsonl", few)) == 2
    assert len(write_reports(writer, split, "test", tmp_path / "a.jsonl", few, SHUFFLED)) == 3


def test_an_adapter_of_an_unknown_kind_is_refused(adapter, tmp_path):
    broken = tmp_path / "adapter"
    shutil.copytree(adapter, broken)
    (broken / READING).unlink()
    with pytest.raises(StepError, match="03_qlora"):
        Writer(broken)
