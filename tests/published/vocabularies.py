"""Real tokenizers in the form in which they were published, from vocabularies that packages carry.

- LLaMA's SentencePiece form: `tokenizer.model.v1` of Mistral-7B-Instruct-v0.2, from mistral-common
  (Apache 2.0). Vicuna and GREEN have LLaMA 2's vocabulary of the same form and size: it stands in.
- LLaMA 3: `tokenizer.model` of llama-models (LLaMA 3 community licence).
- Qwen: `qwen.tiktoken` of dashscope (Apache 2.0).

Gemma's stands in no package that we found. Runs on transformers 4.46.
"""

import json
from pathlib import Path

from tokenizers import processors
from transformers import LlamaTokenizerFast, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

SENTENCEPIECE = "mistral_common/data/tokenizer.model.v1"
LLAMA_3, QWEN = "llama_models/llama3/tokenizer.model", "dashscope/resources/qwen.tiktoken"
LLAMA_3_SPECIAL = {
    0: "begin_of_text",
    1: "end_of_text",
    6: "start_header_id",
    7: "end_header_id",
    9: "eot_id",
}


def save(name: str, packages: Path, folder: Path) -> None:
    """The tokenizer of the base model called `name`, or of the judge, `green`, saved in `folder`."""
    makers = {"llama3-llava-next-8b": _llama_3, "llava-interleave-qwen-0.5b": _qwen}
    makers.get(name, _sentencepiece)(name, packages).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("add_prefix_space", None)  # newer than the published files
    path.write_text(json.dumps(settings, indent=2))


def _sentencepiece(name: str, packages: Path) -> LlamaTokenizerFast:
    made = LlamaTokenizerFast(vocab_file=str(packages / SENTENCEPIECE), legacy=True, add_prefix_space=True)
    if name == "green":
        return made
    made.add_special_tokens({"additional_special_tokens": ["<image>"]})
    made.add_special_tokens({"pad_token": "<pad>"})
    return made


def _llama_3(_: str, packages: Path) -> PreTrainedTokenizerFast:
    special = [f"<|{LLAMA_3_SPECIAL.get(i, f'reserved_special_token_{i}')}|>" for i in range(256)]
    made = TikTokenConverter(str(packages / LLAMA_3), additional_special_tokens=special).converted()
    first = special[0]
    made.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(f"{first} $A", special_tokens=[(first, made.token_to_id(first))]),
        ]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=first, eos_token="<|eot_id|>")
    fast.add_special_tokens({"additional_special_tokens": ["<image>"]})
    fast.add_special_tokens({"pad_token": "<pad>"})
    return fast


def _qwen(_: str, packages: Path) -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"]
    converter = TikTokenConverter(str(packages / QWEN), PRETOKENIZE_REGEX, additional_special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=converter.converted(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<image>"],
    )
