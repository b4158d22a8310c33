"""The manifest of a finished run: what it left, the probe included."""

import json

import pandas as pd
import pytest

from utils.models.loading import ADAPTER_FILES, PROBE, READING
from utils.run.disk import write_text
from utils.run.workspace import StepError, Workspace
from utils.settings import preset
from utils.training import finish
from utils.training.probing import POINTS, QUALITY
from utils.training.trainer import Outcome


@pytest.fixture
def ws(tmp_path):
    """A run before its manifest."""
    ws = Workspace(tmp_path)
    data = write_text(ws.folder("dataset") / "data" / "train.parquet", "studies")
    ws.finish("dataset", settings={}, outputs=[data], data_label="phantoms")
    for name in (*(f"adapter/{each}" for each in (*ADAPTER_FILES, READING, PROBE)), "log.csv", "choice.csv"):
        write_text(ws.folder("training") / name, name)
    return ws


def outputs(ws) -> set[str]:
    finish(ws, preset("demo").training, Outcome(pd.DataFrame(), True, {}))
    manifest = json.loads((ws.folder("training") / "manifest.json").read_text(encoding="utf-8"))
    return {name.removeprefix("training/default/") for name in manifest["outputs"]}


def test_the_probe_beside_the_adapter_and_what_it_saw_are_outputs_where_they_are_there(ws):
    plain = {f"adapter/{name}" for name in (*ADAPTER_FILES, READING, PROBE)} | {"log.csv", "choice.csv"}
    assert outputs(ws) == plain  # trained from a terminal: nobody looked at validation
    for name in (PROBE, POINTS, QUALITY):
        write_text(ws.folder("training") / name, name)
    assert outputs(ws) == plain | {PROBE, POINTS, QUALITY}
    assert ws.is_current("training")
    write_text(ws.folder("training") / "adapter" / PROBE, "another probe")
    with pytest.raises(StepError, match=r"adapter/probe\.safetensors, which has changed since"):
        ws.require("training")
