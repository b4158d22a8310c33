"""Answers of language models that are nearly the JSON that was asked for."""

import json

import loopback
import pytest

from utils import split
from utils.regions import ALL
from utils.split.auditing import failures
from utils.split.offline import split_offline
from utils.split.reading import read_answer, whole

TEXT = (
    "The lungs are clear. No pleural effusion on the left. Heart size is normal. The aorta is tortuous. "
    "Mild scoliosis of the spine. The catheter tip is in the right atrium."
)
RIGHT = {
    "lung": "The lungs are clear. No pleural effusion on the left.",
    "heart": "Heart size is normal.",
    "mediastinal": "The aorta is tortuous.",
    "bone": "Mild scoliosis of the spine.",
    "others": "The catheter tip is in the right atrium.",
}
GOOD = json.dumps(RIGHT)
MISPLACED = RIGHT | {"heart": "", "mediastinal": "Heart size is normal. The aorta is tortuous."}
SCHEMA = json.dumps({"properties": {name: {"type": "string"} for name in ALL}, "required": list(ALL)})
EXAMPLE = json.dumps(dict.fromkeys(ALL, "") | {"lung": "Large pneumothorax."})


def lines(**changed):
    """The answer as weak models lay it out, a name a line."""
    values = {name: f'"{text}"' for name, text in RIGHT.items()} | changed
    return "{\n" + ",\n".join(f'\t"{name}": {value}' for name, value in values.items()) + "\n}"


NEARLY = {
    "a raw newline and a raw tab in a string": GOOD.replace("clear. ", "clear.\n").replace(
        "Heart ", "Heart\t"
    ),
    "a trailing comma": GOOD[:-1] + ",}",
    "a trailing comma, over many lines with tabs": f"```json\n{lines()[:-2]},\n}}\n```",
    "a trailing comma and a raw newline": GOOD[:-1].replace("clear. ", "clear.\n") + ",}",
    "a list of sentences": lines(lung='["The lungs are clear", "No pleural effusion on the left."]'),
    "a list of sentences with a trailing comma": lines(
        lung='["The lungs are clear.", "No pleural effusion on the left.",]'
    ),
    "an empty list and null": GOOD[:-1] + ', "bones": [], "other": null}',
    "sentences under names of their own": lines(
        lung='{"airspace": "The lungs are clear.", "pleura": "No pleural effusion on the left."}'
    ),
    "a name twice": GOOD.replace(" No pleural", '", "lung": "No pleural'),
    "capitals": json.dumps({name.upper(): text for name, text in RIGHT.items()}),
    "plurals and spaces": GOOD.replace('"lung"', '" Lungs "').replace('"bone"', '"bones"'),
    "other": GOOD.replace('"others"', '"Other"'),
    "other words": GOOD.replace('"heart"', '"cardiac"').replace("mediastinal", "Mediastinum_findings"),
    "pleura apart": GOOD.replace(" No pleural", '", "pleura": "No pleural'),
    "Python's quotes": str(RIGHT | {"none": None}),
    "names without quotes": GOOD.replace('"bone"', "bone").replace('"lung"', "lung"),
    "a comment": lines(lung=f'"{RIGHT["lung"]}"').replace(',\n\t"heart"', ', # pleura too\n\t"heart"'),
    "no closing brace": GOOD[:-1],
    "no closing quote": GOOD[:-2],
    "None for nothing": json.dumps({"id": 3, "Lungs": "None.", "hila": "N/A", **RIGHT}),
    "a draft in <think>": f"<think>Perhaps {json.dumps(MISPLACED)}</think>{GOOD}",
    "the end of a draft": f"Perhaps {json.dumps(MISPLACED)}</think>\n{GOOD}",
    "a draft in <seed:think>": f"<seed:think>{json.dumps(MISPLACED)}</seed:think>{GOOD}",
    "a draft in [THINK]": f"[THINK]{json.dumps(MISPLACED)}[/THINK]{GOOD}",
    "a draft in a channel": f"<|channel|>analysis<|message|>{json.dumps(MISPLACED)}<|end|>"
    f"<|channel|>final<|message|>{GOOD}",
    "a draft that is taken back": f"{json.dumps(MISPLACED)}\nThe heart has a key of its own:\n{GOOD}",
    "the schema first": f"{SCHEMA}\n{GOOD}",
    "the form first": json.dumps(dict.fromkeys(ALL, "...")) + "\n" + GOOD,
    "an example after it": f"{GOOD}\nThe example was {EXAMPLE}",
    "within another object": json.dumps({"split": RIGHT}),
    "in a list": json.dumps([RIGHT]),
    "half a character": json.dumps(RIGHT | {"bone": RIGHT["bone"] + " \ud83e"}),
    "half a character and a trailing comma": GOOD[:-2] + ' \\ud83e",}',
}


@pytest.mark.parametrize("content", NEARLY.values(), ids=NEARLY)
def test_an_answer_that_is_nearly_right_is_read(content):
    assert read_answer(content, TEXT) == RIGHT


UNREADABLE = {
    "nothing": None,
    "prose": "I cannot {help} with that.",
    "a number": json.dumps(RIGHT | {"lung": 3}),
    "another object": '{"findings": "The lungs are clear."}',
    "thoughts that do not end": f"<think>Perhaps {GOOD}",
    "a nest without end": '{"a": ' * 5000,
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_answer_is_not_taken_for_one(content):
    assert read_answer(content, TEXT) is None


@pytest.mark.parametrize("end", ["", '"', '", "heart": "Heart size is normal." "bone"', '"\n```'])
def test_what_a_broken_answer_has_is_read_and_the_audit_finds_what_it_lacks(end):
    found = read_answer('{"lung": "The lungs are clear.' + end, TEXT)
    assert found["lung"] == "The lungs are clear." and found["bone"] == ""
    assert '"Mild scoliosis of the spine." is left out' in failures(TEXT, found)


def test_characters_beyond_the_first_plane_are_kept_and_halves_go():
    assert whole("a\U0001fac1\ud83eb") == "a\U0001fac1b"
    assert read_answer('{"lung": "\\ud83e\\udec1 clear",}', TEXT)["lung"] == "\U0001fac1 clear"


@pytest.mark.parametrize("name", ["a raw newline and a raw tab in a string", "capitals", "a trailing comma"])
def test_a_server_that_answers_so_is_asked_once_and_nothing_is_repaired(name):
    with loopback.serving(loopback.Server(lambda text, turn, body: NEARLY[name])) as server:
        splits, audit = split.split_and_audit([TEXT], "openai", model="m", base_url=server.url)
    assert splits == [RIGHT] and not audit["repaired"].any() and len(server.calls) == 1


def test_the_reports_that_no_sentence_of_the_model_came_through_are_counted():
    texts = [TEXT, "Heart size is normal.", "The lungs are clear. Mild scoliosis.", "", "XXXX."]
    answers = [RIGHT, dict.fromkeys(ALL, ""), RIGHT | {"lung": "The lungs are clear."}, {}, {}]
    _, audit = split.repair(texts, answers)
    assert split.left_to_offline(audit) == 2
    assert split.left_to_offline(split.audit(texts, [split_offline(text) for text in texts])) == 0
    assert split.left_to_offline(split.repair([], [])[1]) == 0
