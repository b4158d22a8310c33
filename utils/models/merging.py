"""`python -m utils.models merge ADAPTER FOLDER`: an adapter merged into 16-bit weights.

The weights are those that the adapter was taught on, the base model's in 4 bits, brought back to 16: so the
merged model writes what the adapter does. In memory are the model in 4 bits and one file of the result.
"""

import argparse
import shutil
from pathlib import Path

import torch
from accelerate import init_empty_weights
from bitsandbytes.nn import Linear4bit
from huggingface_hub import split_torch_state_dict_into_shards
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_bnb_weight
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, PretrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from utils.run.disk import replacing, write_json
from utils.run.machine import card
from utils.run.progress import progress
from utils.run.workspace import StepError
from utils.settings import GenerationSettings

from .anywhere import config_of, write_files
from .bases import find
from .loading import how_to_read, load_adapter, load_model

SHARD = 10**9  # bytes in a file of weights, at most


def main(arguments: list[str]) -> None:
    """The command line: merge, and say what to do with the result."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.models merge", description="Merge an adapter into 16-bit weights."
    )
    parser.add_argument("adapter", type=Path, help="folder with the adapter of step 3")
    parser.add_argument("folder", type=Path, help="new folder for the merged weights")
    chosen = parser.parse_args(arguments)
    try:
        merge(chosen.adapter, chosen.folder)
    except StepError as error:
        raise SystemExit(str(error)) from None
    print(f"{chosen.folder} has the merged weights. AutoModelForImageTextToText loads them.")


def merge(adapter: Path, folder: Path, shard: int = SHARD) -> None:
    """Write the base model of the adapter in `adapter`, merged with it, in 16 bits into the new `folder`.

    The folder is there as a whole or not at all; it also has what `anywhere.write_files` writes.
    shard: bytes in a file of weights, at most
    Raises StepError where there is no adapter, `folder` has files, or the disk has no room.
    """
    how = how_to_read(adapter)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StepError(f"{folder} is there already: name a new folder.")
    how["precision"] = precision = _precision(how)
    config = config_of(how)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    files, index = _files(config, shard)
    _room_or_stop(folder, index["metadata"]["total_size"])
    if precision == "bf16" and (gpu := card()) and not gpu.bf16:
        precision = "fp32"  # nothing is computed with the model, but such a GPU is not given bf16
    model = load_adapter(load_model(how["base"], how["image_tokens"], precision), adapter)
    defaults = GenerationSettings()
    with replacing(folder) as room:
        write_files(adapter, room, defaults.recall_weight, defaults.max_new_tokens)
        config.save_pretrained(room)
        for file, names in progress(files.items(), "merging"):
            tensors = {name: _merged(model, name).to(config.dtype).cpu().contiguous() for name in names}
            save_file(tensors, room / file, {"format": "pt"})
        if len(files) > 1:
            write_json(room / SAFE_WEIGHTS_INDEX_NAME, index)


def _precision(how: dict) -> str:
    """The 16 bits of the merged weights: those that the adapter was taught in, or that the base can bear."""
    possible = [name for name in find(how["base"]).precisions if name != "fp32"]
    return how["precision"] if how["precision"] in possible else possible[0]


def _files(config: PretrainedConfig, shard: int) -> tuple[dict[str, list[str]], dict]:
    """Which weights of a model of `config` go into which file, and the index of the files."""
    with init_empty_weights(include_buffers=True):
        empty = AutoModelForImageTextToText.from_config(config, dtype=config.dtype)
    tensors, seen = {}, set()
    for name, tensor in empty.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:  # a head that is tied to the embedding is written once
            tensors[name] = tensor.detach()
        seen.add(id(tensor))
    split = split_torch_state_dict_into_shards(tensors, max_shard_size=shard)
    return split.filename_to_tensors, {"metadata": split.metadata, "weight_map": split.tensor_to_filename}


def _room_or_stop(folder: Path, size: int) -> None:
    place = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(place).free
    if free < size * 1.01:  # the tokenizer and the other small files too
        raise StepError(
            f"The merged weights take {size / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free in {place}: "
            "make room, or name a folder on another disk."
        )


@torch.inference_mode()
def _merged(model: PeftModel, name: str) -> torch.Tensor:
    """The weight called `name` of the base model, as it is with the adapter."""
    owner, _, leaf = name.rpartition(".")
    layer = model.get_base_model().get_submodule(owner)
    adapters = []
    if isinstance(layer, LoraLayer):
        adapters, layer = [layer], layer.base_layer
    weight = getattr(layer, leaf)
    if leaf != "weight":
        return weight
    if isinstance(layer, Linear4bit):
        weight = dequantize_bnb_weight(weight, weight.quant_state)
    for adapter in adapters:
        weight = adapter.get_delta_weight("default").float().add_(weight)
    return weight
