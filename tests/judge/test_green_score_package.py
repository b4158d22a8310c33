"""The prompt and the parser of green-score, taken where the package can be had: the same as ours."""

import gzip
import importlib
import json
import shutil
import subprocess
import sys
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path

import published_models
import pytest
from conftest import ROOT
from test_judge import SECTIONS

from utils.judge import compare_green_score, green_score, judge_pairs, parse_completion, write_completion
from utils.judge.green import GreenEngine, ServerEngine, chat, our_prompt
from utils.judge.verdicts import our_reading
from utils.pages import opening

# What green-score's own code says of [reference, prediction, completion], in the environment of its versions.
THEIRS = """
import json, sys
from green_score.green import GREEN
from green_score.utils import make_prompt
green, said = GREEN(cpu=True), []
for reference, prediction, completion in json.load(open(sys.argv[1])):
    read = [green.parse_error_counts(completion, section) for section in green.categories]
    counts = [read[0][1], read[1][1], read[2][0]]
    said.append([make_prompt(reference, prediction), counts, green.compute_green(completion)])
json.dump(said, open(sys.argv[2], "w"))
"""
FORMS = [
    ("", ""),
    ("None.", "None."),
    ("No errors. (a) x: 3. y", "No matched findings."),
    ("(a) False report: 1. A nodule.\n(b) Missing: 2. x; y", "3. a; b; c"),
    ("(b) Missing: 1. x\n(b) Missing: 2. y", "1. a"),
    ("(1) False: 3. x\n(6) Omitting: 12. y", "10. Many"),
    ("(b) Missing: 1. x\n(1) False: 5. y", "2: a; b"),
    ("1. (a) False: 3. x\n2. (c) Place: 1. y", "The heart size."),
    ("(d) Severity: 1. mild: not severe: 2.", " 2. a; b"),
    ("(b) Missing: 3. x\n \t\n(c) Place: 1. y", "2"),
    ("(a) False: 007. x\r\n(e) Prior: 1. y", "02. a"),
    ("(a) False: ٣. x", "٤. a; b; c; d"),
    ("(a) False: 1.5. x\n(g) Other: 4. y\n (f) Omitting:  2. z", "-1. a"),
    ("(A) False: 1. x\n(c)Place: 1. y\n(c) : 1.", "1.\n2. b"),
]
PAIRS = [
    ("The heart is enlarged.", ""),
    ("a\n\nb\tc {reference} {", "café 中 <|user|>"),
    ("w " * 360, "x " * 301),
]


def forms() -> list[list[str]]:
    texts = [SECTIONS.format(significant=errors, matched=matched) for errors, matched in FORMS]
    texts += ["", "Please provide the report.", texts[3].replace("Clinically ", ""), texts[3] + texts[4]]
    texts += [f"[Explanation]:\n{texts[3]}", texts[3].replace("\n\n", "\n"), texts[3].replace("\n", "\r\n")]
    return [[*PAIRS[number % len(PAIRS)], text] for number, text in enumerate(texts)]


@pytest.fixture(scope="module")
def ask(old_python, tmp_path_factory):
    """Gives what green-score's own code says of answers."""

    def ask(answers):
        folder = tmp_path_factory.mktemp("theirs")
        (folder / "in.json").write_text(json.dumps(answers))
        command = [old_python, "-c", THEIRS, folder / "in.json", folder / "out.json"]
        done = subprocess.run(command, env=published_models.offline(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads((folder / "out.json").read_text())

    return ask


def check(answers, theirs):
    assert len(theirs) == len(answers)
    for (reference, prediction, completion), (prompt, counts, score) in zip(answers, theirs, strict=True):
        assert our_prompt(reference, prediction) == prompt
        one = our_reading(completion)
        assert [list(one.significant), list(one.insignificant), one.matched] == counts, completion
        assert one.score_as_published == score, completion


def test_all_recorded_answers_are_read_alike(ask, shared):
    with gzip.open(shared / "recorded" / "green_test.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    answers = [[row["reference"], row["prediction"], row["completion"]] for row in rows]
    assert len(answers) == 2360
    check(answers, ask(answers))


def test_answers_of_other_forms_are_read_alike(ask):
    check(forms(), ask(forms()))


# The package taken into this process


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where packages are found for this test alone; whatever is taken is left again after it."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "green_score"}
    for name in before:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(green_score, "_taken", [])
    monkeypatch.syspath_prepend(tmp_path / "packages")
    (tmp_path / "packages").mkdir()
    importlib.invalidate_caches()
    yield tmp_path / "packages"
    for name in [name for name in sys.modules if name.split(".")[0] == "green_score"]:
        del sys.modules[name]
    sys.modules.update(before)


def put(folder: Path, code: str, version: str = green_score.VERSION) -> None:
    """A green-score of a few lines."""
    (folder / "green_score").mkdir()
    (folder / "green_score" / "__init__.py").write_text("")
    (folder / "green_score" / "green.py").write_text(code)
    (folder / "green_score" / "utils.py").write_text("from green_score.green import make_prompt\n")
    (folder / f"green_score-{version}.dist-info").mkdir()
    about = f"Metadata-Version: 2.1\nName: green-score\nVersion: {version}\n"
    (folder / f"green_score-{version}.dist-info" / "METADATA").write_text(about)
    importlib.invalidate_caches()


OTHER = """
import logging, warnings
logging.getLogger("transformers").setLevel(logging.ERROR)
def make_prompt(reference, prediction): return f"Is {prediction} {reference}?"
class GREEN:
    categories = ["one", "two", "three"]
    def __init__(self, cpu, compute_summary_stats): warnings.filterwarnings("ignore", message="A decoder")
    def parse_error_counts(self, text, section):
        return {"one": (3, [1, 2, 0, 0, 0, 0]), "two": (1, [0] * 5 + [1]), "three": (7, [0] * 6)}[section]
    def compute_green(self, text): return 0.7
"""


def test_what_is_taken_is_what_asks_and_reads(folder):
    ours, answer = GreenEngine().fingerprint, write_completion("Why.", {"a": ["x"]}, {}, ["heart normal"])
    put(folder, OTHER)
    assert green_score.take() == "The judge's prompt and parser are those of green-score 0.0.12."
    assert chat("b", "a").startswith("<|user|>\nIs a b?</s>")
    assert GreenEngine().fingerprint != ours  # answers to another prompt are another judge's
    read = parse_completion(answer)
    assert (read.score, read.matched) == (0.7, 7)
    assert (read.significant, read.insignificant) == ((1, 2, 0, 0, 0, 0), (0, 0, 0, 0, 0, 1))
    assert (read.sentences, read.matched_findings) == ({"a": ("x",)}, ("heart normal",))  # the words are ours
    assert judge_pairs([("Heart is normal.", "Heart is normal.")])[0].score == 0.7
    said = compare_green_score([("b", "a", answer)])
    assert "1 known answers" in said and "prompt 0, counts 0, score 0" in said and "They differ" in said


def test_taking_it_silences_nothing(folder):
    from transformers.utils import logging

    put(folder, OTHER)
    before, filters = logging.get_verbosity(), warnings.filters[:]
    try:
        logging.set_verbosity_info()
        green_score.take()
        assert logging.get_verbosity() == logging.INFO and warnings.filters == filters
    finally:
        logging.set_verbosity(before)


@pytest.mark.parametrize(
    ("code", "version", "reason"),
    [
        (OTHER, "0.0.13", "green-score 0.0.13 is installed here, and not 0.0.12."),
        ("import xr_nowhere", "0.0.12", "ModuleNotFoundError: No module named 'xr_nowhere'"),
        ("from torch import xr_nowhere", "0.0.12", "ImportError: cannot import name 'xr_nowhere'"),
        (
            "raise RuntimeError('numpy\\n  changed')",
            "0.0.12",
            "does not import here (RuntimeError: numpy changed)",
        ),
        ("def make_prompt(): ...", "0.0.12", "has no attribute 'GREEN'"),
        ("class GREEN:\n    def __init__(self, **_): ...", "0.0.12", "cannot import name 'make_prompt'"),
    ],
)
def test_where_it_cannot_be_had_ours_stand_in_and_that_is_said(folder, code, version, reason):
    put(folder, code, version)
    said = green_score.take()
    assert said.startswith("The judge's prompt and parser are our own, as green-score") and reason in said
    assert "\n" not in said and green_score.taken() is None
    assert chat("b", "a") == f"<|user|>\n{our_prompt('b', 'a')}</s>\n<|assistant|>\n</s>\n<|assistant|>\n</s>"
    assert "not compared" in compare_green_score([("b", "a", "")])


def test_what_was_taken_once_is_left_where_it_is_there_no_more(folder):
    put(folder, OTHER)
    green_score.take()
    shutil.move(folder / "green_score-0.0.12.dist-info", folder / "green_score-0.0.11.dist-info")
    path = folder / "green_score-0.0.11.dist-info" / "METADATA"
    path.write_text(path.read_text().replace("0.0.12", "0.0.11"))
    assert "our own" in green_score.take() and green_score.taken() is None


# As notebook 04 has it: installed, then taken


@pytest.fixture
def index(folder, tmp_path, monkeypatch):
    """A package index with the real green-score alone, with what it asks for; pip installs into `folder`."""
    theirs = published_models.ENVIRONMENT.glob("lib/python3*/site-packages")
    for packages in theirs:
        for found in packages.glob("green_score*"):
            shutil.copytree(found, tmp_path / "wheel" / found.name)
    if not (tmp_path / "wheel").exists():
        pytest.skip(f"{published_models.ENVIRONMENT.name} is missing: make test makes it")
    with zipfile.ZipFile(tmp_path / "green_score-0.0.12-py3-none-any.whl", "w") as wheel:
        for path in sorted((tmp_path / "wheel").rglob("*")):
            if path.is_file() and path.suffix != ".pyc" and path.name not in ("INSTALLER", "REQUESTED"):
                wheel.write(path, path.relative_to(tmp_path / "wheel"))
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": tmp_path, "TARGET": folder}.items():
        monkeypatch.setenv(f"PIP_{name}", str(value))
    monkeypatch.setattr(
        opening, "_is_installed", lambda name: any(folder.glob(f"{name.replace('-', '_')}-*"))
    )
    return tmp_path


def test_the_notebook_installs_it_without_what_it_pins_and_takes_it(index, folder, capsys):
    fingerprint = GreenEngine().fingerprint
    said = opening.take_green_score()
    assert "Installing green-score==0.0.12" in capsys.readouterr().out
    assert {path.name.split("-")[0] for path in folder.iterdir()} - {"__pycache__"} == {"green_score"}
    if find_spec("sentence_transformers") is None:
        assert "No module named 'sentence_transformers'" in said  # which Colab has
        pytest.skip("sentence-transformers is missing: make test installs it")
    assert said == "The judge's prompt and parser are those of green-score 0.0.12."
    assert "prompt 21, counts 21, score 21." in compare_green_score(forms())
    assert len(forms()) == 21
    assert {GreenEngine().fingerprint, ServerEngine("http://localhost/v1").fingerprint} == {fingerprint}
    for *_, completion in forms():
        assert parse_completion(completion, "x") == our_reading(completion, "x")


def test_what_pip_cannot_fetch_is_said_in_the_same_words(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(opening, "_is_installed", lambda _: False)
    (asked := tmp_path / "requirements.txt").write_text("xr-nowhere==1.0\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    said = opening.take_green_score(asked)
    assert "pip could not install xr-nowhere==1.0: ERROR" in said and "\n" not in said


def test_the_pins_are_of_one_version():
    pins = [line for line in opening.GREEN_SCORE.read_text().splitlines() if not line.startswith("#")]
    assert pins == [f"green-score=={green_score.VERSION}"]
    makefile = (ROOT / "Makefile").read_text()
    assert "requirements-green-score.txt" in makefile and "green-score==" not in makefile
