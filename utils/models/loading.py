"""The vision-language model: processor, 4-bit weights, LoRA, and what a view costs in tokens.

All of it is transformers, bitsandbytes and peft. What is ours is the token budget of a view (`image_tokens`
in the settings) for LLaVA-NeXT; other families read a view whole in their own number of tokens: `base`.

- `tiles`: the model's own cutting into a base view and tiles;
- `base`: each whole view once, a token per patch;
- `frontal`: the first view as `base`, further ones as `pooled`;
- `pooled`: as `base`, averaged 2 x 2 after the projector.
"""

import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from math import isqrt
from pathlib import Path
from types import MethodType

import torch
from accelerate import PartialState
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from PIL import Image
from safetensors import safe_open
from torch.nn.functional import avg_pool2d
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    LlavaNextProcessor,
    PretrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.image_utils import make_nested_list_of_images
from transformers.modeling_outputs import BaseModelOutputWithPooling

from utils.run.machine import NF4, card
from utils.run.workspace import StepError
from utils.settings import TrainingSettings

from . import reading
from .bases import computes_or_stop, find, reads_whole

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
READING = "reading.json"  # beside an adapter: how it was taught to read a study
PROBE = "probe.safetensors"  # beside an adapter: what decides which findings its reports name
SIDE = "longest_side"  # in that note: to what its radiographs were scaled, see `DatasetSettings`
READING_SETTINGS = ("base", "image_tokens", "precision", "views")
POOLS = {"base": (1, 1), "frontal": (1, 2), "pooled": (2, 2)}  # of a study's first view, and of others
UNQUANTISED = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
IN_4_BITS = {**NF4, "llm_int8_skip_modules": UNQUANTISED}
LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
PROJECTOR_TARGETS = r".*multi_modal_projector\.linear_\d"
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class WholeViewProcessor(LlavaNextProcessor):
    """LLaVA-NeXT's processor for whole views: of each, `pool` x `pool` patches make a token, see `POOLS`.
    `image_sizes` become those at which the model is to read the views: half the side, a quarter of tokens."""

    pools = POOLS["base"]

    def side(self, number: int) -> int:
        """Pixels per side at which view `number` of a study is read."""
        return self.image_processor.crop_size["height"] // self.pools[min(number, 1)]

    def tokens(self, number: int) -> int:
        """How many tokens view `number` of a study takes in the prompt."""
        return (self.side(number) // self.patch_size) ** 2

    def _process_images(self, images: Sequence[Sequence], **kwargs) -> tuple[dict, list[str]]:
        processed = self.image_processor(images, **kwargs)
        numbers = [number for study in make_nested_list_of_images(images) for number in range(len(study))]
        processed["image_sizes"] = torch.tensor([[self.side(number)] * 2 for number in numbers])
        return processed, [self.image_token * self.tokens(number) for number in numbers]


def patches_of(outputs: BaseModelOutputWithPooling, config: PretrainedConfig) -> torch.Tensor:
    """(views, patches, hidden) of a vision tower's outputs, in the layer that the language model reads."""
    return reading.patches_of(outputs, getattr(config, "vision_feature_layer", None))


def _whole_view_features(self, pixel_values, image_sizes, **_) -> BaseModelOutputWithPooling:
    """Features of whole views only; stands in for `LlavaNextModel.get_image_features`.

    pixel_values: (views, patches, 3, side, side), the whole view first, or (views, patches, hidden), what the
    tower saw of them before; image_sizes: those of `WholeViewProcessor`
    `pooler_output` is a tuple of one (tokens, hidden) tensor per view.
    """
    if pixel_values.ndim == 3:
        outputs, patches = BaseModelOutputWithPooling(), pixel_values
    else:
        outputs = self.vision_tower(pixel_values[:, 0], output_hidden_states=True, return_dict=True)
        patches = patches_of(outputs, self.config)
    features = self.multi_modal_projector(patches)
    side = isqrt(features.shape[1])
    grids = features.transpose(1, 2).unflatten(2, (side, side))
    pools = [self.config.vision_config.image_size // size for size, _ in image_sizes.tolist()]
    outputs.pooler_output = tuple(
        avg_pool2d(grid, pool).flatten(1).T if pool > 1 else view
        for view, grid, pool in zip(features, grids, pools, strict=True)
    )
    return outputs


def load_processor(base: str, image_tokens: str = "base") -> ProcessorMixin:
    """The base model's processor, counting tokens by the budget `image_tokens`."""
    model = find(base)
    if reads_whole(base, image_tokens):
        processor = WholeViewProcessor.from_pretrained(model.processor)
        processor.pools = POOLS[image_tokens]
        side = processor.image_processor.crop_size["height"]
        processor.image_processor.image_grid_pinpoints = [[side, side]]  # no more tiles than it must cut
    else:
        processor = AutoProcessor.from_pretrained(model.processor)
    processor.image_processor.do_convert_rgb = True  # radiographs are grey; SigLIP's files do not say
    if model.prompt:
        processor.chat_template = model.chat_template
    return processor


def load_config(base: str) -> PretrainedConfig:
    """The configuration of the base model's weights.

    Published copies in 4 bits name an unquantised module by its last part (`multi_modal_projector`) or by the
    path of their time; transformers 5 matches from the start of a path, which now begins with `model.`.
    Raises StepError for any quantisation but bitsandbytes in 4 bits.
    """
    weights = find(base).weights
    config = AutoConfig.from_pretrained(weights)
    if quantisation := getattr(config, "quantization_config", None):
        method = quantisation.get("quant_method")
        if method != "bitsandbytes" or not quantisation.get("load_in_4bit"):
            raise StepError(
                f"{weights} is quantised by {method}, not by bitsandbytes in 4 bits. Set base to another "
                "copy, or to the model in full precision, which is quantised on loading."
            )
        names = quantisation.get("llm_int8_skip_modules") or ["lm_head"]
        names = [name.replace("language_model.model", "language_model") for name in names]
        names = [rf"(.*\.)?{name}(\.|$)" for name in names]
        config.quantization_config = {**quantisation, "llm_int8_skip_modules": names}
    return config


def load_model(base: str, image_tokens: str = "base", precision: str = "fp16") -> PreTrainedModel:
    """The base model, its language model in 4-bit NF4 with double quantisation, on the GPU if there is one.

    All else keeps `precision`; one that is already in 4 bits computes in it. Raises StepError where its
    weights are not what its configuration says, or the GPU has no bf16 and `precision` is that.
    """
    computes_or_stop(precision, card())
    weights, dtype = find(base).weights, DTYPES[precision]
    config = load_config(base)
    is_quantised = hasattr(config, "quantization_config")
    ours = BitsAndBytesConfig(**IN_4_BITS, bnb_4bit_compute_dtype=dtype)
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            weights,
            config=config,
            dtype=dtype,
            device_map={"": PartialState().local_process_index if torch.cuda.is_available() else "cpu"},
            output_loading_info=True,
            **({} if is_quantised else {"quantization_config": ours}),
        )
    except RuntimeError as error:
        # A missing weight is drawn at random, which fails for the bytes of one in 4 bits.
        if not isinstance(error, NotImplementedError) and "mismatched" not in str(error):
            raise
        raise _unfit(weights, "weights that are missing or of another shape") from error
    if missing := report["missing_keys"]:
        raise _unfit(weights, f"no weights for {_few(missing)}")
    maps = {name: part for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    in_4_bits = {name for name, part in maps.items() if hasattr(part.weight, "quant_state")}
    unlike = [name for name, part in maps.items() if isinstance(part, Linear4bit) != (name in in_4_bits)]
    if unlike:
        raise _unfit(weights, f"different weights in 4 bits than it lists ({_few(unlike)})")
    reading.compute_in(model, dtype)
    return stay_as_taught(set_budget(model, image_tokens))


def _unfit(weights: str, fault: str) -> StepError:
    return StepError(
        f"{weights} does not match its own configuration: it has {fault}. Set base to another model."
    )


def _few(names: Iterable[str]) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others):,} more" if others else first


def stay_as_taught(model: PreTrainedModel) -> PreTrainedModel:
    """Keep the norms of a tower of convolutions as they are while the rest trains: each batch teaches
    them. A whole tower in inference mode would keep its activations, as nothing checkpoints them then."""
    for module in model.model.vision_tower.modules():
        if hasattr(module, "running_mean"):
            module.eval().train = lambda mode=True, module=module: module
    return model


def set_budget(model: PreTrainedModel, image_tokens: str) -> PreTrainedModel:
    """Make `model` read its views at the budget `image_tokens`; needs a processor of the same budget."""
    if model.config.model_type == "llava_next" and image_tokens != "tiles":
        model.model.get_image_features = MethodType(_whole_view_features, model.model)
    return model


def lora_config(settings: TrainingSettings) -> LoraConfig:
    """LoRA on every linear layer of the language model, and on the projector where `settings` say so."""
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=f"{LORA_TARGETS}|{PROJECTOR_TARGETS}" if settings.projector else LORA_TARGETS,
        task_type="CAUSAL_LM",
    )


def how_to_read(adapter: Path) -> dict:
    """How the adapter in folder `adapter` was taught to read a study: base, image_tokens, precision,
    views. Raises StepError where there is none."""
    try:
        return json.loads((adapter / READING).read_text(encoding="utf-8"))
    except FileNotFoundError:
        notebook = "notebooks/03_qlora_finetune_T4.ipynb"
        raise StepError(f"There is no adapter in {adapter}: run {notebook} first.") from None


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """`model` with the adapter in `folder`, for inference. Raises StepError where it is of another base."""
    another = StepError(
        f"{folder} is an adapter of another base model than {model.name_or_path}: correct its {READING}."
    )
    try:
        loaded = PeftModel.from_pretrained(model, folder).eval()
    except (RuntimeError, ValueError) as error:
        if not re.search("size mismatch|[Tt]arget module", str(error)):
            raise
        raise another from None
    with safe_open(folder / ADAPTER_FILES[0], "pt") as file:  # what is missing, peft draws unsaid
        if set(file.keys()) != set(get_peft_model_state_dict(loaded)):
            raise another
    return loaded


def view_tokens(processor: ProcessorMixin, sizes: Sequence[tuple[int, int]]) -> int:
    """How many tokens a study's views of `sizes` (height, width in pixels) take in the prompt."""
    if isinstance(processor, WholeViewProcessor):
        return sum(map(processor.tokens, range(len(sizes))))
    if isinstance(processor, LlavaNextProcessor):
        return sum(processor._get_num_multimodal_tokens(image_sizes=sizes).num_image_tokens)
    return len(sizes) * _view_tokens(processor)


@cache
def _view_tokens(processor: ProcessorMixin) -> int:
    """Of a processor that gives every view as many tokens: those of one small view."""
    text = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])
    bare = processor.tokenizer.encode(text, add_special_tokens=False)
    view = Image.new("RGB", (32, 32))
    whole = processor(images=[[view]], text=[text], add_special_tokens=False)["input_ids"][0]
    return len(whole) - len(bare) + 1
