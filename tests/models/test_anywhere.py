"""An adapter without this project: the same reports with transformers and peft alone, at each budget."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import clean_site
import numpy as np
import pytest
import torch
from adapters import an_adapter, reader_of, shared
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from utils.data import phantoms
from utils.models import anywhere, bases, loading
from utils.models.writer import Writer
from utils.settings import BUDGETS

NEEDED = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "pillow", "safetensors", "numpy")
STUDIES, TOKENS, WEIGHT = 8, 60, 1.0
RUN = """
import importlib.util, json, sys
from pathlib import Path
packages, project, *repositories = sys.argv[1:]
sys.path.append(packages)
for name in ("utils", "trl", "datasets", "sklearn", "pandas", "tests"):
    assert importlib.util.find_spec(name) is None, name
said = {}
for name in repositories:
    space = {}
    exec(open(f"{name}.py").read(), space)
    views = lambda number: [space["Image"].open(path) for path in sorted(Path(str(number)).iterdir())]
    said[name] = [space["reader"].report(views(number)) for number in range(int(open("count").read()))]
assert not any(project in (getattr(module, "__file__", None) or "") for module in sys.modules.values())
json.dump(said, open("said.json", "w"))
"""


@pytest.mark.slow
def test_the_cards_code_writes_the_same_reports_with_nothing_of_this_project(tmp_path):
    studies = [phantoms.draw((11, 2, number)).views for number in range(STUDIES)]
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    expected = {}
    for budget in BUDGETS:
        adapter = an_adapter(tmp_path / budget, "demo", budget, studies)
        writer = Writer(adapter, recall_weight=WEIGHT)
        plans = writer.plans(writer.tower.see(studies))
        expected[budget] = dict(writer.stream(studies, TOKENS, plans=plans))
        expected[budget] = [expected[budget][number] for number in range(STUDIES)]
        assert len(set(expected[budget])) > STUDIES / 2 and len({str(plan) for plan in plans}) > 3
        repository = home / "hub" / f"models--me--{budget}"
        shared(adapter, repository / "snapshots" / ("0" * 40), TOKENS, WEIGHT)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)
    for number, views in enumerate(studies):
        (elsewhere / str(number)).mkdir(parents=True)
        for place, view in enumerate(views):
            view.save(elsewhere / str(number) / f"{place}.png")
    shutil.copy(elsewhere / "0" / "0.png", elsewhere / "frontal.png")
    shutil.copy(elsewhere / "0" / "1.png", elsewhere / "lateral.png")
    (elsewhere / "count").write_text(str(STUDIES))
    for budget in expected:
        how = loading.how_to_read(tmp_path / budget)
        code = anywhere.snippet(how, f'snapshot_download("me/{budget}")', str(anywhere.find("demo").weights))
        (elsewhere / f"{budget}.py").write_text(code)
    (elsewhere / "run.py").write_text(RUN)
    packages = clean_site.link(tmp_path / "packages", *NEEDED)
    project = str(Path(anywhere.__file__).parents[2])
    command = [sys.executable, "-I", "-S", "run.py", str(packages), f"{project}/utils", *expected]
    settings = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=elsewhere, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((elsewhere / "said.json").read_text()) == expected
    assert done.stdout.startswith(expected["tiles"][0])


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory):
    """An untrained base whose tower is convolutions, as the preset `small` teaches it."""
    from utils.training import collection

    folder = tmp_path_factory.mktemp("convolutions") / "base"
    processor = collection.new_processor(["lung: clear. heart: normal."], collection.SIDE, collection.PATCH)
    collection.new_model(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("image_tokens", ["base", "frontal", "pooled"])
def test_a_tower_of_convolutions_is_read_the_same(convolutions, image_tokens, tmp_path):
    studies = [phantoms.draw((11, 2, number)).views for number in range(3)]
    adapter = an_adapter(tmp_path / "adapter", convolutions, image_tokens, studies)
    reader = reader_of(adapter, tmp_path / "shared", 40, WEIGHT)
    expected = Writer(adapter, recall_weight=WEIGHT).write(studies, 40)
    assert [reader.report(views) for views in studies] == expected and len(set(expected)) > 1


def as_(mode):
    return lambda views: [view.convert(mode) for view in views]


@pytest.fixture(scope="module", params=["frontal", "pooled"])
def both(request, tmp_path_factory, tiny_base):
    """The project's writer and the card's reader of an adapter that has no probe."""
    folder = tmp_path_factory.mktemp("both")
    adapter = an_adapter(folder / "adapter", str(tiny_base), request.param)
    return Writer(adapter), reader_of(adapter, folder / "shared", 40)


@pytest.mark.parametrize(
    "changed",
    [
        lambda views: views[:1],
        lambda views: [*views, *views],  # more views than it was taught with
        lambda views: [views[0].resize((301, 97)), views[1].resize((64, 640))],
        as_("RGB"),
        as_("RGBA"),
        as_("P"),
    ],
    ids=["one view", "four views", "odd sizes", "RGB", "RGBA", "palette"],
)
def test_views_of_any_number_size_and_mode_are_read_the_same(both, changed):
    writer, reader = both
    views = changed(phantoms.draw((12, 2, 0)).views)
    assert [reader.report(views)] == writer.write([views], 40)


def test_studies_of_one_and_of_two_views_are_written_together_as_alone(both):
    writer, reader = both
    studies = [phantoms.draw((12, 2, number)).views[: 1 + number % 2] for number in range(4)]
    assert writer.write(studies, 40) == [reader.report(views) for views in studies]


@pytest.fixture(params=["vision-in-4-bits", "vision-in-16-bits"])
def copied(request, published, monkeypatch):
    """A base of the registry whose weights are a published copy in 4 bits, of bfloat16."""
    name = "llava-v1.6-mistral-7b"
    places = {"processor": str(published / name), "weights": str(published / "copies" / request.param)}
    monkeypatch.setitem(bases.REGISTRY, name, replace(bases.REGISTRY[name], **places))
    bases.find.cache_clear()
    yield name
    bases.find.cache_clear()


def test_a_published_copy_in_4_bits_computes_as_in_training(copied, tmp_path):
    adapter = an_adapter(tmp_path / "adapter", copied, "pooled")
    reader, writer = reader_of(adapter, tmp_path / "shared", 30), Writer(adapter)
    kinds = {name: weight.dtype for name, weight in writer.model.named_parameters()}
    assert {name: kinds[name] for name, _ in reader.model.named_parameters()} == {
        name: weight.dtype for name, weight in reader.model.named_parameters()
    }
    studies = [phantoms.draw((11, 2, number)).views for number in range(3)]
    assert [reader.report(views) for views in studies] == writer.write(studies, 30)


@pytest.mark.parametrize("image_tokens", ["base", "pooled"])
def test_a_view_read_whole_has_the_pixels_and_tokens_of_training(tiny_base, image_tokens):
    rng = np.random.default_rng(0)
    views = [Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)) for size in ((97, 301), (112, 112))]
    ours = loading.load_processor(str(tiny_base), image_tokens)
    theirs = anywhere.processor_of({"base": str(tiny_base), "image_tokens": image_tokens})
    text = ["<image>\n<image>\nWrite."]
    one, other = (processor(images=[views], text=text, return_tensors="pt") for processor in (ours, theirs))
    assert torch.equal(one["input_ids"], other["input_ids"])
    assert torch.equal(one["pixel_values"][:, 0], other["pixel_values"])


def test_base_needs_no_code_at_all_but_transformers(tiny_base, tmp_path):
    how = {"base": str(tiny_base), "image_tokens": "base", "precision": "fp32"}
    views, text = phantoms.draw((12, 2, 0)).views, ["<image>\n<image>\nWrite."]
    for part in (anywhere.config_of(how), anywhere.processor_of(how)):
        part.save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    theirs, ours = (
        AutoModelForImageTextToText.from_pretrained(tiny_base, dtype=torch.float32, config=config).eval()
        for config in (AutoConfig.from_pretrained(tmp_path), None)
    )
    assert isinstance(theirs, LlavaForConditionalGeneration)
    inputs = processor(images=[views], text=text, return_tensors="pt")
    before = loading.load_processor(str(tiny_base), "base")(images=[views], text=text, return_tensors="pt")
    with torch.no_grad():
        wanted = loading.set_budget(ours, "base")(**before).logits
        torch.testing.assert_close(theirs(**inputs).logits, wanted)
