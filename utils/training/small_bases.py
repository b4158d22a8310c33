"""What the small base models have in common: processor, language model, trainer, and its optimiser.

`collection` teaches one on real radiographs, `tools/base_model.py` the demo's on phantoms.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from trl import SFTConfig, SFTTrainer

from utils.models.loading import set_budget

RATE = 4e-3  # Muon's peak learning rate
SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
TEMPLATE = (
    "{% for message in messages %}"
    "{% set parts = message['content'] %}"
    "{% if parts is string %}{% set parts = [{'type': 'text', 'text': parts}] %}{% endif %}"
    "{% set images = parts | selectattr('type', 'equalto', 'image') | list | length %}"
    "{% set text = parts | selectattr('type', 'equalto', 'text') | map(attribute='text') | join %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + '<image>\n' * images + text + ' [/INST]' }}"
    "{% else %}{{ ' ' + text + '</s>' }}{% endif %}"
    "{% endfor %}"
)


def new_processor(
    texts: list[str], side: int = 112, patch: int = 14, vocabulary: int = 768
) -> LlavaNextProcessor:
    """A processor like the real one's for views of `side` pixels, its byte-level BPE learnt from `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIAL.values(), "<image>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    image = {"image_token": "<image>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, padding_side="left", extra_special_tokens=image, **SPECIAL
    )
    images = LlavaNextImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_grid_pinpoints=[[side, side], [side, 2 * side], [2 * side, side]],
    )
    return LlavaNextProcessor(
        images,
        fast,
        patch_size=patch,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )


def untrained(
    processor: LlavaNextProcessor, vision: PreTrainedConfig, layer: int, seed: int
) -> LlavaNextForConditionalGeneration:
    """An untrained model: a vision tower as in `vision`, of which it reads `layer`, and a small LLM."""
    tokenizer = processor.tokenizer
    text = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        sliding_window=None,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=processor.image_processor.image_grid_pinpoints,
        vision_feature_layer=layer,
    )
    torch.manual_seed(seed)
    model = LlavaNextForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def language_trainer(
    model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, examples: Dataset, **arguments
) -> SFTTrainer:
    """A trainer of all of `model` but its vision tower on `examples`; `arguments` as `lesson` gives them."""
    model.model.vision_tower.requires_grad_(False)  # a language model that knows nothing would unteach it
    return SFTTrainer(
        model=set_budget(model, "base"),
        processing_class=processor,
        train_dataset=examples,
        args=SFTConfig(**arguments, warmup_steps=0.05, max_length=None, gradient_checkpointing=False),
        optimizers=(MuonAndAdamW(model.named_parameters(), RATE), None),
    )


def lesson(room: Path | str, epochs: int, studies: int, seed: int) -> dict:
    """The trainer's arguments on CPU cores: `studies` in a step, weights saved in `room` after each epoch."""
    return {
        "output_dir": str(room),
        "num_train_epochs": epochs,
        "per_device_train_batch_size": studies,
        "lr_scheduler_type": "cosine",
        "bf16": True,  # autocast: a third faster on two cores
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "logging_steps": 50,
        "seed": seed,
        "report_to": "none",
    }


def normal(pixels: torch.Tensor) -> torch.Tensor:
    """Grey pixels, 0 to 1, as the processor gives them."""
    mean, spread = (torch.tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (pixels - mean) / spread


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for matrices, which it teaches in a fraction of AdamW's steps, and AdamW for all other weights."""

    def __init__(self, weights: Iterable[tuple[str, torch.nn.Parameter]], lr: float):
        matrices, rest = [], []
        for name, weight in weights:
            if weight.requires_grad:
                (matrices if weight.ndim == 2 and "embed" not in name else rest).append(weight)
        self.parts = [
            torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=lr / 2, weight_decay=0.05),
        ]
        super().__init__([*matrices, *rest], {})
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure=None) -> None:
        """A step of both."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict:
        """The state of both, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over what `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]
