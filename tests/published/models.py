"""Small random base models, saved as the real ones were published: by transformers 4.46, in fp16, in shards.

Classes, weight names, configuration and processor files are those of the real models on the Hub; only
widths and depths are smaller. The copies in 4 bits carry the list of unquantised modules of their time.
"""

import json
from pathlib import Path

import bitsandbytes
import torch
from transformers import (
    AutoTokenizer,
    BitsAndBytesConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    MistralConfig,
    Qwen2Config,
    SiglipImageProcessor,
    SiglipVisionConfig,
)
from transformers.integrations import bitsandbytes as backend

# Unsloth's list before transformers 5; with `vision_tower` it is the list of other publishers.
SKIPPED = ["lm_head", "multi_modal_projector", "merger", "modality_projection"]
COPIES = {"vision-in-4-bits": SKIPPED, "vision-in-16-bits": [*SKIPPED, "vision_tower"]}
COPIED = "llava-v1.6-mistral-7b"  # the base model that is published in 4 bits too
LAYERS, SHARD = 2, "8MB"
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
}
VISION = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2}
# Configuration of the language model, its vocabulary, and the side of a picture in pixels.
LANGUAGES = {
    "llava-v1.6-mistral-7b": (MistralConfig, 32064, {"rope_theta": 1e6, "sliding_window": None}, 336),
    "llava-v1.6-vicuna-7b": (LlamaConfig, 32064, {"num_key_value_heads": 4}, 168),
    "llama3-llava-next-8b": (LlamaConfig, 128320, {"rope_theta": 5e5}, 168),
    "llava-interleave-qwen-0.5b": (Qwen2Config, 152000, {"rope_theta": 1e6, "num_key_value_heads": 4}, 168),
}


def save(name: str, tokenizer_folder: Path, folder: Path) -> None:
    """The base model called `name` with the tokenizer in `tokenizer_folder`, saved in `folder`."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    make = _llava if "interleave" in name else _llava_next
    processor, model = make(name, tokenizer)
    _save_processor(processor, folder)
    model.half().save_pretrained(folder, max_shard_size=SHARD)


def save_copies(original: Path, folder: Path) -> None:
    """Copies in 4 bits of the model in `original`, each in a folder of its own in `folder`."""
    # bitsandbytes then wanted Intel's extension for a processor; today's does without.
    bitsandbytes.supported_torch_devices = {"cpu"}
    backend.is_ipex_available = lambda: True
    for name, skipped in COPIES.items():
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=skipped,
        )
        LlavaNextForConditionalGeneration.from_pretrained(
            original, torch_dtype=torch.bfloat16, quantization_config=config, device_map={"": "cpu"}
        ).save_pretrained(folder / name)
        _save_processor(LlavaNextProcessor.from_pretrained(original), folder / name)


def _save_processor(processor, folder: Path) -> None:
    processor.save_pretrained(folder)
    path = folder / "processor_config.json"
    # The published files have had these since 4.48; the class token is one, and SigLIP has none.
    extra = {"num_additional_image_tokens": int(isinstance(processor, LlavaNextProcessor))}
    path.write_text(json.dumps({**json.loads(path.read_text()), **extra}, indent=2))


def _llava_next(name: str, tokenizer):
    language, vocabulary, own, side = LANGUAGES[name]
    grid = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side], [3 * side, side], [side, 3 * side]]
    images = LlavaNextImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, image_grid_pinpoints=grid
    )
    processor = LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        image_token="<image>",
    )
    vision = CLIPVisionConfig(**VISION, image_size=side, patch_size=14, projection_dim=64, vocab_size=32000)
    config = LlavaNextConfig(
        vision_config=vision.to_dict(),
        text_config=language(**{**TEXT, **own}, vocab_size=vocabulary).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
    )
    return processor, LlavaNextForConditionalGeneration(config)


def _llava(name: str, tokenizer):
    language, vocabulary, own, side = LANGUAGES[name]
    images = SiglipImageProcessor(size={"height": side, "width": side})
    processor = LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="full", image_token="<image>"
    )
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(**VISION, image_size=side, patch_size=14).to_dict(),
        text_config=language(**{**TEXT, **own}, vocab_size=vocabulary).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    return processor, LlavaForConditionalGeneration(config)
