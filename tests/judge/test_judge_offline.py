"""What the offline judge reads in a report, what it makes of a pair, and how near it comes to GREEN."""

import gzip
import hashlib
import json
from statistics import mean

import pytest

from utils.judge import OFFLINE_LABEL, judge_pairs
from utils.judge.offline import Finding, read_findings

REFERENCES = [
    "The heart is normal in size with a tortuous aorta.",
    "No pleural effusion or pneumothorax. Calcified granuloma in the right upper lobe.",
    "Left lower lobe opacity and right effusion, stable.",
    "Mild degenerative changes; old fracture of the left seventh rib.",
    "Quux frobnicates the baz.",
    "Stable.",
    "???",
]


def judged(reference, prediction):
    return judge_pairs([(reference, prediction)])[0]


def read(text):
    return [str(finding) for finding in read_findings(text)]


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("The heart is not enlarged.", ["heart normal"]),
        ("No cardiomegaly.", ["heart normal"]),
        ("Normal heart size.", ["heart normal"]),
        ("The cardiac silhouette is mildly enlarged.", ["mild cardiomegaly"]),
        ("Heart size is at the upper limits of normal.", ["mild cardiomegaly"]),
        ("Small left pleural effusion.", ["mild left effusion"]),
        ("Blunting of the left costophrenic angle.", ["left effusion"]),
        ("Pleural effusion is not seen.", ["no effusion"]),
        ("Previously seen effusion has resolved.", ["no effusion"]),
        ("Neither effusion nor pneumothorax.", ["no effusion", "no pneumothorax"]),
        ("Pneumonia cannot be excluded.", ["consolidation"]),
        (
            "No airspace disease, but there is a small right effusion.",
            ["no consolidation", "mild right effusion"],
        ),
        ("Left effusion and right basilar atelectasis.", ["left effusion", "right lower atelectasis"]),
        ("Opacity in the left base and effusion on the right.", ["left lower opacity", "right effusion"]),
        ("Effusions on the left and right.", ["bilateral effusion"]),
        ("Right opacity, which may represent scar.", ["right opacity or scarring"]),
        ("Nodule in the left mid zone.", ["left middle nodule"]),
        ("The lungs are clear without focal consolidation.", ["no consolidation", "lungs normal"]),
        ("Wide superior mediastinum.", ["wide mediastinum"]),
        ("No mediastinal widening.", ["mediastinum normal"]),
        ("The aorta is tortuous and calcified.", ["aortic calcification", "tortuous aorta"]),
        ("Elevated right hemidiaphragm.", ["right raised diaphragm"]),
        ("Right rib fracture.", ["right fracture"]),
        ("Scoliosis of the thoracic spine.", ["thoracic scoliosis"]),
        ("No acute bony abnormality.", ["bones normal"]),
        ("A large effusion beside a heart of normal size.", ["severe effusion", "heart normal"]),
    ],
)
def test_findings_are_read_with_polarity_side_place_and_grade(text, findings):
    assert read(text) == findings


@pytest.mark.parametrize("text", REFERENCES)
def test_a_report_judged_against_itself_is_perfect(text):
    one = judged(text, text)
    assert (one.score, sum(one.significant), sum(one.insignificant)) == (1.0, 0, 0)
    assert one.judge == OFFLINE_LABEL


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The heart is enlarged.", "Heart size is normal."),
        ("No pleural effusion.", "Small left pleural effusion."),
        ("Scoliosis of the spine.", "The spine is straight, no scoliosis."),
        ("The mediastinum is widened.", "Mediastinal contours are normal."),
        ("Lungs are clear.", "Right upper zone opacity."),
        ("Tortuous aorta.", "The aorta is not tortuous."),
    ],
)
def test_opposite_polarity_scores_nothing_either_way(one, other):
    assert judged(one, other).score == 0.0
    assert judged(other, one).score == 0.0


@pytest.mark.parametrize(
    ("reference", "prediction"),
    [
        ("Heart size is normal.", "Cardiac contours are within normal limits."),
        ("Cardiomegaly.", "The cardiac silhouette is enlarged."),
        ("Left pleural effusion.", "Blunted left costophrenic angle."),
        ("No pleural effusion.", "The costophrenic angles are sharp."),
        ("Bones are intact.", "No acute osseous abnormality."),
        ("No rib fracture.", "The bones are intact."),
        ("Degenerative changes of the spine.", "Spondylosis."),
        ("No opacity.", "The lungs are clear."),
        ("Emphysema.", "The lungs are hyperinflated."),
    ],
)
def test_the_same_finding_in_other_words_matches(reference, prediction):
    assert judged(reference, prediction).score == 1.0


@pytest.mark.parametrize(
    ("reference", "prediction", "letter"),
    [
        ("Lungs are clear.", "Lungs are clear. Right nodule.", "a"),
        ("No effusion. Left nodule.", "No effusion.", "b"),
        ("No effusion. Left nodule.", "No effusion. Right nodule.", "c"),
        ("No effusion. Nodule in the right upper zone.", "No effusion. Nodule in the right lower zone.", "c"),
        ("No pneumothorax. Small left effusion.", "No pneumothorax. Large left effusion.", "d"),
    ],
)
def test_each_kind_of_error_costs_under_its_own_letter(reference, prediction, letter):
    one = judged(reference, prediction)
    assert one.score == 0.5
    assert list(one.sentences) == [letter]
    assert one.significant["abcdef".index(letter)] == 1


def test_a_grade_one_step_off_or_a_side_left_out_is_noted_and_costs_nothing():
    one = judged("Small left effusion.", "Moderate effusion.")
    assert one.score == 1.0
    assert one.insignificant == (0, 0, 1, 1, 0, 0)


def test_comparisons_with_earlier_studies_are_noted():
    assert judged("Heart size is normal.", "Heart size is normal and unchanged.").insignificant[4] == 1
    assert judged("Heart size is normal and unchanged.", "Heart size is normal.").insignificant[5] == 1


def test_ruling_out_acute_disease_does_not_call_the_bones_normal():
    assert judged("The bones are unremarkable.", "No acute bony abnormality.").score == 0.5


def test_text_without_known_findings_is_compared_by_its_words():
    assert judged("Quux frobnicates the baz.", "The baz frobnicates.").score == 1.0
    assert judged("Quux frobnicates the baz.", "Something else entirely.").score == 0.0


def test_a_hedged_finding_meets_either_of_its_names():
    hedged = Finding(frozenset({"atelectasis", "scarring"}), True, place="lower")
    assert read_findings("Basilar scar or atelectasis.") == (hedged,)
    assert judged("Basilar scar or atelectasis.", "Basilar atelectasis.").score == 1.0


def test_it_follows_green_on_studies_it_was_not_developed_on(shared):
    """Half of the recorded studies, by hash; rows with text on both sides."""
    with gzip.open(shared / "recorded" / "green_test.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    unseen = [row for row in rows if hashlib.sha256(row["id"].encode()).digest()[-1] % 2]
    unseen = [row for row in unseen if row["reference"] and row["prediction"]]
    ours = [one.score for one in judge_pairs([(row["reference"], row["prediction"]) for row in unseen])]
    green = [row["green"] for row in unseen]
    assert len(unseen) > 800
    assert pearson(ours, green) >= 0.75
    assert kendall(ours, green) >= 0.60
    for region in ("lung", "heart", "mediastinal", "bone"):
        chosen = [number for number, row in enumerate(unseen) if row["region"] == region]
        assert abs(mean(ours[number] for number in chosen) - mean(green[number] for number in chosen)) <= 0.05


def pearson(one, two):
    numpy = pytest.importorskip("numpy")
    return numpy.corrcoef(one, two)[0, 1]


def kendall(one, two):
    """Kendall's tau-b, ties counted, by comparing all pairs."""
    numpy = pytest.importorskip("numpy")
    signs = [numpy.sign(numpy.subtract.outer(values, values)).astype(int) for values in (one, two)]
    return (signs[0] * signs[1]).sum() / numpy.sqrt(abs(signs[0]).sum() * abs(signs[1]).sum())
