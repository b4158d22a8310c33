"""The self-check of the judge: where its known answers come from, which are asked, and what it says."""

import csv
import gzip
import io
import json
from http.server import ThreadingHTTPServer
from types import SimpleNamespace

import loopback
import nbformat
import numpy as np
import pandas as pd
import pytest
import requests
from conftest import ROOT

from utils.data import downloads
from utils.judge import OFFLINE_LABEL, parse_completion
from utils.judge.green import chat
from utils.judge.offline import OfflineEngine
from utils.pages import evaluation_desk
from utils.regions import REGIONS, tidy
from utils.run.workspace import StepError, Workspace
from utils.scores import judging, parallel
from utils.scores.judging import check_judge, published_judgements, read_recorded
from utils.settings import JudgeSettings


def completion(matched, errors):
    return (
        "Why.\n\n[Clinically Significant Errors]:\n"
        f"(b) Missing a finding present in the reference: {errors}. Something.\n\n"
        f"[Clinically Insignificant Errors]:\nNone.\n\n[Matched Findings]:\n{matched}. Something."
    )


VERDICTS = [(0, 1), (1, 3), (1, 1), (2, 1), (3, 0)]  # scores 0, 0.25, 0.5, 0.67, 1


def published_csv(rows=None):
    """The published file's shape, of texts of our own, or of `rows` of id, region, reference and so on."""
    rows = rows or [
        {
            "id": f"study{i}",
            "region": region,
            "reference": "" if (i, region) == (3, "bone") else f'The "{region}" of\nstudy {i}.',
            "prediction": "" if i == 4 else f"Prediction {i}, {region}.",
            "completion": "The report is not provided." if i == 4 else completion(*VERDICTS[i % 5]),
        }
        for i in range(31)
        for region in REGIONS
    ]
    studies = {}
    for row in rows:
        told = studies.setdefault(row["id"], {"full_reference": "All.", "patient_ids": row["id"]})
        for name, value in (
            ("reference", row["reference"]),
            ("predictions", row["prediction"]),
            ("evaluation", row["completion"]),
            ("green", parse_completion(row["completion"]).score_as_published),
        ):
            told[f"{row['region']}_{name}"] = value
    text = io.StringIO()
    writer = csv.DictWriter(text, next(iter(studies.values())))
    writer.writeheader()
    writer.writerows(studies.values())
    return text.getvalue().encode()


@pytest.fixture
def server():
    """A web server that answers with `.content` and `.status`, and counts in `.asked`."""

    class Handler(loopback.Replies):
        def do_GET(self):
            self.server.asked += 1
            self.send(self.server.status, self.server.content)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.content, http.status, http.asked = published_csv(), 200, 0
    http.url = f"http://127.0.0.1:{http.server_port}/results_test.csv"
    with loopback.serving(http):
        yield http


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0)


@pytest.fixture
def known(server, tmp_path):
    return published_judgements(tmp_path / "published.csv", server.url)


def completions(known):
    """The completion of each pair as it is asked."""
    return {(tidy(row.reference), row.prediction): row.completion for row in known.itertuples()}


class Replay:
    """A judge that answers recorded pairs as recorded; a `wrong` one refuses."""

    label, fingerprint = "replay", "1"

    def __init__(self, known, wrong=False):
        self.known = completions(known)
        self.wrong, self.asked = wrong, []

    def ask(self, pairs):
        self.asked += pairs
        yield from enumerate("Not provided." if self.wrong else self.known[pair] for pair in pairs)


def test_the_published_judgements_are_fetched_once_and_read_as_rows(server, known, tmp_path):
    assert len(known) == 31 * 4 and known["id"].nunique() == 31
    assert set(known["judge"]) == {"GREEN-radllama2-7b (recorded)"}
    assert known.loc[known["id"] == "study4", "score"].isna().all()
    assert known.iloc[0]["reference"] == 'The "lung" of\nstudy 0.'
    again = published_judgements(tmp_path / "published.csv", server.url)
    assert server.asked == 1 and again.equals(known)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>Sign in</html>", "lung_reference"),
        (b"", "No columns"),
        (published_csv()[:-40], "does not hold"),  # cut off inside a cell
        (published_csv().replace(b",0.5,", b",0.75,"), "its scores are not those of its completions"),
        (published_csv().replace(b",0.5,", b",half,"), "half"),
        (published_csv().replace(b",0.5,", b",nan,"), "its scores are not those of its completions"),
        (published_csv().splitlines()[0], "does not hold"),
        (b"\xff\xfe" * 100, "does not hold"),
    ],
)
def test_a_damaged_or_other_file_is_refused_and_not_kept(server, tmp_path, content, said):
    server.content = content
    with pytest.raises(StepError, match=said) as caught:
        published_judgements(tmp_path / "new" / "published.csv", server.url)
    assert server.url in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "new").iterdir())
    server.content = published_csv()
    assert len(published_judgements(tmp_path / "new" / "published.csv", server.url))


def test_a_file_that_was_damaged_later_is_named(server, known, tmp_path):
    (tmp_path / "published.csv").write_text("id,score\n1,2\n")
    with pytest.raises(StepError, match=r"published\.csv does not hold"):
        published_judgements(tmp_path / "published.csv", server.url)


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_refuses_is_one_sentence(server, tmp_path, status):
    server.status = status
    with pytest.raises(StepError, match=rf"cannot be downloaded.* (answers|answer) {status}") as caught:
        published_judgements(tmp_path / "published.csv", server.url)
    assert server.url in str(caught.value) and "\n" not in str(caught.value)


def test_without_a_network_it_is_one_sentence(tmp_path):
    with pytest.raises(StepError, match=r"cannot be downloaded.* ended by a ConnectionError"):
        published_judgements(tmp_path / "published.csv", "http://127.0.0.1:9/results_test.csv")
    assert not list(tmp_path.iterdir())


def test_a_judge_that_is_as_published_agrees(known):
    engine = Replay(known)
    table = check_judge(engine, known)
    assert len(table) == 20 == len(set(engine.asked)) and table["agree"].all()
    assert table["region"].value_counts().to_dict() == dict.fromkeys(REGIONS, 5)
    for region in REGIONS:  # spread over the scores, not five of a kind
        assert set(table.loc[table["region"] == region, "recorded"].round(2)) == {0, 0.25, 0.5, 0.67, 1}
    assert table.attrs["verdict"] == (
        "replay: 20 of 20 scores as recorded, mean absolute difference 0.00, Pearson 1.00, "
        "0 without a verdict."
    )
    assert check_judge(Replay(known), known).equals(table)


def test_a_judge_that_is_wrong_shows_at_once(known):
    table = check_judge(Replay(known, wrong=True), known, n=6)
    counts = {"lung": 2, "heart": 2, "mediastinal": 1, "bone": 1}
    assert len(table) == 6 and table["region"].value_counts().to_dict() == counts
    assert not table["agree"].any() and table["judged"].isna().all()  # also where 0 was recorded
    verdict = table.attrs["verdict"]
    assert "0 of 6 scores" in verdict and "6 without a verdict" in verdict and "Fewer than half" in verdict
    assert "Pearson undefined" in verdict  # of scores that are all 0


def test_a_judge_that_loses_some_answers_is_measured_against_the_recorded_scores(known):
    engine, heart = Replay(known), check_judge(Replay(known), known)["region"] == "heart"
    lost = known["region"] == "heart"
    engine.known |= dict.fromkeys(completions(known[lost]), "The report is not provided.")
    table = check_judge(engine, known)
    counted = table["judged"].fillna(0)
    pearson, distance = np.corrcoef(counted, table["recorded"])[0, 1], (counted - table["recorded"]).abs()
    assert table["judged"].isna().equals(heart) and 0 < pearson < 1
    said = f"mean absolute difference {distance.mean():.2f}, Pearson {pearson:.2f}, 5 without a verdict"
    assert said in table.attrs["verdict"]


def test_a_second_check_asks_nothing(known, tmp_path):
    first = check_judge(Replay(known), known, cache=tmp_path / "answers.jsonl")
    again = Replay(known)
    assert check_judge(again, known, cache=tmp_path / "answers.jsonl").equals(first) and not again.asked


def test_it_needs_pairs_with_text_on_both_sides(known):
    with pytest.raises(StepError, match="text on both sides"):
        check_judge(Replay(known), known[known["prediction"] == ""])


@pytest.fixture
def run_cell(known, tmp_path, capsys):
    """Runs the cell of notebook 04 that checks the judge, with a judge behind a real server."""
    cells = nbformat.read(ROOT / "notebooks" / "04_generate_and_green.ipynb", as_version=4).cells
    (cell,) = [cell for cell in cells if "self_check(" in cell.source]
    answers = {chat(*pair): text for pair, text in completions(known).items()}

    class Handler(loopback.Replies):
        def do_POST(self):
            text = answers[json.loads(self.body())["prompt"]]
            self.send(200, {"object": "text_completion", "choices": [{"index": 0, "text": text}]})

    def show(*shown):
        print(*(getattr(part, "data", part) for part in shown), sep="\n")

    def run(engine):
        with loopback.serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as http:
            url = f"http://127.0.0.1:{http.server_port}/v1"
            judging = SimpleNamespace(settings=JudgeSettings(engine=engine, base_url=url))
            ws = Workspace(tmp_path / "run")
            opening = SimpleNamespace(take_green_score=lambda: "The judge's prompt and parser are our own.")
            names = {"evaluation_desk": evaluation_desk, "parallel": parallel, "ws": ws, "judging": judging}
            names |= {"opening": opening, "folder": tmp_path, "display": show}
            exec(cell.source, names)
        return capsys.readouterr().out

    return run


def test_the_notebook_shows_the_agreement(run_cell, tmp_path):
    (tmp_path / "published.csv").rename(tmp_path / "published_test.csv")
    said = run_cell("server")
    assert "GREEN-radllama2-7b server: 20 of 20 scores as recorded" in said and "agree" in said
    assert "green-score is not compared with our own code" in said  # it was not taken before


@pytest.mark.parametrize("content", [None, b"<html>Sign in</html>"])
def test_the_notebook_goes_on_where_there_is_nothing_to_check_with(run_cell, monkeypatch, tmp_path, content):
    def no_network(*_, **__):
        raise requests.ConnectionError

    monkeypatch.setattr(requests.Session, "get", no_network)
    if content:
        (tmp_path / "published_test.csv").write_bytes(content)
    assert run_cell("server").splitlines()[-1].startswith("No self-check: ")


def test_the_stand_in_is_not_checked(run_cell):
    said = run_cell("offline").splitlines()[-1]
    assert said.startswith("No self-check: the offline stand-in is not GREEN")


@pytest.fixture(scope="module")
def recorded(shared):
    return shared / "recorded" / "green_test.jsonl.gz"


def test_the_recorded_judgements_in_the_published_shape_are_read_whole(recorded, server, tmp_path):
    with gzip.open(recorded, "rt") as file:
        server.content = published_csv([json.loads(line) for line in file])
    rows = published_judgements(tmp_path / "published.csv", server.url)
    expected = read_recorded(recorded, judging.SYSTEM)
    key = ["id", "region"]
    columns = [*key, "split", "system", "reference", "prediction", "completion", "score", "judge"]
    both = [table[columns].sort_values(key).reset_index(drop=True) for table in (rows, expected)]
    pd.testing.assert_frame_equal(*both)
    assert len(rows) == 2360


def test_chance_stays_below_the_warning_and_the_stand_in_above(recorded):
    known = read_recorded(recorded, "x")
    table = check_judge(OfflineEngine(), known)
    assert OFFLINE_LABEL in table.attrs["verdict"] and "Fewer" not in table.attrs["verdict"]
    scores = table["recorded"].to_numpy()
    rng = np.random.default_rng(0)
    right = np.array([(np.abs(rng.permutation(scores) - scores) < judging.SAME).sum() for _ in range(5000)])
    assert right.mean() == pytest.approx(5, abs=0.5)
    assert (right >= judging.POOR * len(scores)).mean() < 0.01
