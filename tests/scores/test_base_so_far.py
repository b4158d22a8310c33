"""What of the base model's reports is there, for the plan of the judge."""

import json

import pytest

from utils.models.systems import BASE, SHUFFLED
from utils.run.workspace import Workspace
from utils.scores import parallel
from utils.settings import GenerationSettings


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "run")
    workspace.folder("evaluation").mkdir(parents=True)
    return workspace


def write(workspace, *studies, system=BASE):
    path = workspace.folder("evaluation") / parallel.REPORTS
    with path.open("a") as file:
        for study in studies:
            row = {"system": system, "split": "test", "id": study, "text": "", "report": {"lung": "Clear."}}
            file.write(json.dumps({**row, "plan": {}, "adapter": "a"}) + "\n")


def regions(split, studies):
    return sum(len(parallel.references(split)[study]) for study in studies)


def test_regions_of_reports_that_are_not_there_are_counted(workspace, phantom_dataset):
    split = phantom_dataset["test"]
    rows, left = parallel.base_so_far(workspace, phantom_dataset, GenerationSettings())
    assert rows == {} and left == regions(split, split["id"])
    write(workspace, *split["id"][:2])
    write(workspace, *split["id"], system=SHUFFLED)
    rows, left = parallel.base_so_far(workspace, phantom_dataset, GenerationSettings())
    assert list(rows) == [BASE] and list(rows[BASE]["id"].unique()) == split["id"][:2]
    assert left == regions(split, split["id"][2:])
    write(workspace, *split["id"][2:])
    assert parallel.base_so_far(workspace, phantom_dataset, GenerationSettings())[1] == 0


def test_without_controls_nothing_is_to_come(workspace, phantom_dataset):
    write(workspace, phantom_dataset["test"]["id"][0])
    settings = GenerationSettings(shuffled=0)
    assert parallel.base_so_far(workspace, phantom_dataset, settings) == ({}, 0)
