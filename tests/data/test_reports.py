"""Which findings a report with headings gives, and why it gives none."""

import pytest

from utils.data.reports import EMPTY, FINDINGS, JOINT, NO_SECTION, ONLY_IMPRESSION, TAKEN, VIEW, findings

HEAD = "               FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n \n INDICATION:  Cough.\n \n"
TAIL = "\n \n IMPRESSION: \n \n No acute process.\n"
CLEAR = "The lungs are clear."


@pytest.mark.parametrize(
    ("section", "expected", "kind"),
    [
        # subheadings end nothing
        (
            f"FINDINGS: {CLEAR}\n HEART AND MEDIASTINUM: Severe cardiomegaly. PLEURA: Left effusion.",
            f"{CLEAR} HEART AND MEDIASTINUM: Severe cardiomegaly. PLEURA: Left effusion.",
            FINDINGS,
        ),
        (
            "FINDINGS: \n \n LUNGS: Clear.\n HEART: Large.\n BONES: Intact.",
            "LUNGS: Clear. HEART: Large. BONES: Intact.",
            FINDINGS,
        ),
        (
            f"FINDINGS: {CLEAR}\n COMPRESSION DEFORMITIES: None.\n LEFT 3RD RIB: Healed.",
            f"{CLEAR} COMPRESSION DEFORMITIES: None. LEFT 3RD RIB: Healed.",
            FINDINGS,
        ),
        (f"FINDINGS: {CLEAR}\n OTHER FINDINGS: A clip.", f"{CLEAR} OTHER FINDINGS: A clip.", FINDINGS),
        (f"FINDINGS: {CLEAR}\n CHEST WALL: Intact.", f"{CLEAR} CHEST WALL: Intact.", FINDINGS),
        # a view's label is left out
        (f"FINDINGS: \n \n PA AND LATERAL VIEWS OF THE CHEST: {CLEAR}", CLEAR, FINDINGS),
        (f"FINDINGS: {CLEAR}\n PORTABLE CHEST: No effusion.", f"{CLEAR} No effusion.", FINDINGS),
        (f"CHEST, TWO VIEWS: {CLEAR}", CLEAR, VIEW),
        (f"SINGLE AP PORTABLE CHEST RADIOGRAPH: \n {CLEAR}\n HEART: Big.", f"{CLEAR} HEART: Big.", VIEW),
        (f"CHEST, PA LATERAL: \n \n COMPARISON: None.\n FINDINGS: {CLEAR}", CLEAR, FINDINGS),
        # other headings of the section
        (f"FINDINGS AND IMPRESSION: {CLEAR}", CLEAR, JOINT),
        (f"FINDINGS/IMPRESSION: {CLEAR}", CLEAR, JOINT),
        (f"FINDINGS/ IMPRESSION: {CLEAR}", CLEAR, JOINT),
        (f"IMPRESSION AND FINDINGS: {CLEAR}", CLEAR, JOINT),
        (f"FINDINGS & IMPRESSION: {CLEAR}", CLEAR, JOINT),
        (f"FINDING: {CLEAR}", CLEAR, FINDINGS),
        (f"Findings: {CLEAR}", CLEAR, FINDINGS),
        (f"FINIDNGS: {CLEAR}", CLEAR, FINDINGS),
        (f"REFERENCE FINDINGS: {CLEAR}", CLEAR, FINDINGS),
        (f"FINDINGS (AP CHEST): {CLEAR}", CLEAR, FINDINGS),
        (f"FINDINGS :{CLEAR}", CLEAR, FINDINGS),
        (f"FINDINGS \n \n {CLEAR}", CLEAR, FINDINGS),
        (f"COMPARISON: None.  FINDINGS:  {CLEAR} IMPRESSION: Normal.", CLEAR, FINDINGS),
        # what ends it
        (f"FINDINGS: {CLEAR}\n RECOMMENDATION(S): Follow up.", CLEAR, FINDINGS),
        (f"FINDINGS: {CLEAR}\n COMPARRISON: None.", CLEAR, FINDINGS),
        (f"FINDINGS: {CLEAR}\n IMPRESSON: Normal.", CLEAR, FINDINGS),
        (f"FINDINGS: {CLEAR}\n WET READ: Clear.", CLEAR, FINDINGS),
        (f"FINDINGS: {CLEAR}\n IMPRESSION\n Normal.", CLEAR, FINDINGS),
        (f"FINDINGS: {CLEAR}\n \n Impression: Normal.", CLEAR, FINDINGS),
        (f"FINDINGS: {CLEAR} In\n Comparison: unchanged.", f"{CLEAR} In Comparison: unchanged.", FINDINGS),
        (f"Findings: {CLEAR}\n Impression: Normal.", CLEAR, FINDINGS),
        # of several sections the last that says something
        (f"FINDINGS: Wet.\n IMPRESSION: x\n FINDINGS: {CLEAR}", CLEAR, FINDINGS),
        (f"FINDINGS: {CLEAR}\n IMPRESSION: Normal.\n FINDINGS:", CLEAR, FINDINGS),
        (f"FINDINGS: {CLEAR}\n FINDINGS AND IMPRESSION: Normal.", CLEAR, FINDINGS),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_findings_of_a_report(section, expected, kind, end):
    report = f"{HEAD} {section}{TAIL}".replace("\n", end)
    assert findings(report) == (expected, TAKEN[kind])


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ("", ONLY_IMPRESSION),
        ("IMPRESSION: \n CHEST, TWO VIEWS: Normal.", ONLY_IMPRESSION),
        ("The findings: none.", ONLY_IMPRESSION),
        ("TECHNIQUE: \n PORTABLE CHEST: One view.", ONLY_IMPRESSION),
        ("FINDINGS: ", EMPTY),
        ("FINDINGS AND IMPRESSION: \n CHEST: ", EMPTY),
    ],
)
def test_a_report_without_findings_says_why(section, why):
    assert findings(f"{HEAD} {section}{TAIL}") == ("", why)


@pytest.mark.parametrize("report", ["", "As compared to the previous radiograph, no change.", HEAD])
def test_a_report_without_a_section_is_told_apart(report):
    assert findings(report) == ("", NO_SECTION)
