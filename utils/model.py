"""The vision-language model: processor, 4-bit weights, LoRA, and what a view costs in tokens.

All of it is LLaVA-NeXT by transformers, bitsandbytes and peft. What is ours
is the token budget of a view (`image_tokens` in the settings):

- `tiles`: the model's own cutting into a base view and tiles;
- `base`: the whole view once, a token a patch;
- `pooled`: the same, averaged 2 x 2 after the projector.
"""

from pathlib import Path
from types import MethodType

import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel
from torch.nn.functional import avg_pool2d
from transformers import BitsAndBytesConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .settings import DEMO_BASE, TrainingSettings

DEMO_FOLDER = Path(__file__).parent / "demo" / "base_model"
POOL = {"base": 1, "pooled": 2}
UNQUANTISED = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


class WholeViewProcessor(LlavaNextProcessor):
    """LLaVA-NeXT's processor for one whole view: `pool` x `pool` patches make a token."""

    pool = 1

    def _get_number_of_features(self, orig_height: int, orig_width: int, height: int, width: int) -> int:
        rows, columns = (side // self.patch_size // self.pool for side in (height, width))
        return rows * columns + self.num_additional_image_tokens


def _whole_view_features(self, pixel_values, image_sizes, **_) -> BaseModelOutputWithPooling:
    """Features of the base view only; stands in for `LlavaNextModel.get_image_features`.

    `pixel_values` is (views, patches, 3, side, side), the base view first;
    `pooler_output` is a tuple of one (tokens, hidden) tensor a view.
    """
    outputs = self.vision_tower(pixel_values[:, 0], output_hidden_states=True, return_dict=True)
    patches = outputs.hidden_states[self.config.vision_feature_layer][:, 1:]  # without the class token
    features = self.multi_modal_projector(patches)
    if self.pool > 1:
        views, tokens, hidden = features.shape
        side = int(tokens**0.5)
        grid = features.transpose(1, 2).reshape(views, hidden, side, side)
        features = avg_pool2d(grid, self.pool).flatten(2).transpose(1, 2)
    outputs.pooler_output = tuple(features)
    return outputs


def load_processor(base: str, image_tokens: str = "base") -> LlavaNextProcessor:
    """The base model's processor, counting tokens by the budget `image_tokens`."""
    if image_tokens == "tiles":
        return LlavaNextProcessor.from_pretrained(base_path(base))
    processor = WholeViewProcessor.from_pretrained(base_path(base))
    processor.pool = POOL[image_tokens]
    side = processor.image_processor.crop_size["height"]
    processor.image_processor.image_grid_pinpoints = [[side, side]]  # no more tiles than it must cut
    return processor


def load_model(
    base: str, image_tokens: str = "base", precision: str = "fp16"
) -> LlavaNextForConditionalGeneration:
    """The base model with its language model in 4-bit NF4, double quantisation, on the GPU if there is one.

    Vision tower, projector and output head keep `precision`. `base` is a Hub
    name, a folder, or `demo`.
    """
    dtype = DTYPES[precision]
    model = LlavaNextForConditionalGeneration.from_pretrained(
        base_path(base),
        dtype=dtype,
        attn_implementation="sdpa",
        device_map={"": 0} if torch.cuda.is_available() else {"": "cpu"},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=UNQUANTISED,
        ),
    )
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # On some CPUs an evaluation would repack the weights with coarser scales for good.
            module.support_avx512bf16_for_cpu = False
    return set_budget(model, image_tokens)


def set_budget(
    model: LlavaNextForConditionalGeneration, image_tokens: str
) -> LlavaNextForConditionalGeneration:
    """Make `model` read its views at the budget `image_tokens`; needs a processor of the same budget."""
    if image_tokens != "tiles":
        model.model.pool = POOL[image_tokens]
        model.model.get_image_features = MethodType(_whole_view_features, model.model)
    return model


def lora_config(settings: TrainingSettings) -> LoraConfig:
    """LoRA on every linear layer of the language model."""
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=LORA_TARGETS,
        task_type="CAUSAL_LM",
    )


def load_adapter(model: LlavaNextForConditionalGeneration, folder: Path) -> PeftModel:
    """`model` with the adapter in `folder`, for inference."""
    return PeftModel.from_pretrained(model, folder).eval()


def view_tokens(processor: LlavaNextProcessor, size: tuple[int, int]) -> int:
    """How many tokens a view of `size` (height, width in pixels) takes in the prompt."""
    (count,) = processor._get_num_multimodal_tokens(image_sizes=[size]).num_image_tokens
    return count


def base_path(base: str) -> str:
    """What transformers loads for `base`: a folder, or a name on the Hub."""
    return str(DEMO_FOLDER) if base == DEMO_BASE else base
