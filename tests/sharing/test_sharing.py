"""What reaches the Hub, from a finished run, over HTTP to a stand-in on the loopback address."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import hub_server
import huggingface_hub
import numpy as np
import pandas as pd
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard, ModelCard
from judged_rows import judgement, table

from utils import scores
from utils.data import hf_dataset, phantoms
from utils.findings import probe as probes
from utils.models import anywhere, loading
from utils.models.bases import REGISTRY
from utils.models.loading import PROBE
from utils.run.disk import write_json, write_text
from utils.run.workspace import StepError, Workspace
from utils.scores import tables
from utils.settings import DatasetSettings
from utils.sharing import HOW, share_dataset
from utils.sharing.adapter import share_adapter
from utils.training.probing import POINTS, QUALITY

TOKEN = "hf_secretsecretsecret"
LLAVA, ON_HUB = "llava-v1.6-mistral-7b", "llava-hf/llava-v1.6-mistral-7b-hf"
READ_BY = {  # what transformers reads a study by
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "reading.json",
    "reading.py",
    "tokenizer.json",
    "tokenizer_config.json",
}
OFFLINE, GREEN = "offline judge (stand-in, not GREEN)", "GREEN-radllama2-7b (nf4)"


@pytest.fixture
def hub(monkeypatch):
    hub = hub_server.start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    hub.shutdown()
    hub.server_close()


def finished(root, studies, label=phantoms.WHAT, judge=OFFLINE, base="demo", probe=None) -> Workspace:
    """A run with the steps that are shared; `probe` lies beside its adapter."""
    ws = Workspace(root)
    facts = {"views": 2, "validation_split_by": "offline"}
    folder = ws.folder("dataset")
    hf_dataset.build(studies, DatasetSettings(), folder, data_label=label, **facts)
    ws.finish("dataset", settings={}, outputs=[folder / "data", folder / "README.md"], data_label=label)
    adapter = ws.folder("training") / "adapter"
    write_json(adapter / "adapter_config.json", {"r": 16, "base_model_name_or_path": "/home/me/secret/base"})
    how = {"base": base, "image_tokens": "pooled", "precision": "fp32", "views": 2}
    write_json(adapter / "reading.json", how)
    write_text(adapter / "adapter_model.safetensors", "weights")
    write_text(adapter / "optimizer.pt", "not to be shared")
    if probe:
        probe.save(adapter / PROBE)
    settings = {"base": base, "epochs": 3.0, "lora_rank": 16}
    ws.finish("training", settings=settings, outputs=[adapter], data_label=label)
    judged = zip("abcd", (1, 1, 0, 1), strict=True)
    rows = table(*(judgement(study, "lung", score, system="fine-tuned model") for study, score in judged))
    rows = rows.assign(judge=judge)
    results = ws.folder("evaluation")
    results.mkdir(parents=True)
    rows.to_parquet(results / "judgements.parquet")
    text = tables.table_markdown(scores.summary(rows), data_label=label)
    write_text(results / "table.md", text)
    judge = {"engine": "offline", "base_url": "http://me:pw@x"}
    evaluation = {"generation": {"max_new_tokens": 200, "recall_weight": 0.4}, "judge": judge}
    outputs = [results / "judgements.parquet", results / "table.md"]
    ws.finish("evaluation", settings=evaluation, inputs=[adapter], outputs=outputs, data_label=label)
    return ws


@pytest.fixture
def ws(tmp_path, phantom_studies):
    return finished(tmp_path / "run", phantom_studies)


def test_the_dataset_goes_to_a_private_repository_as_it_lies_on_disk(hub, ws, tmp_path, capfd):
    hub.there = ["data/train-00001-of-00002.parquet", "notes.md"]
    assert share_dataset(ws, "me/chest") == f"{hub.url}/datasets/me/chest"
    method, path, created = hub.asked[0]
    assert (method, path) == ("POST", "/api/repos/create")
    assert created["type"] == "dataset" and hub.private is True
    folder = ws.folder("dataset")
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "manifest.json")
    assert hub.committed == {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
    assert hub.deleted == ["data/train-00001-of-00002.parquet"]
    for name, content in hub.committed.items():
        path = tmp_path / "clone" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert load_dataset(str(tmp_path / "clone"))["train"].num_rows == 12
    card = DatasetCard(hub.committed["README.md"].decode())
    told = (phantoms.WHAT, "Not for clinical use", "validation split by: offline", "## Limits", "BY-NC-ND")
    for words in told:
        assert words in card.text
    assert_secret(hub, ws, capfd)


def test_the_adapter_goes_with_a_card_and_without_paths_of_this_machine(hub, ws, capfd):
    before = {path: path.read_bytes() for path in ws.root.rglob("*") if path.is_file()}
    assert share_adapter(ws, "me/chest") == f"{hub.url}/me/chest"
    assert hub.private is True
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors", *READ_BY}
    assert set(hub.committed) == names
    assert "probe" not in hub.committed["README.md"].decode()
    config = json.loads(hub.committed["adapter_config.json"])
    assert config == {"r": 16, "base_model_name_or_path": "base"}
    assert hub.committed["adapter_model.safetensors"] == b"weights"
    assert {path: path.read_bytes() for path in ws.root.rglob("*") if path.is_file()} == before
    assert_secret(hub, ws, capfd)


def probe(*names):
    return probes.Probe(names, *np.ones((3, len(names), 1)))


def note_validation(ws: Workspace) -> None:
    """Two findings on validation, as step 3 leaves them."""
    rows = [("effusion", "lung", 40, 9, 0.876), ("cardiomegaly", "heart", 38, 0, None)]
    quality = pd.DataFrame(rows, columns=["finding", "region", "n", "present", "auc"])
    columns = ["recall_weight", "present", "named", "right", "precision", "recall"]
    points = pd.DataFrame([(0.35, 9, 5, 4, 0.8, 4 / 9), (2.0, 9, 30, 9, 0.3, 1.0)], columns=columns)
    quality.to_csv(ws.folder("training") / QUALITY, index=False)
    points.to_csv(ws.folder("training") / POINTS, index=False)


def test_the_probe_goes_with_the_adapter_and_the_card_says_what_it_is_how_well_it_sees_and_its_use(
    hub, tmp_path, phantom_studies
):
    ws = finished(tmp_path / "run", phantom_studies, probe=probe("effusion", "cardiomegaly"))
    note_validation(ws)
    share_adapter(ws, "me/chest")
    assert hub.committed[PROBE] == (ws.folder("training") / "adapter" / PROBE).read_bytes()
    reading = json.loads(hub.committed["reading.json"])
    assert reading["base"] == "demo"
    assert reading["probe"]["findings"] == [["effusion", "lung"], ["cardiomegaly", "heart"]]
    card = ModelCard(hub.committed["README.md"].decode()).text
    said = " ".join(card.split())
    assert "A findings probe decides which findings a report names" in said and "**not a diagnosis**" in said
    assert "It reads: effusion, cardiomegaly." in said and "written at `recall_weight` 0.4:" in said
    assert "At 0.35 the probe names 4 of the 9 findings" in said and "and 5 in all" in said
    assert "| effusion | lung | 40 | 9 | 0.88 |" in card
    assert "| cardiomegaly | heart | 38 | 0 | not known |" in card
    code = card.split("```python")[1].split("```")[0]
    compile(code, "card", "exec")
    assert 'snapshot_download("me/chest")' in code and "utils" not in code
    assert json.loads(hub.committed["generation_config.json"])["max_new_tokens"] == 200


def test_of_a_probe_only_what_is_known_is_said(hub, tmp_path, phantom_studies):
    def card(folder, *names):
        share_adapter(finished(tmp_path / folder, phantom_studies, probe=probe(*names)), "me/chest")
        return " ".join(hub.committed["README.md"].decode().split())

    assert "How well it ranks validation studies was not computed." in card("trained_elsewhere", "nodule")
    none = card("few", *())
    assert "It reads: nothing, as too few" in none and "How well" not in none


def assert_secret(hub, ws, capfd) -> None:
    """The token is in the heads of requests, and nowhere else."""
    assert hub.authorizations == {f"Bearer {TOKEN}"}
    said = capfd.readouterr()
    assert TOKEN not in said.out + said.err + json.dumps(hub.asked)
    assert all(TOKEN.encode() not in path.read_bytes() for path in ws.root.rglob("*") if path.is_file())


def test_the_cards_scores_have_n_interval_and_judge(hub, ws):
    share_adapter(ws, "me/chest")
    card = ModelCard(hub.committed["README.md"].decode())
    assert "0.75 [0.25, 1.00] n=4" in card.text
    assert f"Judge: {OFFLINE}" in card.text and "Do not compare these scores with GREEN" in card.text
    assert "Not for clinical use" in card.text and "CC BY-NC-ND" in card.text and phantoms.WHAT in card.text
    assert "| lora rank | 16 |" in card.text and "| generation max new tokens | 200 |" in card.text
    assert "drawings" in card.text and "demonstration model" in card.text
    assert "pw@x" not in card.content
    assert card.data.library_name == "peft" and card.data.base_model is None
    assert card.data.pipeline_tag == "image-text-to-text"


def test_a_dataset_without_its_radiographs_is_not_shared(hub, tmp_path, phantom_studies, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(StepError, match="The radiographs are not in the dataset"):
        share_dataset(finished(tmp_path / "run", phantom_studies), "me/chest")
    assert not hub.asked


def test_the_real_thing_names_its_base_model_and_green(
    hub, tmp_path, phantom_studies, published, monkeypatch
):
    places = {"processor": str(published / LLAVA), "weights": str(published / "copies" / "vision-in-4-bits")}
    for module in (loading, anywhere):
        monkeypatch.setattr(module, "find", lambda base: replace(REGISTRY[base], **places))
    ws = finished(tmp_path / "t4", phantom_studies, "IU X-Ray", GREEN, LLAVA)
    share_adapter(ws, "me/chest")
    card = ModelCard(hub.committed["README.md"].decode())
    assert card.data.base_model == ON_HUB and f"adapter of `{ON_HUB}`" in card.text
    code = card.text.split("```python")[1].split("```")[0]
    assert f'"{REGISTRY[LLAVA].weights}",' in code and "bits" not in code  # it is in 4 bits already
    assert GREEN in card.text and "stand-in" not in card.text and "drawings" not in card.text


def test_a_base_model_of_ones_own_is_named_without_its_path(hub, tmp_path, phantom_studies, tiny_base):
    shutil.copytree(tiny_base, tmp_path / "mine" / "my_llava")
    ws = finished(tmp_path / "run", phantom_studies, base=str(tmp_path / "mine" / "my_llava"))
    share_adapter(ws, "me/chest")
    assert "`my_llava`" in hub.committed["README.md"].decode()
    assert str(tmp_path) not in "".join(content.decode() for content in hub.committed.values())


@pytest.mark.parametrize("share", [share_dataset, share_adapter])
@pytest.mark.parametrize("label", ["IU X-Ray", "studies of my_hospital"])
def test_only_phantoms_go_to_a_public_repository(hub, tmp_path, phantom_studies, share, label):
    hub.private = False
    ws = finished(tmp_path / "run", phantom_studies, label)
    with pytest.raises(StepError, match=r"me/chest is public, and .* may not be published.*CC BY-NC-ND"):
        share(ws, "me/chest")
    assert hub.committed == {} and not any("upload" in path for _, path, _ in hub.asked)
    share(finished(tmp_path / "phantoms", phantom_studies), "me/chest")
    assert hub.committed


def test_without_a_token_nothing_is_asked(hub, ws, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(StepError, match=r"There is no HF_TOKEN.*Colab's secrets"):
        share_dataset(ws, "me/chest")
    assert hub.asked == []


def test_a_refusal_of_the_hub_is_one_sentence_without_the_token(hub, ws):
    hub.refuses = 401
    with pytest.raises(StepError, match="me/chest could not be pushed to the Hub: ") as caught:
        share_adapter(ws, "me/chest")
    assert "401" in str(caught.value) and TOKEN not in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__suppress_context__
    with pytest.raises(StepError, match="could not be pushed"):
        share_dataset(ws, "no such name/at all/")


def test_scores_of_another_adapter_are_not_shared(hub, ws):
    adapter = ws.folder("training") / "adapter"
    write_text(adapter / "adapter_model.safetensors", "weights of a later training")
    ws.finish("training", settings={"base": "demo"}, outputs=[adapter], data_label=phantoms.WHAT)
    with pytest.raises(StepError, match=r"scores belong to another adapter.*04_generate_and_green"):
        share_adapter(ws, "me/chest")
    assert hub.asked == []


def test_what_is_not_finished_or_has_changed_is_not_shared(hub, ws, tmp_path):
    with pytest.raises(StepError, match="02_build_hf_dataset"):
        share_dataset(Workspace(tmp_path / "empty"), "me/chest")
    (ws.folder("evaluation") / "table.md").write_text("better scores")
    with pytest.raises(StepError, match="has changed since"):
        share_adapter(ws, "me/chest")
    assert hub.asked == []


def test_how_to_share_is_said():
    assert "SHARE_TO" in HOW and "HF_TOKEN" in HOW and "private" in HOW
