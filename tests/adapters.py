"""Adapters, made up."""

import json
import shutil
import sys
from pathlib import Path

import probes
import torch
from peft import get_peft_model

from utils.models import anywhere
from utils.models.loading import ADAPTER_FILES, PROBE, READING, how_to_read, load_model, lora_config
from utils.models.writer import Writer
from utils.settings import RECALL_WEIGHT, preset

FINDINGS = ("effusion", "opacity", "cardiomegaly", "fracture")


def an_adapter(folder: Path, base: str, image_tokens: str, see: list | None = None) -> Path:
    """An adapter in `folder` that changes what its base says; `see` are studies that it has a probe of."""
    reading = {"base": base, "image_tokens": image_tokens, "precision": "fp32"}
    torch.manual_seed(0)
    model = get_peft_model(load_model(**reading), lora_config(preset("demo").training))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    model.save_pretrained(folder)
    (folder / READING).write_text(json.dumps({**reading, "views": 2}))
    if see:
        probe = probes.by_chance(Writer(folder).tower.see(see), FINDINGS)
        probe.save(folder / PROBE)
    return folder


def shared(adapter: Path, folder: Path, max_new_tokens: int, recall_weight: float = RECALL_WEIGHT) -> Path:
    """What a repository with the adapter has, but for its card."""
    folder.mkdir(parents=True)
    for name in ADAPTER_FILES:
        shutil.copy(adapter / name, folder)
    anywhere.write_files(adapter, folder, recall_weight, max_new_tokens)
    return folder


def reader_of(adapter: Path, folder: Path, *options):
    """The reader that the card's code makes, here; `folder` and `options` are as `shared` takes them."""
    shared(adapter, folder, *options)
    how = how_to_read(adapter)
    code = anywhere.snippet(how, repr(str(folder)), str(anywhere.find(how["base"]).weights))
    space = {}
    exec(code[: code.index("print(")], space)
    sys.path.remove(str(folder))
    del sys.modules[anywhere.CODE.stem]
    return space["reader"]


NAMES = ("effusion", "opacity", "cardiomegaly", "degenerative change")


def untrained(base: Path, folder: Path) -> Path:
    """An adapter of the base model in the folder `base` that changes nothing, without a probe."""
    reading = {"base": str(base), "image_tokens": "base", "precision": "fp32"}
    model = get_peft_model(load_model(**reading), lora_config(preset("demo").training))
    model.save_pretrained(folder)
    (folder / READING).write_text(json.dumps({**reading, "views": 2}))
    return folder


def with_probe(base: Path, folder: Path, studies) -> Path:
    """The same with a probe that finds each of `NAMES` in some of `studies`."""
    features = Writer(untrained(base, folder)).features(studies, "studies")
    probes.by_chance(features, NAMES).save(folder / PROBE)
    return folder
