"""A report's headings with each base model's real tokenizer, written by a model that follows a script."""

import pytest
from PIL import Image
from transformers import AutoProcessor, PreTrainedTokenizerFast
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from utils.data.hf_dataset import instruction
from utils.models.bases import REGISTRY
from utils.models.headings import EveryRegion
from utils.models.loading import load_processor
from utils.regions import REGIONS, heading, parse, render, without_plan
from utils.settings import DEMO_BASE

NAMES = [name for name in REGISTRY if name != "medgemma-4b-it"]  # no package carries Gemma's vocabulary
WHOLE = "lung: Clear.\nheart: Normal size.\nmediastinal: No widening.\nbone: No fracture."
AS_FILED = "-as-filed"  # the first with the normaliser in its tokenizer.json, which transformers 5 replaces


@pytest.fixture(scope="module", params=[*NAMES, AS_FILED, DEMO_BASE])
def processor(request):
    if request.param == DEMO_BASE:
        return load_processor(DEMO_BASE)
    published = request.getfixturevalue("published")
    name = request.param.removesuffix(AS_FILED) or NAMES[0]
    processor = AutoProcessor.from_pretrained(published / name)
    if request.param == AS_FILED:
        processor.tokenizer = PreTrainedTokenizerFast.from_pretrained(published / name)
    processor.chat_template = REGISTRY[name].chat_template
    return processor


def trained(processor, report):
    """The tokens of an answer as the trainer's collator makes them, with what ends it."""
    row = {
        "images": [Image.new("RGB", (64, 64))],
        "prompt": [{"role": "user", "content": instruction()}],
        "completion": [{"role": "assistant", "content": report}],
    }
    labels = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)([row])["labels"][0]
    return labels[labels != -100].tolist()


def written(processor, script, then=(), plan=None):
    """The tokens of a model that writes `script` and ends; after a heading set for it, it writes `then`.

    plan: the findings that the headings name
    """
    end = processor.tokenizer.eos_token_id
    force = EveryRegion(processor)(plan)
    said, wanted = [], [token for token in script if token != end]
    for _ in range(200):
        sure = force.ahead()
        token = force.choose(wanted[0] if wanted else end)
        assert not sure or token == sure[0]
        if token == end:
            return said
        said.append(token)
        if wanted and token == wanted[0]:
            wanted.pop(0)
        elif not wanted and not force.ahead():
            wanted = list(then)  # a forced heading has ended
    pytest.fail("the report does not end")


def test_a_report_that_names_all_regions_is_left_as_it_is_token_for_token(processor):
    script = trained(processor, WHOLE)
    assert written(processor, script) == script[:-1]  # the last one ends it
    assert processor.tokenizer.decode(script[:-1]).strip() == WHOLE


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_report_that_ends_early_gets_each_missing_heading_once(processor, kept):
    start = "\n".join(WHOLE.split("\n")[:kept])
    text = processor.tokenizer.decode(written(processor, trained(processor, start)))
    assert text.strip() == "\n".join([start, *(f"{name}:" for name in REGIONS[kept:])])


def test_findings_that_the_model_writes_after_a_forced_heading_are_its_own(processor):
    more = processor.tokenizer(" Unremarkable.", add_special_tokens=False)["input_ids"]
    text = processor.tokenizer.decode(written(processor, trained(processor, "lung: Clear."), more))
    findings = parse(text)
    assert list(findings) == list(REGIONS) and findings["lung"] == "Clear."
    assert {findings[name] for name in REGIONS[1:]} == {"Unremarkable."}


def test_another_line_than_the_next_region_gives_way_to_its_heading(processor):
    text = processor.tokenizer.decode(written(processor, trained(processor, "lung: Clear.\nThe end.")))
    assert (
        text.count("lung:") == text.count("heart:") == text.count("mediastinal:") == text.count("bone:") == 1
    )


def test_a_report_begins_with_the_tokens_of_training(processor):
    for report in (WHOLE, "lung: No pneumothorax.", "lung: 2 cm nodule."):
        first = EveryRegion(processor).first("lung:")
        assert trained(processor, report)[: len(first)] == first
    assert processor.tokenizer.decode(first).strip() == "lung:"


PLANS = [
    {"lung": ("opacity",), "heart": ("cardiomegaly",)},
    {"lung": ("effusion", "opacity", "nodule"), "bone": ("degenerative change",)},
    {"mediastinal": ("tortuous or calcified aorta",), "bone": ()},
    dict.fromkeys(REGIONS, ()),
]


@pytest.mark.parametrize("plan", PLANS)
def test_planned_headings_are_the_tokens_of_training(processor, plan):
    report = render(parse(WHOLE), plan)
    script = trained(processor, report)
    assert written(processor, script, plan=plan) == script[:-1]
    text = processor.tokenizer.decode(script[:-1])
    assert text.strip() == report and without_plan(text).strip() == WHOLE
    assert parse(without_plan(text)) == parse(WHOLE)


@pytest.mark.parametrize("plan", PLANS)
def test_a_report_that_ends_early_gets_each_missing_planned_heading(processor, plan):
    start = trained(processor, f"{heading('lung', plan.get('lung', ()))} Clear.")
    more = processor.tokenizer(" Seen.", add_special_tokens=False)["input_ids"]
    text = processor.tokenizer.decode(written(processor, start, more, plan))
    missing = [f"{heading(region, plan.get(region, ()))} Seen." for region in REGIONS[1:]]
    assert [" ".join(line.split()) for line in text.strip().split("\n")[1:]] == missing
    assert parse(without_plan(text)) == {"lung": "Clear.", **dict.fromkeys(REGIONS[1:], "Seen.")}


@pytest.mark.parametrize("named", ["lung (opacity):", "lung (effusion, nodule):"])
def test_a_planned_report_begins_with_the_tokens_of_training(processor, named):
    first = EveryRegion(processor).first(named)
    for said in ("Large left effusion.", "2 cm nodule.", "No pneumothorax."):
        assert trained(processor, f"{named} {said}")[: len(first)] == first
    assert processor.tokenizer.decode(first).strip() == named
