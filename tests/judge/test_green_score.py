"""Our judge against green-score 0.0.12's own code, which runs in the environment of the published versions.

Both ask the same small random judge, saved as GREEN was published, in full precision: in fp16 a batch
rounds otherwise than one pair alone, in either code.
"""

import json
import subprocess

import published_models
import pytest

from utils.judge import green
from utils.judge.green import GreenEngine
from utils.models.decoding.decoder import Decoder

SCRIPT = published_models.SCRIPTS / "green_score_answers.py"
NEW_TOKENS = 48  # as in the script
PAIRS = [
    ("The heart is enlarged.", "Heart size is normal."),
    ("No pleural effusion. Lungs are clear. " * 8, "lungs are clear ; no effusion ."),
    ('Loss of height ("old") – 3 × 2 cm; café, 中, XXXX <|user|> [x]', "a\n\nb\tc {reference}"),
    ("The lungs are clear. " * 90, "Cardiomegaly. " * 40),  # 360 words, cut at 300
    ("Heart.", ""),
]


@pytest.fixture(scope="module")
def theirs(old_python, published, tmp_path_factory) -> dict[str, list]:
    """What green-score reads and answers, in the order of PAIRS: `ids`, `alone` and `together`."""
    folder = tmp_path_factory.mktemp("green_score")
    pairs, out = folder / "pairs.json", folder / "out.json"
    pairs.write_text(json.dumps(PAIRS))
    command = [old_python, SCRIPT, published / "green", pairs, out]
    environment = {**published_models.offline(), "HF_HOME": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def engine(published) -> GreenEngine:
    """Our engine with the same judge, which `load` gives in full precision too."""
    engine = GreenEngine(published / "green", "fp16", max_new_tokens=NEW_TOKENS)
    engine.load()[0].float()
    return engine


def read(engine: GreenEngine, monkeypatch) -> list[list[int]]:
    """The token ids that the engine has the model read for PAIRS, without padding, in any order."""
    forward, found = Decoder.read, []

    def seen(self, cache, first, tokens, slots, keep=0):
        if keep and (known := int(slots[0, 0])):  # prompts, after the start that they share
            rows = [ids[: ids.nonzero().max() + 1].tolist() for ids in tokens]  # padding is 0
            found.extend(self.start[:known] + row for row in rows)
        return forward(self, cache, first, tokens, slots, keep)

    monkeypatch.setattr(Decoder, "read", seen)
    list(engine.ask(PAIRS))
    return found


def test_the_pairs_are_of_different_lengths_and_get_different_answers(theirs):
    lengths = {len(ids) for ids in theirs["ids"]}
    assert len(lengths) == len(set(theirs["alone"])) == len(PAIRS)
    assert max(lengths) > min(lengths) + 500


def test_the_model_reads_the_same_tokens_as_in_green_score(engine, theirs, monkeypatch):
    assert sorted(read(engine, monkeypatch)) == sorted(theirs["ids"])


@pytest.mark.parametrize("batch_size", [1, len(PAIRS)])
def test_the_answers_are_those_of_green_score(engine, theirs, batch_size):
    engine.batch_size = batch_size
    ours = dict(engine.ask(PAIRS))
    # green-score keeps the line break of its own chat format before an answer.
    expected = [green.answer(text).strip() for text in theirs["alone"]]
    assert [ours[index].strip() for index in range(len(PAIRS))] == expected
    assert theirs["together"] == theirs["alone"]
