"""The findings that are counted, and which of them a text names."""

import pytest

from utils.findings.groups import FREQUENT, GROUPS, frequent, named
from utils.regions import REGIONS


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_its_own_sentence_names_a_finding_and_no_other(group):
    assert named(group.sentence, group.region) == {group.name}


def test_a_finding_belongs_to_one_region():
    assert {group.region for group in GROUPS} == set(REGIONS)
    assert len({group.name for group in GROUPS}) == len(GROUPS)
    counted = [name for group in GROUPS for name in group.names]
    assert len(set(counted)) == len(counted)
    assert named("There is a rib fracture.", "lung") == frozenset()


def test_what_is_denied_is_not_named():
    assert named("No pleural effusion. Left basilar atelectasis or consolidation.", "lung") == {"opacity"}
    assert named("The heart is normal in size.", "heart") == named("", "heart") == frozenset()


def test_findings_are_frequent_by_the_share_of_all_studies_in_the_order_of_the_groups():
    normal = {"lung": "Lungs are clear.", "heart": "The heart is normal."}
    studies = [normal] * 96 + [{"heart": "Cardiomegaly."}] * 4
    assert [group.name for group in frequent(studies)] == ["cardiomegaly"] and FREQUENT == 0.04
    assert frequent(studies + [normal]) == ()  # 4 of 101
    more = studies + [{"lung": "Pleural effusion.", "heart": "The heart is enlarged."}] * 50
    assert [group.name for group in frequent(more)] == ["effusion", "cardiomegaly"]
    assert frequent([]) == frequent([normal]) == ()
