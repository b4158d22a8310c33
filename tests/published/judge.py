"""A small random judge, saved as GREEN-radllama2-7b was published: LLaMA 2's classes, fp16, in shards."""

from pathlib import Path

import torch
import vocabularies
from transformers import LlamaConfig, LlamaForCausalLM


def save(packages: Path, folder: Path) -> None:
    """The judge and its tokenizer in `folder`."""
    vocabularies.save("green", packages, folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=4096,
        initializer_range=0.2,  # wide enough for answers that differ
    )
    LlamaForCausalLM(config).half().save_pretrained(folder, max_shard_size="4MB")
