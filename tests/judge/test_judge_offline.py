"""What the offline judge reads in a report, what it makes of a pair, and how near it comes to GREEN."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from utils.data.wording import report, sample
from utils.findings import lexicon, sentences
from utils.findings.reader import Finding, read_findings
from utils.judge import OFFLINE_LABEL, judge_pairs
from utils.judge.offline import OfflineEngine
from utils.regions import REGIONS

sys.path.insert(0, str(ROOT / "benchmarks"))
import offline_judge

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


@pytest.mark.parametrize(
    ("reference", "prediction"),
    [
        ("Tortuous aorta.", "The thoracic aorta is tortuous."),
        ("Degenerative changes of the thoracic spine.", "Degenerative changes of the spine."),
    ],
)
def test_thoracic_is_no_place_of_its_own_on_a_chest_radiograph(reference, prediction):
    for one in (judged(reference, prediction), judged(prediction, reference)):
        assert (one.score, sum(one.insignificant)) == (1.0, 0)


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


@pytest.mark.parametrize(
    ("reference", "prediction", "score"),
    [
        # An attribute that only one side names.
        ("The heart is normal in size and contour.", "Heart size is normal.", 0.5),
        ("Heart size is normal.", "The heart is normal in size and contour.", 0.5),
        ("The heart is normal in size and contour.", "The heart is unremarkable.", 1.0),
        # Change words against plain normality.
        ("The cardiac silhouette is normal.", "The cardiac silhouette is stable.", 0.5),
        ("The cardiac silhouette is stable.", "The cardiac silhouette is normal.", 1.0),
        ("Stable cardiomediastinal silhouette.", "Heart size is normal.", 0.0),
        # What is added to a summary, and what spells it out.
        ("The lungs are clear.", "The lungs are clear. No effusion or pneumothorax.", 0.5),
        ("The lungs are clear.", "No consolidation, effusion, or pneumothorax.", 1.0),
        ("Heart size is normal.", "Heart size and pulmonary vascularity are normal.", 0.5),
        (
            "Left basilar atelectasis. No effusion.",
            "Left basilar atelectasis. No effusion or pneumothorax.",
            1.0,
        ),
        # Acute against any, a part against the whole.
        ("No rib fracture.", "No acute rib fracture.", 0.5),
        ("No acute rib fracture.", "No rib fracture.", 1.0),
        ("No rib fracture.", "No acute bony abnormality.", 0.0),
        ("The bones are normal.", "No rib fracture.", 0.5),
        ("The lungs are clear.", "The right lung is clear.", 0.0),
        ("Right apical nodule. The left lung is clear.", "Right apical nodule.", 1.0),
        ("Right apical nodule. The lungs are otherwise clear.", "Right apical nodule.", 1.0),
        # A bare word.
        ("Mediastinal contours are normal.", "Unremarkable.", 0.0),
        ("Unremarkable.", "Mediastinal contours are normal.", 0.0),
        ("Normal.", "Heart size is normal.", 1.0),
        ("Heart size is normal.", "Normal in size.", 1.0),
        # Places that exclude one another.
        ("Thoracic spondylosis.", "Degenerative changes of the lumbar spine.", 0.0),
        ("Thoracic dextroscoliosis.", "Thoracic levoscoliosis.", 0.0),
    ],
)
def test_what_green_counts_and_what_it_lets_pass(reference, prediction, score):
    assert judged(reference, prediction).score == score


def test_what_is_nearly_said_is_one_error_and_none_beside_another():
    reference = "The heart is normal in size and contour. The bones are normal."
    nearly = judged(reference, "Heart size is normal. No acute bony abnormality.")
    assert (nearly.matched, sum(nearly.significant)) == (2, 1)
    worse = judged(reference, "Heart size is normal. No acute bony abnormality. Left nodule.")
    assert worse.significant == (1, 0, 0, 0, 0, 0)


# Sentences of this test's own. Under one name, those that may be taken for one another.
NORMAL = (
    "The lungs are clear.",
    "No focal consolidation.",
    "No airspace opacity.",
    "No pleural effusion.",
    "No pneumothorax.",
    "No pleural effusion or pneumothorax.",
    "The lungs are clear, without consolidation or effusion.",
    "The lungs are otherwise clear.",
    "The left lung is clear.",
    "Costophrenic angles are sharp.",
    "No nodule or mass.",
    "No edema.",
    "Heart size is normal.",
    "The heart is normal in size and contour.",
    "Cardiac contours are unremarkable.",
    "Stable heart size.",
    "No cardiomegaly.",
    "The cardiomediastinal silhouette is normal.",
    "Stable cardiomediastinal silhouette.",
    "Heart size and pulmonary vascularity are normal.",
    "The mediastinum is unremarkable.",
    "The mediastinum is not widened.",
    "Mediastinal contours are stable.",
    "Normal hilar contours.",
    "The trachea is midline.",
    "No adenopathy.",
    "No acute bony abnormality.",
    "The bones are intact.",
    "Osseous structures are normal.",
    "No fracture.",
    "No acute rib fracture.",
    "No scoliosis.",
    "The thoracic spine is normal.",
    "Unremarkable.",
    "Normal in size.",
    "No acute findings.",
)
ABNORMAL = {
    "density": (
        "Right upper lobe nodule.",
        "Stable left nodule.",
        "Left basilar atelectasis.",
        "Scar or atelectasis in the right base.",
        "Bibasilar opacities.",
        "Right lower lobe consolidation.",
        "Left opacity, which may represent pneumonia.",
        "Calcified granuloma in the left upper lobe.",
    ),
    "effusion": ("Small left pleural effusion.", "Large right effusion."),
    "pneumothorax": ("Left pneumothorax.",),
    "congestion": ("Interstitial edema.", "Pulmonary vascular congestion."),
    "volume": ("Low lung volumes.",),
    "emphysema": ("The lungs are hyperinflated.",),
    "heart": ("Mild cardiomegaly.", "The heart is enlarged.", "Severe cardiomegaly."),
    "aorta": ("Tortuous aorta.",),
    "mediastinum": ("The mediastinum is widened.",),
    "hernia": ("Hiatal hernia.",),
    "spine": ("Degenerative changes of the thoracic spine.", "Lumbar spondylosis."),
    "broken": ("Right rib fracture.", "Compression deformity of a vertebra."),
    "curve": ("Mild thoracic dextroscoliosis.",),
    "density of bone": ("Osteopenia.",),
    "pacemaker": ("Pacemaker on the left.",),
    "unknown": ("Quux frobnicates the baz.",),
}


def test_a_false_finding_or_a_matched_one_left_out_never_raises_a_score():
    rng = random.Random(0)
    sentences = [*NORMAL, *(sentence for some in ABNORMAL.values() for sentence in some)]
    pairs, worse = [], []
    for _ in range(10_000):
        reference = rng.sample(sentences, rng.randint(1, 5))
        kept = [sentence for sentence in reference if rng.random() < 0.6]
        prediction = list(dict.fromkeys(kept + rng.sample(sentences, rng.randint(not kept, 3))))
        rng.shuffle(prediction)
        false = rng.choice([some for some in ABNORMAL.values() if not set(some) & set(reference)])
        place = rng.randint(0, len(prediction))
        changed = [[*prediction[:place], rng.choice(false), *prediction[place:]]]
        changed += [[one for one in prediction if one != left_out] for left_out in kept]
        pairs.append((" ".join(reference), " ".join(prediction)))
        worse.append([" ".join(texts) for texts in changed])
    before = judge_pairs(pairs)
    after = iter(
        judge_pairs((pair[0], text) for pair, texts in zip(pairs, worse, strict=True) for text in texts)
    )
    raised = [
        (pair, text)
        for pair, one, texts in zip(pairs, before, worse, strict=True)
        for text in texts
        if next(after).score > one.score
    ]
    assert raised == []


def test_a_right_report_of_a_phantom_in_other_words_is_right():
    rng = np.random.default_rng(0)
    for _ in range(300):
        attributes = sample(rng)
        one, other = report(attributes, rng), report(attributes, rng)
        pairs = [(one[region], other[region]) for region in REGIONS if one[region] and other[region]]
        for judgement in judge_pairs(pairs):
            # Intact or free of acute disease is not yet normal: the only thing that two wordings differ in.
            assert judgement.score == 1.0 or judgement.sentences == {
                "b": ("bones normal, beyond acute disease",)
            }


@pytest.mark.parametrize("rules", [lexicon, sentences])
def test_other_rules_are_another_judge(tmp_path, monkeypatch, rules):
    before = OfflineEngine().fingerprint
    changed = tmp_path / "changed.py"
    changed.write_bytes(Path(rules.__file__).read_bytes() + b"# another rule")
    monkeypatch.setattr(rules, "__file__", str(changed))
    assert OfflineEngine().fingerprint != before


@pytest.mark.parametrize("part", ["all", "unread"])
def test_it_follows_green(shared, part):
    """Over all recorded pairs, and over those that nobody read while the rules were revised."""
    rows = offline_judge.read(shared / "recorded" / "green_test.jsonl.gz")
    rows = offline_judge.unread(rows) if part == "unread" else rows
    ours = np.array(
        [one.score for one in judge_pairs([(row["reference"], row["prediction"]) for row in rows])]
    )
    green = np.array([row["green"] for row in rows])
    pearson, kendall = offline_judge.correlations(ours, green, np.ones((1, len(rows))))
    assert len(rows) > 250
    assert pearson[0] >= 0.83
    assert kendall[0] >= 0.74
    for region in REGIONS:
        chosen = [row["region"] == region for row in rows]
        assert abs((ours - green)[chosen].mean()) <= 0.05


def test_the_benchmark_counts_ties_and_weighs_rows():
    one, two = np.array([0.0, 0.5, 0.5, 1.0]), np.array([0.0, 1.0, 0.5, 1.0])
    pearson, kendall = offline_judge.correlations(one, two, np.array([[1, 1, 1, 1], [2, 1, 1, 1]]))
    assert pearson[0] == pytest.approx(np.corrcoef(one, two)[0, 1])
    assert kendall[0] == pytest.approx(4 / 5)  # of six pairs, each side ties one, and the others agree
    again = offline_judge.correlations(np.append(one, 0.0), np.append(two, 0.0), np.ones((1, 5)))
    assert (pearson[1], kendall[1]) == pytest.approx((again[0][0], again[1][0]))
