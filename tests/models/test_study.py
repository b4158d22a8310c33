"""A study of one's own: the report of a run, how sure the model was, and what fails in one sentence."""

import json
import shutil

import numpy as np
import pytest
import torch
from adapters import NAMES, untrained, with_probe
from data import dicom_files
from PIL import Image
from transformers import AutoConfig, AutoProcessor, LlavaNextForConditionalGeneration

from utils.data.studies import DataError
from utils.findings.plans import left_out
from utils.models import __main__ as command
from utils.models import loading
from utils.models.study import log_probabilities, open_views, plain_text, read_study, side_of
from utils.models.writer import Writer, questions
from utils.pages.own_study import study_view
from utils.regions import REGIONS, parse, without_plan

TOKENS = 60


@pytest.fixture(scope="module")
def adapter(tiny_base, tmp_path_factory, phantom_dataset):
    """An adapter with a probe that finds each finding in some of the test studies."""
    return with_probe(tiny_base, tmp_path_factory.mktemp("run") / "adapter", phantom_dataset["test"])


@pytest.fixture(scope="module")
def writer(adapter):
    return Writer(adapter)


@pytest.fixture(scope="module")
def paths(phantom_studies):
    return [study.images for study in phantom_studies["test"]]


def test_the_report_is_that_of_a_run(writer, phantom_dataset, paths):
    expected = writer.write([study["images"] for study in phantom_dataset["test"]], TOKENS)
    for study, text in zip(paths, expected, strict=True):
        found = read_study(writer, open_views(study, side_of(writer.reading)), TOKENS)
        assert found.report == parse(text)
        assert found.added == left_out(found.report, found.plan)
        assert found.views == len(study)
        for region, words in found.words.items():
            assert " ".join(word.text for word in words) == found.report[region]
            assert all(0 <= word.probability <= 1 for word in words)
        assert tuple(found.findings) == NAMES
        named = {name for names in found.plan.values() for name in names} & set(NAMES)
        assert named == {name for name, seen in found.findings.items() if seen >= found.threshold}


def test_what_the_model_leaves_out_of_its_plan_is_added_and_marked(writer, adapter, phantom_dataset):
    (images,) = phantom_dataset["test"].select([0])["images"]
    found = read_study(writer, images, TOKENS)
    for shown in (command.as_text(found, len(images)), study_view(images, found, writer)):
        assert found.added and all(text in shown for text in found.added.values())
        assert "as the probe sees it" in shown


def test_a_words_probability_is_the_models_own(writer, phantom_dataset):
    """Read once without our cache, as transformers reads a prompt and an answer."""
    views = [study["images"] for study in phantom_dataset["test"]][:2]
    found = read_study(writer, views[0], TOKENS)
    both = log_probabilities(writer.model, writer.processor, views, found.tokens)
    for study, sure in zip(views, both, strict=True):
        inputs = questions(writer.model, writer.processor, [study])
        answer = torch.tensor([found.tokens])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            logits = writer.model(**inputs).logits[0, -answer.shape[1] - 1 : -1]
        plain = logits.log_softmax(-1).gather(1, answer.T)[:, 0]
        assert np.allclose(sure, plain, atol=1e-4)
    raw = writer.processor.decode(found.tokens, skip_special_tokens=True)
    text, owners = plain_text(writer.processor, found.tokens)
    assert text == without_plan(raw) and len(owners) == len(text) and owners == sorted(owners)
    assert text != raw  # a heading has a plan
    end = text.index("\n") if "\n" in text else len(text)
    word = found.words["lung"][0]
    place = text.index(word.text, len("lung:"), end)
    tokens = sorted(set(owners[place : place + len(word.text)]))
    assert word.probability == pytest.approx(float(np.exp(both[0][tokens].sum())))


def test_views_beyond_those_that_the_adapter_reads_change_nothing(writer, phantom_dataset):
    views = max((study["images"] for study in phantom_dataset["test"]), key=len)
    two, three = (read_study(writer, given, TOKENS) for given in (views, [*views, views[0]]))
    assert two.report == three.report and three.views == 2


def test_without_a_probe_there_are_no_findings(tiny_base, tmp_path, phantom_dataset):
    writer, views = Writer(untrained(tiny_base, tmp_path)), phantom_dataset["test"][0]["images"]
    found = read_study(writer, views, TOKENS)
    assert found.findings == {} and found.plan == {} and set(found.words) <= set(REGIONS)


def test_a_closed_writer_reads_again(adapter, phantom_dataset):
    writer, views = Writer(adapter), phantom_dataset["test"][0]["images"]
    before = read_study(writer, views, TOKENS)
    writer.close()
    assert "model" not in vars(writer)
    assert read_study(writer, views, TOKENS).report == before.report


def test_json_holds_all_and_a_page_says_what_is_named(adapter, paths, capsys):
    command.main([str(adapter), *map(str, paths[0]), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"report", "added", "plan", "views", "findings", "threshold", "words", "note"}
    assert set(told["findings"]) == set(NAMES) and told["note"] == "Not for clinical use."
    assert [one["word"] for one in told["words"]["lung"]] == told["report"]["lung"].split()
    command.main([str(adapter), *map(str, [*paths[0], paths[0][0], paths[0][0]])])
    page = capsys.readouterr().out
    assert told["report"]["lung"] in page and "the first 2 of" in page and "Not for clinical use." in page
    named = [line for line in page.splitlines() if line.endswith("named")]
    assert len(named) == sum(seen >= told["threshold"] for seen in told["findings"].values())


@pytest.fixture
def forms(tmp_path, phantom_studies):
    """One view as step 2 takes it, in many forms."""
    view = Image.open(phantom_studies["test"][0].images[0])
    grey = np.asarray(view)
    clear = view.convert("RGBA")
    turned = view.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[274] = 6  # turn by 90 degrees clockwise to be upright
    saved = {
        "view.png": view.save(tmp_path / "view.png"),
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png"),
        "alpha.png": clear.save(tmp_path / "alpha.png"),
        "turned.png": turned.save(tmp_path / "turned.png", exif=exif),
        "colour.webp": view.convert("RGB").save(tmp_path / "colour.webp", lossless=True),
        "view.dcm": dicom_files.write(tmp_path / "view.dcm", grey.astype(np.uint16) * 16),
        "noname": dicom_files.write(tmp_path / "noname", grey.astype(np.uint16) * 16),
        "large.png": view.resize((2048, 2048)).save(tmp_path / "large.png"),
    }
    return view, [tmp_path / name for name in saved]


def test_every_form_that_step_2_takes_is_the_same_view(forms):
    view, paths = forms
    for path in paths:
        (found,) = open_views([path], 256)
        assert found.mode == "L" and found.size == view.size, path
        both = np.stack([np.asarray(image, float).ravel() for image in (found, view)])
        assert np.corrcoef(both)[0, 1] > 0.99, path  # 16 bits are stretched, as in step 2


def bad(tmp_path):
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    dicom_files.write(tmp_path / "ct.dcm", Modality="CT")
    (tmp_path / "folder.png").mkdir()
    cut = tmp_path / "cut.jpg"
    Image.effect_noise((300, 300), 60).save(cut)
    cut.write_bytes(cut.read_bytes()[:-2000])
    return ["notes.txt", "empty.png", "huge.png", "ct.dcm", "folder.png", "cut.jpg", "nowhere.png"]


def test_bad_input_is_one_sentence_that_names_the_file(adapter, tmp_path, capsys):
    for name in bad(tmp_path):
        with pytest.raises(SystemExit) as stopped:
            command.main([str(adapter), str(tmp_path / name)])
        said = str(stopped.value)
        assert name in said and said.endswith("pixels.") and "\n" not in said, said
        assert said.count(". ") == 1, said
    assert capsys.readouterr() == ("", "")
    with pytest.raises(DataError, match="There is no image"):
        open_views([], 256)


@pytest.fixture
def copied(adapter, tmp_path):
    """Copies the adapter, with other values in the note of how it reads a study."""

    def copy(**values):
        folder = shutil.copytree(adapter, tmp_path / "copy", dirs_exist_ok=True)
        note = json.loads((folder / loading.READING).read_text())
        (folder / loading.READING).write_text(json.dumps(note | values))
        return folder

    return copy


def refusal(adapter, path):
    """What the command says where it stops."""
    with pytest.raises(SystemExit) as stopped:
        command.main([str(adapter), str(path)])
    assert "\n" not in str(stopped.value)
    return str(stopped.value)


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": 256}, {"num_hidden_layers": 1}, {"num_hidden_layers": 6}],
    ids=["wider", "fewer layers", "more layers"],
)
def test_an_adapter_of_another_base_is_one_sentence(copied, tmp_path, paths, change, tiny_base):
    processor = AutoProcessor.from_pretrained(tiny_base)
    config = AutoConfig.from_pretrained(tiny_base)
    for name, value in change.items():
        assert getattr(config.text_config, name) != value
        setattr(config.text_config, name, value)
    processor.save_pretrained(tmp_path / "other")
    LlavaNextForConditionalGeneration(config).save_pretrained(tmp_path / "other")
    said = refusal(copied(base=str(tmp_path / "other")), paths[0][0])
    assert "adapter of another base model than" in said


def test_what_is_missing_or_damaged_is_one_sentence(copied, tmp_path, paths):
    view = paths[0][0]
    assert "is not a model that can be loaded" in refusal(copied(base=str(tmp_path / "gone")), view)
    assert "There is no adapter in" in refusal(tmp_path, view)
    weights = copied() / loading.ADAPTER_FILES[0]
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot be read" in refusal(weights.parent, view)
    weights.unlink()
    assert "cannot be read" in refusal(weights.parent, view)
