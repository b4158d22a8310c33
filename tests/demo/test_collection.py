"""The small base model for real radiographs: taught here on a few phantoms, killed, and used."""

import json

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from killed import Killed
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import Trainer
from transformers.trainer_callback import DefaultFlowCallback

from utils.data import hf_dataset, phantoms
from utils.data.studies import load_studies
from utils.models import loading
from utils.models.writer import Writer
from utils.settings import DatasetSettings, preset
from utils.training import collection

STUDIES, AT_ONCE, EPOCHS = 24, 8, 2
EPOCH = STUDIES // AT_ONCE  # steps


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    studies = load_studies(phantoms.write(folder / "data", STUDIES, 1, 1, seed=4, processes=1))
    settings = DatasetSettings(longest_side=150)
    dataset, _ = hf_dataset.build(
        {"train": studies["train"]}, settings, folder / "dataset", data_label="phantoms"
    )
    return dataset["train"]


@pytest.fixture(scope="module", autouse=True)
def short():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("EPOCHS_OF_SEEING", "EPOCHS_OF_WORDS"):
            patch.setattr(collection, name, EPOCHS)
        for name in ("SEEN_AT_ONCE", "READ_AT_ONCE"):
            patch.setattr(collection, name, AT_ONCE)
        patch.setattr(collection, "LEAST", 3)
        yield


@pytest.fixture(scope="module")
def base(train, tmp_path_factory):
    """The base model, taught without a fault."""
    return collection.taught(tmp_path_factory.mktemp("workspace") / collection.FOLDER, train)


def test_a_view_is_varied_a_little_and_each_otherwise():
    torch.manual_seed(0)
    views = torch.rand(1, 1, 64, 64).expand(8, -1, -1, -1)
    varied = collection._varied(views)
    assert varied.shape == views.shape and torch.isfinite(varied).all()
    assert len({one.sum().item() for one in varied}) == 8


def test_the_tower_is_taught_what_reports_say_and_nothing_of_what_they_leave_out(train):
    wanted, counted = collection.taught_findings(collection.findings(train))
    assert len(wanted) == STUDIES and 0 < counted < wanted.shape[1]
    for column in wanted.T:
        known = column[~column.isnan()]
        assert set(known.tolist()) == {0.0, 1.0}
    tower = collection.new_model(collection.new_processor(["x"], collection.SIDE, collection.PATCH))
    seeing = collection.Seeing(tower.model.vision_tower, wanted.shape[1], counted).eval()
    views = torch.zeros(2, collection.VIEWS, collection.SIDE, collection.SIDE, dtype=torch.uint8)
    nothing = seeing(views, torch.full((2, wanted.shape[1]), torch.nan))["loss"]
    assert nothing == 0


def test_a_study_with_one_view_has_it_twice_and_of_many_the_first_two_count(train):
    one, two = (
        train.select([0]).map(lambda row, count=count: {"images": (row["images"] * 3)[:count]})
        for count in (1, 3)
    )
    pixels = [collection._pixels(collection._smaller(split)) for split in (one, two)]
    assert pixels[0].shape == (1, 2, collection.SIDE, collection.SIDE)
    assert torch.equal(pixels[0][0, 0], pixels[0][0, 1]) and torch.equal(pixels[0][0, 0], pixels[1][0, 0])


@pytest.mark.slow
def test_the_base_loads_in_4_bits_and_a_writer_uses_it(base, train, tmp_path):
    figures = json.loads((base / collection.FIGURES).read_text())
    assert figures["studies"] == STUDIES and np.isfinite(figures["loss of words"])
    assert [path.name for path in base.parent.iterdir()] == [base.name]  # nothing is left beside it
    model = loading.load_model(str(base), "base", "fp32")
    quantised = [name for name, module in model.named_modules() if isinstance(module, Linear4bit)]
    assert len(quantised) == 4 * 7 and all("language_model" in name for name in quantised)
    assert model.num_parameters() == figures["parameters"]
    get_peft_model(model, loading.lora_config(preset("small").training)).save_pretrained(tmp_path)
    reading = {"base": str(base), "image_tokens": "base", "precision": "fp32", "views": 2}
    (tmp_path / loading.READING).write_text(json.dumps(reading))
    writer = Writer(tmp_path)
    studies = train.select(range(2))
    assert all(text.strip().startswith("lung:") for text in writer.write(studies["images"][:], 20))
    assert writer.features(studies, "train").shape == (2, 2, 2, collection.WIDTHS[-1])


@pytest.mark.slow
def test_the_tower_and_its_norms_are_those_of_the_first_lesson(base, train, tmp_path, monkeypatch):
    taken = []
    load = collection.load_model
    monkeypatch.setattr(
        collection, "load_model", lambda *given: (load(*given), taken.append(load_file(given[1])))
    )
    folder = collection.taught(tmp_path / collection.FOLDER, train)
    ((*names,),) = taken
    kept = load_file(folder / "model.safetensors")
    tower = {name.split("vision_tower.")[1]: value for name, value in kept.items() if "vision_tower." in name}
    assert set(tower) == set(names) and any("running_mean" in name for name in names)
    assert all(torch.equal(value, taken[0][name]) for name, value in tower.items())
    assert any(taken[0][name].abs().sum() > 0 for name in names if "running_mean" in name)  # it has learnt
    same_weights(folder, base)


def test_a_base_that_is_taught_is_not_taught_again(tmp_path, monkeypatch):
    monkeypatch.setattr(collection, "_smaller", lambda _: pytest.fail("it looks at the studies again"))
    folder = tmp_path / collection.FOLDER
    folder.mkdir()
    (folder / collection.FIGURES).write_text("{}")
    assert collection.taught(folder, []) == folder


def in_a_step(patch, lesson):
    def step(self, args, state, control, **_):
        if args.output_dir.endswith(lesson) and state.global_step == EPOCH + 2:
            raise Killed
        return ended(self, args, state, control)

    ended = DefaultFlowCallback.on_step_end
    patch.setattr(DefaultFlowCallback, "on_step_end", step)


def while_saving(patch, lesson):
    """The weights of the second epoch are written, what goes with them is not."""

    def save(self, folder):
        if self.args.output_dir.endswith(lesson) and self.state.global_step == 2 * EPOCH:
            raise Killed
        return saved(self, folder)

    saved = Trainer._save_optimizer_and_scheduler
    patch.setattr(Trainer, "_save_optimizer_and_scheduler", save)


@pytest.mark.slow
@pytest.mark.parametrize("place", [in_a_step, while_saving])
@pytest.mark.parametrize("lesson", ["seeing", "words"])
def test_a_lesson_that_was_killed_goes_on_from_its_last_whole_epoch_to_the_same_weights(
    base, train, tmp_path, monkeypatch, lesson, place
):
    folder = tmp_path / collection.FOLDER
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        place(patch, lesson)
        collection.taught(folder, train)
    assert not folder.exists()
    steps, ended = [], DefaultFlowCallback.on_step_end

    def noted(self, args, state, control, **_):
        steps.append((args.output_dir.rpartition("/")[2], state.global_step))
        return ended(self, args, state, control)

    monkeypatch.setattr(DefaultFlowCallback, "on_step_end", noted)
    assert collection.taught(folder, train) == folder
    rest = [(lesson, step) for step in range(EPOCH + 1, EPOCHS * EPOCH + 1)]
    more = [("words", step) for step in range(1, EPOCHS * EPOCH + 1)] if lesson == "seeing" else []
    assert steps == rest + more
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    same_weights(folder, base)


def same_weights(one, other):
    one, other = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert one.keys() == other.keys()
    for name, values in one.items():
        torch.testing.assert_close(values, other[name], msg=name)
