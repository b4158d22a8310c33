"""What lets an adapter, or the weights it was merged into, be read without this project.

`config.json` and the processor's files give a view its tokens. At `tiles`, and for families that read a view
whole anyway, they are the base model's own. LLaVA-NeXT that reads a view whole is LLaVA: at `base` its
configuration says all. At `frontal` and `pooled`, no model of transformers averages after the projector:
`reading.py` does. That file also sets the headings, after the probe's plan, by what `reading.json` tells it.
"""

import shutil
from math import isqrt
from pathlib import Path

import torch
from transformers import (
    AutoModel,
    CLIPImageProcessor,
    GenerationConfig,
    LlavaConfig,
    LlavaProcessor,
    PretrainedConfig,
    ProcessorMixin,
)

from utils.data.hf_dataset import instruction
from utils.findings.plans import NORMAL
from utils.findings.probe import load as load_probe
from utils.regions import REGIONS
from utils.run.disk import write_json

from . import reading
from .bases import find
from .headings import lead
from .loading import DTYPES, IN_4_BITS, POOLS, PROBE, READING, how_to_read, load_config, load_processor

CODE = Path(reading.__file__)
OF_TILES = ("architectures", "image_grid_pinpoints", "model_type")  # what LLaVA's configuration lacks


def write_files(adapter: Path, folder: Path, recall_weight: float, max_new_tokens: int) -> None:
    """Put into `folder` all that reading studies like the adapter in `adapter` needs, but for the weights.

    recall_weight, max_new_tokens: see `settings.GenerationSettings`
    """
    how = how_to_read(adapter)
    processor, config = processor_of(how), config_of(how)
    end = processor.tokenizer.eos_token_id
    generation = GenerationConfig(max_new_tokens=max_new_tokens, eos_token_id=end, pad_token_id=end)
    for part in (processor, config, generation):
        part.save_pretrained(folder)
    noted = {"findings": [], "normal": {}, "layer": getattr(config, "vision_feature_layer", None)}
    if (adapter / PROBE).exists():
        shutil.copyfile(adapter / PROBE, folder / PROBE)
        probe = load_probe(adapter / PROBE)
        noted["findings"] = [(group.name, group.region) for group in probe.groups]
        noted["normal"] = {region: [NORMAL] for region in probe.normal}
        noted["threshold"] = probe.threshold(recall_weight)
    reader = {
        "base": without_path(how["base"]),
        "dtype": str(DTYPES[how["precision"]]).removeprefix("torch."),
        "regions": REGIONS,
        "instruction": instruction(),
        "lead": lead(processor),
        "pools": POOLS[how["image_tokens"]] if _is_whole(how) else (),
        "probe": noted,
    }
    write_json(folder / READING, how | reader)
    shutil.copyfile(CODE, folder / CODE.name)


def processor_of(how: dict) -> ProcessorMixin:
    """The processor of `loading.load_processor` as transformers has it.

    how: base and image_tokens, as `loading.how_to_read` gives them. At `frontal` every view has the tokens of
    a further one, and `reading.py` gives the first view more
    """
    ours = load_processor(how["base"], how["image_tokens"])
    if not _is_whole(how):
        return ours
    images = ours.image_processor
    names = ("resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    side = images.crop_size["height"]
    whole = CLIPImageProcessor(
        size={"height": side, "width": side},
        crop_size={"height": side, "width": side},
        do_convert_rgb=True,
        **{name: getattr(images, name) for name in names},
    )
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
    config, dtype = load_config(how["base"]), DTYPES[how["precision"]]
    if _is_whole(how):
        shared = {name: value for name, value in config.to_dict().items() if name not in OF_TILES}
        strategy = "default" if _has_class_token(config) else "full"
        config = LlavaConfig(**shared | {"vision_feature_select_strategy": strategy})
        config.architectures = ["LlavaForConditionalGeneration"]
    if hasattr(config, "quantization_config"):
        config.quantization_config["bnb_4bit_compute_dtype"] = str(dtype).removeprefix("torch.")
    config.dtype = dtype
    return config


def _is_whole(how: dict) -> bool:
    """Whether a LLaVA-NeXT reads a view whole, in tokens of our own budgets."""
    return find(how["base"]).family == "llava_next" and how["image_tokens"] != "tiles"


def _has_class_token(config: PretrainedConfig) -> bool:
    """Whether the vision tower puts a token before a picture's patches."""
    vision = config.vision_config
    with torch.device("meta"):
        view = torch.empty(1, vision.num_channels, vision.image_size, vision.image_size)
        seen = AutoModel.from_config(vision)(view, output_hidden_states=True).hidden_states[-1]
    return seen.ndim == 3 and isqrt(seen.shape[1]) ** 2 != seen.shape[1]


def without_path(base: str) -> str:
    """The name of a base model; of a folder on this machine its last part."""
    path = Path(base)
    return path.name if path.is_absolute() or path.is_dir() else base


def snippet(how: dict, folder: str, base: str) -> str:
    """Python code that writes the report of a study with transformers and peft.

    how: base and precision, see `processor_of`
    folder: code that gives the folder with the files; base: where transformers finds the base model
    """
    dtype, quantisation, bits = DTYPES[how["precision"]], "", ""
    if not hasattr(load_config(how["base"]), "quantization_config"):
        values = "".join(f"    {name}={value!r},\n" for name, value in IN_4_BITS.items()).replace("'", '"')
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
