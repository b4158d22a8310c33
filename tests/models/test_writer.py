"""Reports: written in batches, kept as they come, resumed, and never mixed up."""

import json
import shutil
from dataclasses import replace

import numpy as np
import probes
import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LogitsProcessor

from utils.findings.probe import WEIGHTS
from utils.models import loading, reading
from utils.models import writer as writing
from utils.models.decoding.drafts import Drafts
from utils.models.headings import EveryRegion
from utils.models.loading import READING
from utils.models.systems import MODEL, SHUFFLED
from utils.models.writer import Decoder, Writer, _question, other_studies, read_generations, write_reports
from utils.regions import REGIONS, heading, without_plan
from utils.run.workspace import StepError
from utils.settings import GenerationSettings, preset

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
    monkeypatch.setattr(Decoder, "read", lambda *_, **__: pytest.fail("a report was written again"))
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
    force, said = EveryRegion(writer.processor)(), []
    while (token := force.choose(tokenizer.eos_token_id)) != tokenizer.eos_token_id:  # always wants to stop
        said.append(token)
    assert tokenizer.decode(said) == " lung:\nheart:\nmediastinal:\nbone:"


class Forced(LogitsProcessor):
    """Headings in the library's own `generate`."""

    def __init__(self, form, rows, start):
        self.rules, self.start, self.form = [form() for _ in range(rows)], start, form

    def __call__(self, input_ids, scores):
        for row, rule in enumerate(self.rules):
            ended = self.form.end in input_ids[row, self.start :]
            token = self.form.end if ended else rule.choose(scores[row].argmax().item())
            scores[row] = -torch.inf
            scores[row, token] = 0
        return scores


def generated(writer, studies, most):
    """The reports of `studies` by the library's own greedy decoding, padded on the left."""
    processor = writer.processor
    batch = processor(
        images=studies,
        text=[_question(processor, len(views)) for views in studies],
        padding=True,
        padding_side="left",
        add_special_tokens=False,
        return_tensors="pt",
    )
    start = batch["input_ids"].shape[1]
    tokens = writer.model.generate(
        **batch,
        max_new_tokens=most,
        do_sample=False,
        eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
        logits_processor=[Forced(EveryRegion(processor), len(studies), start)],
    )
    return processor.batch_decode(tokens[:, start:], skip_special_tokens=True)


def test_reports_are_those_of_the_librarys_greedy_decoding_with_drafts_right_and_wrong(
    writer, phantom_dataset, monkeypatch
):
    studies = [study["images"] for study in phantom_dataset["test"]]
    studies[0] = studies[0][:1]  # another number of views, so another length
    expected = generated(writer, studies, 40)
    for reports in ([], expected, ["lung: A nodule.\nheart: Large.\nmediastinal: Wide.\nbone: Healed."]):
        monkeypatch.setattr(writer, "drafts", Drafts())
        writer.learn(reports)
        assert dict(writer.stream(studies, 40, at_once=2)) == dict(enumerate(expected))
        assert writer.write(studies, 40) == expected


def test_reports_already_written_make_the_next_ones_take_fewer_passes(writer, phantom_dataset, monkeypatch):
    passes, read = [], Decoder.read
    monkeypatch.setattr(Decoder, "read", lambda self, *a, **b: passes.append(1) or read(self, *a, **b))
    studies = [study["images"] for study in phantom_dataset["test"]]
    monkeypatch.setattr(writer, "drafts", Drafts())
    first = writer.write(studies, 60)
    before = len(passes)
    assert writer.write(studies, 60) == first
    assert len(passes) - before < before / 2


def test_batching_does_not_change_a_report(writer, phantom_dataset):
    studies = [study["images"] for study in phantom_dataset["test"]]
    alone = [writer.write([views], 12)[0] for views in studies[:3]]
    assert writer.write(studies[:3], 12) == alone


def test_as_many_studies_as_memory_holds_are_written_together(writer, phantom_dataset, monkeypatch):
    split = phantom_dataset["test"]
    split = split.select([n % len(split) for n in range(40)])
    sizes, read = [], Decoder.read
    monkeypatch.setattr(
        Decoder,
        "read",
        lambda self, cache, first, tokens, *a, **b: (
            sizes.append(len(tokens)) or read(self, cache, first, tokens, *a, **b)
        ),
    )
    texts = dict(writer.stream(split["images"], 16, GenerationSettings().batch_size))
    assert len(texts) == max(sizes) == 40
    sizes.clear()
    dict(writer.stream(split["images"], 16, 16))
    assert max(sizes) == 16


def test_studies_that_memory_does_not_hold_together_are_written_in_turn(
    writer, phantom_dataset, tmp_path, monkeypatch
):
    whole = write_reports(writer, phantom_dataset["test"], "test", tmp_path / "whole.jsonl", SHORT)
    read, room, sizes = Decoder.read, [1], []

    def full(self, cache, first, tokens, slots, keep=0):
        sizes.append(first + len(tokens))
        if sizes[-1] > room[0]:
            raise torch.OutOfMemoryError
        return read(self, cache, first, tokens, slots, keep)

    monkeypatch.setattr(Decoder, "read", full)
    rows = write_reports(writer, phantom_dataset["test"], "test", tmp_path / "parts.jsonl", SHORT)
    assert rows == whole and 2 in sizes
    room[0] = 0
    with pytest.raises(StepError, match="does not hold one study"):
        write_reports(writer, phantom_dataset["test"], "test", tmp_path / "none.jsonl", SHORT)


def test_reports_of_another_adapter_are_refused(writer, phantom_dataset, tmp_path):
    path = tmp_path / "generations.jsonl"
    line = {"system": MODEL, "split": "test", "id": "x", "text": "", "report": {}, "adapter": "other"}
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


def test_shuffled_studies_are_each_written_from_another(writer, phantom_dataset, tmp_path, monkeypatch):
    split = phantom_dataset["test"]
    order = other_studies(len(split))
    assert sorted(order) == list(range(len(split))) and all(i != other for i, other in enumerate(order))
    seen, real = [], writer.stream

    def watched(studies, *rest):
        for number, text in real(studies, *rest):
            seen.append(studies[number])  # in the order of the lines, as reports end
            yield number, text

    monkeypatch.setattr(writer, "stream", watched)
    write_reports(writer, split, "test", tmp_path / "g.jsonl", SHORT, SHUFFLED)
    pixels = {study["id"]: study["images"][0].tobytes() for study in split}
    by_pixels = {value: name for name, value in pixels.items()}
    assert {by_pixels[views[0].tobytes()] for views in seen} == set(split["id"])
    lines = [json.loads(line) for line in (tmp_path / "g.jsonl").read_text().splitlines()]
    assert all(by_pixels[views[0].tobytes()] != line["id"] for views, line in zip(seen, lines, strict=True))


def test_the_limits_of_studies_hold(writer, phantom_dataset, tmp_path):
    few = SHORT.model_copy(update={"studies": 4, "shuffled": 2})
    split, path = phantom_dataset["test"], tmp_path / "a.jsonl"
    written, spread = (write_reports(writer, split, "test", path, few, name) for name in (MODEL, SHUFFLED))
    assert [row["id"] for row in written] == split["id"][:4]
    assert [row["id"] for row in spread] == [split["id"][0], split["id"][2]]
    more = SHORT.model_copy(update={"studies": 2, "shuffled": 3})
    assert len(write_reports(writer, split, "test", tmp_path / "b.jsonl", more, SHUFFLED)) == 2


def test_an_adapter_of_an_unknown_kind_is_refused(adapter, tmp_path):
    broken = tmp_path / "adapter"
    shutil.copytree(adapter, broken)
    (broken / READING).unlink()
    with pytest.raises(StepError, match="03_qlora"):
        Writer(broken)


NAMES = ("effusion", "opacity", "cardiomegaly", "degenerative change")


@pytest.fixture(scope="module")
def planning(writer, adapter, phantom_dataset, tmp_path_factory):
    """The same adapter with a probe beside it that finds each finding in some of the test studies."""
    folder = tmp_path_factory.mktemp("planning") / "adapter"
    shutil.copytree(adapter, folder)
    probe = probes.by_chance(writer.features(phantom_dataset["test"], "test"), NAMES)
    probe.save(folder / loading.PROBE)
    return Writer(folder, recall_weight=1.0, kept=folder.parent / "features")


def plans_of(writer, split):
    """The plans of `split` as they are noted, some of which differ."""
    plans = writer.plans(writer.features(split, "test"))
    assert len({str(plan) for plan in plans}) > 1
    return [{region: list(names) for region, names in plan.items()} for plan in plans]


def test_a_report_has_its_plan_beside_it_and_plain_headings(planning, phantom_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "line_end", lambda *_: (False, "\n"))  # an untrained model ends no line
    split, long = phantom_dataset["test"], SHORT.model_copy(update={"max_new_tokens": 160})
    rows = write_reports(planning, split, "test", tmp_path / "g.jsonl", long)
    assert [row["plan"] for row in rows] == plans_of(planning, split)
    kept = {row["id"]: row for row in read_generations(tmp_path / "g.jsonl", planning.adapter)}
    assert kept == {row["id"]: row for row in rows}
    monkeypatch.setattr(writing, "without_plan", lambda text: text)
    raw = write_reports(planning, split, "test", tmp_path / "raw.jsonl", long)
    for row, planned in zip(rows, raw, strict=True):
        assert list(row["report"]) == list(REGIONS) and without_plan(planned["text"]) == row["text"]
        for text, plan in ((row["text"], {}), (planned["text"], row["plan"])):
            lines = text.strip().split("\n", 3)
            for line, region in zip(lines, REGIONS, strict=True):
                assert line.startswith(heading(region, plan.get(region, ())))


def test_reports_that_were_to_name_other_findings_are_written_anew(
    planning, phantom_dataset, tmp_path, monkeypatch
):
    split, path = phantom_dataset["test"], tmp_path / "g.jsonl"
    first = write_reports(planning, split, "test", path, SHORT)
    before = [row["plan"] for row in first]
    for weight in reversed(WEIGHTS):  # from much recall to little: the first that changes some plans
        monkeypatch.setattr(planning, "recall_weight", weight)
        now = plans_of(planning, split)
        if 0 < (changed := sum(one != two for one, two in zip(before, now, strict=True))) < len(split):
            break
    rows = write_reports(planning, split, "test", path, SHORT)
    assert [row["plan"] for row in rows] == now and 0 < changed < len(split)
    assert len(read_generations(path)) == len(split) + changed  # the others are kept
    monkeypatch.setattr(planning, "recall_weight", 1.0)
    monkeypatch.setattr(Decoder, "read", lambda *_, **__: pytest.fail("a report was written again"))
    assert write_reports(planning, split, "test", path, SHORT) == first


def test_shuffled_studies_have_the_plan_of_the_study_they_are_written_from(
    planning, phantom_dataset, tmp_path
):
    split = phantom_dataset["test"]
    plans, order = plans_of(planning, split), other_studies(len(split))
    rows = write_reports(planning, split, "test", tmp_path / "g.jsonl", SHORT, SHUFFLED)
    assert [row["plan"] for row in rows] == [plans[other] for other in order] != plans


def test_a_closed_writer_loads_its_model_again(adapter, phantom_dataset, tmp_path):
    writer, views = Writer(adapter), phantom_dataset["test"]["images"][:2]
    before, seen = writer.write(views, 16), writer.tower.see(views)
    writer.close()
    assert not {"model"} & (vars(writer).keys() | vars(writer.tower).keys())
    assert writer.write(views, 16) == before and np.array_equal(writer.tower.see(views), seen)
    writer.close()
    writer.close()  # nothing is left to free


def test_a_closed_writer_keeps_the_adapter_that_it_took(adapter, phantom_dataset, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    file = other / loading.ADAPTER_FILES[0]
    torch.manual_seed(0)
    save_file({name: torch.randn_like(one) for name, one in load_file(file).items()}, file)
    writer, views = Writer(adapter), phantom_dataset["test"]["images"][:2]
    first = writer.write(views, 16)
    taken = writer.take(other).write(views, 16)
    writer.close()
    assert writer.write(views, 16) == taken != first


def test_a_few_studies_are_written_as_they_are_in_a_split(planning, phantom_dataset, tmp_path):
    split = phantom_dataset["test"]
    rows = write_reports(planning, split, "test", tmp_path / "g.jsonl", SHORT)
    assert planning.write(split["images"][:2], SHORT.max_new_tokens) == [row["text"] for row in rows[:2]]
    assert planning.write([], 10) == []


def test_a_probe_without_findings_changes_nothing(writer, adapter, phantom_dataset, tmp_path):
    folder, split = tmp_path / "adapter", phantom_dataset["test"]
    shutil.copytree(adapter, folder)
    probes.NONE.save(folder / loading.PROBE)
    empty = Writer(folder)
    empty.probe = replace(empty.probe, weight=np.zeros((0, writer.features(split, "x")[0].size)))
    rows = write_reports(empty, split, "test", tmp_path / "g.jsonl", SHORT)
    assert [row["plan"] for row in rows] == [{region: [] for region in REGIONS}] * len(split)
    plain = write_reports(writer, split, "test", tmp_path / "h.jsonl", SHORT)
    assert [row["text"] for row in rows] == [row["text"] for row in plain]
    assert [row["plan"] for row in plain] == [{}] * len(split)
