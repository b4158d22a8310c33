"""What lets an adapter, or the weights it was merged into, be read without this project.

At `tiles`, and for families that read a view whole anyway, `config.json` and the processor's files are the
base model's own. LLaVA-NeXT at `base` is LLaVA. At `frontal` and `pooled` no model of transformers averages
after the projector: `reading.py` does, which also sets the headings, by what `reading.json` tells it.
"""

import shutil
from math import isqrt
from pathlib import Path

import torch
from accelerate import init_empty_weights
from bitsandbytes.nn import Linear4bit
from huggingface_hub import split_torch_state_dict_into_shards
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_bnb_weight
from safetensors.torch import save_file
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    GenerationConfig,
    LlavaConfig,
    LlavaProcessor,
    PretrainedConfig,
    ProcessorMixin,
)
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from utils.data.hf_dataset import instruction
from utils.findings.plans import NORMAL
from utils.findings.probe import load as load_probe
from utils.regions import REGIONS
from utils.run.disk import replacing, write_json
from utils.run.machine import card
from utils.run.progress import progress
from utils.run.workspace import StepError
from utils.settings import GenerationSettings

from . import loading, reading
from .bases import find, reads_whole
from .headings import lead

CODE = Path(reading.__file__)
OF_TILES = ("architectures", "image_grid_pinpoints", "model_type")  # what LLaVA's configuration lacks
SHARD = 10**9  # bytes in a file of merged weights, at most


def write_files(adapter: Path, folder: Path, recall_weight: float, max_new_tokens: int) -> None:
    """Put into `folder` all that reading studies like the adapter in `adapter` needs, but for the weights.

    recall_weight, max_new_tokens: see `settings.GenerationSettings`
    """
    how = loading.how_to_read(adapter)
    processor, config = processor_of(how), config_of(how)
    end = processor.tokenizer.eos_token_id
    generation = GenerationConfig(max_new_tokens=max_new_tokens, eos_token_id=end, pad_token_id=end)
    for part in (processor, config, generation):
        part.save_pretrained(folder)
    noted = {"findings": [], "normal": {}, "layer": getattr(config, "vision_feature_layer", None)}
    if (adapter / loading.PROBE).exists():
        shutil.copyfile(adapter / loading.PROBE, folder / loading.PROBE)
        probe = load_probe(adapter / loading.PROBE)
        noted["findings"] = [(group.name, group.region) for group in probe.groups]
        noted["normal"] = {region: [NORMAL] for region in probe.normal}
        noted["threshold"] = probe.threshold(recall_weight)
    reader = {
        "base": without_path(how["base"]),
        "dtype": str(loading.DTYPES[how["precision"]]).removeprefix("torch."),
        "regions": REGIONS,
        "instruction": instruction(),
        "lead": lead(processor),
        "pools": loading.POOLS[how["image_tokens"]] if reads_whole(how["base"], how["image_tokens"]) else (),
        "probe": noted,
    }
    write_json(folder / loading.READING, how | reader)
    shutil.copyfile(CODE, folder / CODE.name)


def processor_of(how: dict) -> ProcessorMixin:
    """The processor of `loading.load_processor` as transformers has it; `how` is what
    `loading.how_to_read` gives. At `frontal` every view has the tokens of a further one, and `reading.py`
    gives the first view more."""
    ours = loading.load_processor(how["base"], how["image_tokens"])
    if not reads_whole(how["base"], how["image_tokens"]):
        return ours
    images = ours.image_processor
    names = ("resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    shared, side = {name: getattr(images, name) for name in names}, images.crop_size["height"]
    size = {"height": side, "width": side}
    whole = CLIPImageProcessor(size=size, crop_size=size, do_convert_rgb=True, **shared)
    return LlavaProcessor(
        whole,
        ours.tokenizer,
        patch_size=ours.patch_size * ours.pools[-1],
        vision_feature_select_strategy="full",  # counts patches alone
        image_token=ours.image_token,
        chat_template=ours.chat_template,
    )


def config_of(how: dict) -> PretrainedConfig:
    """The configuration of a model that reads a view in as many tokens as `how` says; see `processor_of`."""
    config, dtype = loading.load_config(how["base"]), loading.DTYPES[how["precision"]]
    if reads_whole(how["base"], how["image_tokens"]):
        shared = {name: value for name, value in config.to_dict().items() if name not in OF_TILES}
        vision = config.vision_config
        with torch.device("meta"):
            view = torch.empty(1, vision.num_channels, vision.image_size, vision.image_size)
            seen = AutoModel.from_config(vision)(view, output_hidden_states=True).hidden_states[-1]
        class_token = seen.ndim == 3 and isqrt(seen.shape[1]) ** 2 != seen.shape[1]
        shared["vision_feature_select_strategy"] = "default" if class_token else "full"
        config = LlavaConfig(**shared)
        config.architectures = ["LlavaForConditionalGeneration"]
    if hasattr(config, "quantization_config"):
        config.quantization_config["bnb_4bit_compute_dtype"] = str(dtype).removeprefix("torch.")
    config.dtype = dtype
    return config


def without_path(base: str) -> str:
    """The name of a base model; of a folder on this machine its last part."""
    path = Path(base)
    return path.name if path.is_absolute() or path.is_dir() else base


def snippet(how: dict, folder: str, base: str) -> str:
    """Python code that writes the report of a study with transformers and peft.

    how: base and precision, see `processor_of`
    folder: code that gives the folder with the files; base: where transformers finds the base model
    """
    dtype, quantisation, bits = loading.DTYPES[how["precision"]], "", ""
    if not hasattr(loading.load_config(how["base"]), "quantization_config"):
        values = "".join(f"    {name}={value!r},\n" for name, value in loading.IN_4_BITS.items())
        values = values.replace("'", '"')
        bits = f"bits = BitsAndBytesConfig(\n{values}    bnb_4bit_compute_dtype={dtype},\n)\n"
        quantisation = "    quantization_config=bits,\n"
    return f"""import sys

import torch
from huggingface_hub import snapshot_download
from peft import PeftModel
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

folder = {folder}
{bits}model = AutoModelForImageTextToText.from_pretrained(
    "{base}",
    config=AutoConfig.from_pretrained(folder),
{quantisation}    dtype={dtype},
    device_map="auto",
)
model = PeftModel.from_pretrained(model, folder)

sys.path.append(folder)
from {CODE.stem} import Reader

reader = Reader(model, AutoProcessor.from_pretrained(folder), folder)
print(reader.report([Image.open("frontal.png"), Image.open("lateral.png")]))
"""


def merge(adapter: Path, folder: Path, shard: int = SHARD) -> None:
    """Write the base model of the adapter in `adapter`, merged with it, in 16 bits into the new `folder`.

    The base's weights are those in 4 bits that the adapter was taught on, so the merged model writes what the
    adapter does. The folder is there as a whole or not at all. `shard`: bytes in a file of weights, at most.
    Raises StepError where there is no adapter, `folder` has files, or the disk has no room.
    """
    how = loading.how_to_read(adapter)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StepError(f"{folder} is there already: name a new folder.")
    possible = [name for name in find(how["base"]).precisions if name != "fp32"]
    if how["precision"] not in possible:
        how["precision"] = possible[0]
    config = config_of(how)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    files, index = _files(config, shard)
    size, disk = index["metadata"]["total_size"], next(p for p in folder.absolute().parents if p.exists())
    if (free := shutil.disk_usage(disk).free) < size * 1.01:  # the tokenizer and the other small files too
        raise StepError(
            f"The merged weights take {size / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free in {disk}: "
            "make room, or name a folder on another disk."
        )
    # Nothing is computed with the model, but a GPU without bf16 is not given it.
    gpu, precision = card(), how["precision"]
    precision = "fp32" if precision == "bf16" and gpu and not gpu.bf16 else precision
    model = loading.load_adapter(loading.load_model(how["base"], how["image_tokens"], precision), adapter)
    defaults = GenerationSettings()
    with replacing(folder) as room:
        write_files(adapter, room, defaults.recall_weight, defaults.max_new_tokens)
        config.save_pretrained(room)
        for file, names in progress(files.items(), "merging"):
            tensors = {name: _merged(model, name).to(config.dtype).cpu().contiguous() for name in names}
            save_file(tensors, room / file, {"format": "pt"})
        if len(files) > 1:
            write_json(room / SAFE_WEIGHTS_INDEX_NAME, index)


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


@torch.inference_mode()
def _merged(model: PeftModel, name: str) -> torch.Tensor:
    """The weight called `name` of the base model, as it is with the adapter."""
    owner, _, leaf = name.rpartition(".")
    layer = model.get_base_model().get_submodule(owner)
    adapter, layer = (layer, layer.base_layer) if isinstance(layer, LoraLayer) else (None, layer)
    weight = getattr(layer, leaf)
    if leaf != "weight":
        return weight
    if isinstance(layer, Linear4bit):
        weight = dequantize_bnb_weight(weight, weight.quant_state)
    return adapter.get_delta_weight("default").float().add_(weight) if adapter else weight
