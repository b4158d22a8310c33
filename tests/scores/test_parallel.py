"""Step 4 on several processes: killed or not, two of them leave what one does."""

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import chain

import psutil
import published_models
import pytest
from conftest import ROOT
from page_text import text

from utils.data import hf_dataset
from utils.models.features import FOLDER
from utils.models.systems import BASE, MODEL
from utils.models.systems import SHUFFLED as SHUFFLED_IMAGES
from utils.models.writer import read_generations
from utils.pages import evaluation_desk
from utils.run.answers import files_of
from utils.run.processes import COUNT, Processes
from utils.run.workspace import StepError, Workspace
from utils.scores import parallel, plan, stages
from utils.scores.baselines import BASELINES
from utils.settings import GenerationSettings, JudgeSettings

sys.path.insert(0, str(ROOT / "benchmarks"))
import two_processes

pytestmark = pytest.mark.slow

STUDIES, SHUFFLED = 16, 6


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run whose reports and judgements one process has made, by the offline judge."""
    workspace = two_processes.prepare(tmp_path_factory.mktemp("alone"), STUDIES)
    settings(workspace)
    parallel.write(workspace)
    parallel.judge(workspace)
    return workspace


def settings(workspace):
    """A report at a time, so that there is time to be killed."""
    parts = {"generation": GenerationSettings(batch_size=1, shuffled=SHUFFLED)}
    parts["judge"] = JudgeSettings(engine="offline")
    folder = workspace.folder("evaluation")
    folder.mkdir(parents=True)
    (folder / parallel.NOTED).write_text(
        json.dumps({name: part.model_dump() for name, part in parts.items()})
    )


@pytest.fixture
def workspace(alone, tmp_path, monkeypatch):
    """The same run before step 4, on a machine that seems to have two GPUs."""
    monkeypatch.setenv(COUNT, "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    workspace = Workspace(tmp_path / "run")
    shutil.copytree(alone.root, workspace.root, ignore=shutil.ignore_patterns("evaluation", FOLDER))
    settings(workspace)
    return workspace


def kept(path):
    """The lines of all processes, and how many there are of each process."""
    return [file.read_bytes().splitlines() for file in files_of(path)]


def workers(process):
    """By rank, the two processes that accelerate has started below `process`."""
    found = {}
    while len(found) < 2:
        assert process.poll() is None
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(KeyError, psutil.Error):
                found[child.environ()["RANK"]] = child
    return found


def wait_for(condition, team):
    while not condition():
        assert team.running()
        time.sleep(0.005)


def test_reports_are_those_of_one_process_though_one_of_two_is_killed_and_then_both(alone, workspace):
    folder, path = workspace.folder("evaluation"), workspace.folder("evaluation") / parallel.REPORTS
    second = path.with_suffix(".1.jsonl")
    with Processes(2, "utils.scores", "write", folder) as team:
        victim = workers(team._process)["1"]
        wait_for(second.exists, team)
        victim.kill()
        with pytest.raises(StepError, match="was killed"):
            for _ in team.rounds(0.01):
                pass
    before = kept(path)
    with Processes(2, "utils.scores", "write", folder) as team:
        both = workers(team._process).values()
        wait_for(lambda: len(kept(path)[-1]) > len(before[-1]) + 1, team)
        for one in (team._process, *both):
            one.kill()
        psutil.wait_procs(both, timeout=60)
    before = kept(path)
    parallel.write_on_all(workspace, GenerationSettings(batch_size=1, shuffled=SHUFFLED))
    after = kept(path)
    assert len(after) == 2 and sum(map(len, before)) < sum(map(len, after))
    assert reports(workspace) == reports(alone)
    assert sum(system == BASE for system, *_ in reports(alone)) == SHUFFLED
    folders = [run.folder("training") / FOLDER for run in (workspace, alone)]
    features = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders]
    assert features[0] == features[1] and len(features[0]) == 3  # a file for each split


def test_the_base_model_comes_later_by_two_processes_too(alone, workspace):
    settings = GenerationSettings(batch_size=1, shuffled=2)
    parallel.write_on_all(workspace, settings, [MODEL])
    assert {system for system, *_ in reports(workspace)} == {MODEL}
    parallel.write_on_all(workspace, settings, [BASE])
    later = {key: text for key, text in reports(workspace).items() if key[0] == BASE}
    assert len(later) == 2 and later.items() <= reports(alone).items()


def reports(workspace):
    """The texts and plans of a run by system, split and study, each of which was written once."""
    rows = read_generations(workspace.folder("evaluation") / parallel.REPORTS)
    found = {(row["system"], row["split"], row["id"]): (row["text"], row["plan"]) for row in rows}
    assert len(found) == len(rows)
    return found


def answers(folder):
    lines = map(json.loads, chain.from_iterable(kept(folder / parallel.ANSWERS)))
    return {line["key"]: line["completion"] for line in lines if "key" in line}


def test_verdicts_from_a_terminal_are_those_of_one_process(alone, workspace):
    folder, theirs = workspace.folder("evaluation"), alone.folder("evaluation")
    lines = (theirs / parallel.REPORTS).read_bytes().splitlines(keepends=True)
    (folder / parallel.REPORTS).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(StepError, match="Not all reports are written"):
        parallel.judge(workspace)
    (folder / parallel.REPORTS).write_bytes(b"".join(lines))
    kept_features = workspace.folder("training") / FOLDER  # those of training studies are not there yet
    shutil.copytree(alone.folder("training") / FOLDER, kept_features, dirs_exist_ok=True)
    with Processes(2, "utils.scores", "judge", folder) as team:
        for _ in team.rounds():
            pass
    assert answers(folder) == answers(theirs)
    assert len(kept(folder / parallel.ANSWERS)) == 2


def test_notebook_04_goes_on_from_what_processes_left_and_says_whom_time_left_out(alone, tmp_path):
    workspace = Workspace(shutil.copytree(alone.root, tmp_path / "run"))
    folder, judging = workspace.folder("evaluation"), JudgeSettings(engine="offline")
    before = reports(workspace), answers(folder)
    writing = GenerationSettings(batch_size=1, shuffled=SHUFFLED)
    made = stages.write_all(workspace, hf_dataset.load(workspace.folder("dataset")), writing)
    engine = parallel.judge_on_all(workspace, judging)
    assert made.others("model", engine) == {}
    asked = made.others("all", engine)
    done = plan.in_turn(engine, judging, folder / parallel.ANSWERS)({MODEL: made.systems[MODEL]} | asked)
    assert before == (reports(workspace), answers(folder))  # nothing was written or asked again
    assert list(done) == [MODEL, BASE, SHUFFLED_IMAGES, *BASELINES]

    last = done.popitem()[0]
    results = stages.gather(made, judging, done, asked)
    shown = text(evaluation_desk.more(results))
    assert results.left == [last] and all(name in results.means for name in done)
    assert "All, normal and abnormal test studies" in shown and "behind" in shown
    figures = evaluation_desk.Figures(results)
    report = results.finish(figures.saved).read_text()
    assert f"Not judged yet, as the time limit came first: {last}." in report
    left = workspace.require("evaluation")  # all files are there, unchanged
    names = {name.rpartition("/")[2] for name in left["outputs"]}
    assert {"generations.jsonl", "judgements.parquet", "pairs.jsonl", "table.md", "report.html"} <= names
    assert {path.name for path, _ in figures.saved.values()} <= names and left["not_judged"] == [last]
    assert left["settings"] == {"generation": writing.model_dump(), "judge": judging.model_dump()}


JUDGING = """
import json, sys
from pathlib import Path
from utils.judge import judge_pairs
from utils.scores import parallel
from utils.settings import JudgeSettings
from utils.run.workspace import Workspace

workspace = Workspace(Path(sys.argv[1]))
engine = parallel.judge_on_all(workspace, JudgeSettings(precision="fp16"))
pairs = [(f"Nodule of {n} mm.", "The lungs are clear.") for n in range(5)]
for asked in (pairs[:2], pairs[:3], pairs):
    if asked == pairs:
        parallel.let_go(engine)  # its processes end, and the next question starts others
    judged = judge_pairs(asked, engine, cache=workspace.folder("evaluation") / parallel.ANSWERS)
print(json.dumps([one.completion for one in judged]), flush=True)
sys.stdin.read()
"""


def test_a_notebooks_judge_answers_as_alone_and_ends_with_the_notebook(workspace, published, tmp_path):
    published_models.fill_cache(tmp_path, published)
    runs = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", JUDGING, str(root)],
            cwd=ROOT,
            env={**published_models.offline(), "HF_HOME": str(tmp_path), COUNT: count},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for root, count in ((tmp_path / "alone", "1"), (workspace.root, "2"))
    ]
    expected, said = (json.loads(run.stdout.readline()) for run in runs)
    assert said == expected and len(set(said)) == 5
    lines = chain.from_iterable(kept(workspace.folder("evaluation") / parallel.ANSWERS))
    asked = Counter(line["reference"] for line in map(json.loads, lines) if "key" in line)
    assert asked == {f"Nodule of {n} mm.": 1 for n in range(5)}
    both = workers(runs[1]).values()
    for run in runs:
        run.kill()
        run.communicate()
    assert not psutil.wait_procs(both, timeout=60)[1]
