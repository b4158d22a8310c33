"""Real studies with unusual images, through every step up to their plans: views, dataset, features."""

import json
import shutil

import numpy as np
import pytest

from utils.data import hf_dataset, studies
from utils.models.features import Tower, study_features
from utils.models.loading import load_processor
from utils.settings import DatasetSettings
from utils.training import probing

SUFFIX = ("CXR1309_IM-0201-1001", "CXR3646_IM-1808-0001", "CXR2851_IM-1260-0001", "CXR3549_IM-1739-1001")
TWO_FRONTALS = ("CXR1633_IM-0414", "CXR735_IM-2294", "CXR3495_IM-1700")
ONE_VIEW = ("CXR1190_IM-0128", "CXR2796_IM-1228", "CXR569_IM-2169-0001")  # the others are left out here


@pytest.fixture(scope="module")
def folder(shared, tmp_path_factory):
    """Ten studies of the collection in the quiz's layout; validation studies have findings, too."""
    collection = shared / "iu_xray"
    place = tmp_path_factory.mktemp("collection")
    wanted = {*SUFFIX, *TWO_FRONTALS, *ONE_VIEW}
    entries = json.loads((collection / "annotation_quiz_all.json").read_text())
    chosen = [one for of_split in entries.values() for one in of_split if one["id"] in wanted]
    for one in chosen:
        one["report"] = one.get("report") or {"lung": "The lungs are clear."}
        views = sorted((collection / "images256" / one["id"]).iterdir())
        (place / "images" / one["id"]).mkdir(parents=True)
        for view in views[: 1 if one["id"] in ONE_VIEW else None]:
            shutil.copy(view, place / "images" / one["id"])
    annotation = {"train": [{**one, "split": "train"} for one in chosen], "val": [], "test": []}
    (place / "annotation.json").write_text(json.dumps(annotation))
    return place


def test_each_is_read_seen_and_planned(folder, tmp_path, tiny_base):
    settings, loaded = DatasetSettings(longest_side=256), studies.load_studies(folder)
    dataset, skipped = hf_dataset.build(loaded, settings, tmp_path / "dataset", data_label="ten")
    assert skipped.empty and set(dataset["train"]["id"]) == {*SUFFIX, *TWO_FRONTALS, *ONE_VIEW}
    views = dict(zip(dataset["train"]["id"], dataset["train"]["views"], strict=True))
    assert {study for study, count in views.items() if count == 1} == set(ONE_VIEW)
    assert all(count == 2 for study, count in views.items() if study not in ONE_VIEW)
    tower = Tower(str(tiny_base), "fp32", 2, load_processor(str(tiny_base)))
    features = study_features(tower, dataset["train"], "train", tmp_path / "features")
    assert features.shape[:3] == (10, 2, 2) and np.isfinite(features).all()
    for study, seen in zip(dataset["train"]["id"], features, strict=True):
        first, mean = seen
        assert np.allclose(first, mean, atol=1e-5) == (study in ONE_VIEW)
    assert len(probing.findings(dataset["train"])) == 10
