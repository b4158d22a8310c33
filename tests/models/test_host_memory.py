"""Loading and merging take little host memory: Colab has 12.7 GiB, and base model or judge more in files.

transformers maps the shards and quantises one weight at a time. Without a GPU the quantised model lies in
host memory too, and so does what bitsandbytes needs to quantise one weight: the limits count both.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from peak_memory import SHARD
from peft import get_peft_model
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    PreTrainedModel,
)

from tools import base_model
from utils.models.loading import READING, load_model, lora_config
from utils.run.disk import write_json
from utils.settings import preset

TEXT = {
    "vocab_size": 1024,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
}
VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="this system does not tell a process's anonymous memory"
)


def save(model: PreTrainedModel, folder: Path) -> Path:
    """`model`, which has no weights yet, with random ones in fp16, in shards."""
    model = model.half().to_empty(device="cpu")
    for weight in model.parameters():
        weight.data.uniform_(-0.02, 0.02)
    model.save_pretrained(folder, max_shard_size=SHARD)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Folders by kind: the `judge`, a `base` model, and a `copy` of it in 4 bits; 300 MB each in fp16."""
    folder = tmp_path_factory.mktemp("shards")
    config = LlavaNextConfig(vision_config=CLIPVisionConfig(**VISION), text_config=MistralConfig(**TEXT))
    config.image_token_id = TEXT["vocab_size"] - 1
    with torch.device("meta"):
        judge, base = LlamaForCausalLM(LlamaConfig(**TEXT)), LlavaNextForConditionalGeneration(config)
    made = {"judge": save(judge, folder / "judge"), "base": save(base, folder / "base")}
    processor = base_model.new_processor(["The heart is normal."])
    processor.tokenizer.save_pretrained(made["judge"])
    processor.save_pretrained(made["base"])
    quantised = load_model(str(made["base"]))
    quantised.save_pretrained(folder / "copy", max_shard_size=SHARD)
    adapter = folder / "adapter"
    get_peft_model(quantised, lora_config(preset("demo").training)).save_pretrained(adapter)
    how = {"base": str(made["base"]), "image_tokens": "pooled", "precision": "fp16", "views": 2}
    write_json(adapter / READING, how)
    return {**made, "copy": folder / "copy", "merge": adapter}


@pytest.fixture(scope="module")
def peaks(models) -> dict[str, int]:
    """The host memory that loading took, in bytes by kind."""
    folders = {**models, "read whole": models["base"]}
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",  # the driver's own memory would count
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "1000000",  # what is freed is given back at once
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, ROOT / "tests" / "peak_memory.py"]
    command += [f"{kind}={folder}" for kind, folder in folders.items()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # after what merging shows


def shards(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.glob("*.safetensors")]


@pytest.mark.parametrize("kind", ["judge", "base"])
def test_quantising_while_loading_holds_the_quantised_model_and_a_few_shards(models, peaks, kind):
    files = shards(models[kind])
    assert len(files) >= 20
    assert peaks[kind] < sum(shards(models["copy"])) + 6 * SHARD < 0.6 * sum(files)


def test_a_copy_in_4_bits_stays_in_its_files_until_it_is_moved(models, peaks):
    assert peaks["copy"] < SHARD < 0.3 * sum(shards(models["copy"]))


def test_merging_holds_the_quantised_model_and_a_few_shards(models, peaks):
    merged = shards(models["merge"].with_name("merged"))
    assert len(merged) >= 20 and sum(merged) > 0.99 * sum(shards(models["base"]))
    assert peaks["merge"] < sum(shards(models["copy"])) + 6 * SHARD < 0.6 * sum(merged)


def test_a_loader_that_held_all_weights_would_be_noticed(models, peaks):
    assert peaks["read whole"] > sum(shards(models["base"]))
