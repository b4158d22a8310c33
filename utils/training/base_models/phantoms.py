"""The demo's small base model: LLaVA-NeXT's own classes, pretrained on phantom captions.

`python -m utils.training.base_models.phantoms` makes the weights in `utils/training/base_models/demo` again,
on phantoms that fine-tuning never meets: the seeds are apart.
"""

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset, Features, List
from datasets import Image as ImageColumn
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)
from trl import SFTConfig, SFTTrainer

from utils.data import phantoms
from utils.data.hf_dataset import MESSAGES, instruction
from utils.data.phantoms import Phantom
from utils.data.studies import SPLITS
from utils.data.wording import OF_REGION, Attributes
from utils.models.bases import DEMO_FOLDER
from utils.models.loading import load_processor, set_budget
from utils.regions import ALL, parse, render
from utils.run.disk import replacing, write_json
from utils.run.progress import progress
from utils.run.workspace import versions

from .seeing import RATE, MuonAndAdamW, lesson, teach_to_see

SIDE, PATCH, VOCABULARY = 112, 14, 768
SEED = 7_000_003  # far from the seed of any set that is fine-tuned on
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
EPOCHS_OF_SEEING, EPOCHS_OF_CAPTIONS = 6, 2
FIGURES = "figures.json"
TESTED = 300  # phantoms that it has not met
ASK_LIST, ASK_TEXT = "List what is in the picture.", "Describe the radiograph."
ASK_REGION = "Describe the {}."


def listed(attributes: Attributes) -> str:
    """What is drawn, attribute by attribute, one line per region: it teaches the model to read pictures."""
    values = asdict(attributes)
    return render(
        {region: ", ".join(f"{name} {values[name]}" for name in names) for region, names in OF_REGION.items()}
    )


def new_processor(
    texts: list[str], side: int = SIDE, patch: int = PATCH, vocabulary: int = VOCABULARY
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
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="left",
        extra_special_tokens={"image_token": "<image>"},
        **SPECIAL,
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


def new_model(processor: LlavaNextProcessor, seed: int = 0) -> LlavaNextForConditionalGeneration:
    """An untrained model of phantoms for `processor`."""
    vision = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        image_size=processor.image_processor.crop_size["height"],
        patch_size=PATCH,
    )
    return untrained(processor, vision, -2, seed)


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


def draw_small(seed: int, index: int) -> Phantom:
    """Phantom `index` of the pretraining stream, its views as small as the model sees them."""
    phantom = phantoms.draw((seed, len(SPLITS), index))
    views = [view.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for view in phantom.views]
    return replace(phantom, views=views)


def captions(drawn: list[Phantom]) -> Dataset:
    """Two examples a phantom: one lists its attributes, the other is prose, of the whole or of one region."""
    features = Features({"images": List(ImageColumn()), "prompt": MESSAGES, "completion": MESSAGES})
    examples = []
    for number, phantom in enumerate(drawn):
        regions = [region for region in ALL if phantom.findings[region]]
        region = regions[number % len(regions)]
        prose = (ASK_REGION.format(region), phantom.findings[region])
        if number % 2:
            prose = (ASK_TEXT, phantom.original)
        for question, answer in ((ASK_LIST, listed(phantom.attributes)), prose):
            prompt = [{"role": "user", "content": question}]
            completion = [{"role": "assistant", "content": answer}]
            examples.append({"images": phantom.views, "prompt": prompt, "completion": completion})
    return Dataset.from_list(examples, features=features)


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


def pretrain(folder: Path, studies: int, seed: int = SEED) -> None:
    """Make the base model in `folder`: its tokenizer learnt, its tower taught to see, then captions."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        drawn = pool.map(partial(draw_small, seed), range(studies), chunksize=32)
        drawn = list(progress(drawn, "drawing phantoms", total=studies))
    examples = captions(drawn)
    texts = [turn["content"] for column in ("prompt", "completion") for (turn,) in examples[column]]
    # The tokenizer also knows the words that fine-tuning will use.
    processor = new_processor([*texts, *[instruction()] * 50])
    model = new_model(processor, seed)
    teach_to_see(model, drawn, EPOCHS_OF_SEEING, seed)
    with tempfile.TemporaryDirectory() as scratch:
        processor.save_pretrained(scratch)
        model.config.save_pretrained(scratch)
        reader = load_processor(scratch)
        arguments = lesson(scratch, EPOCHS_OF_CAPTIONS, 16, seed) | {"save_strategy": "no"}
        loss = language_trainer(model, reader, examples, **arguments).train().training_loss
    right = attributes_read_right(model, reader, seed + 1000, TESTED)
    figures = {
        "seed": seed,
        "phantoms": studies,
        "epochs of seeing": EPOCHS_OF_SEEING,
        "epochs of captions": EPOCHS_OF_CAPTIONS,
        "parameters": model.num_parameters(),
        "mean loss of captions": round(loss, 4),
        f"attributes read right, of {TESTED} phantoms": right.mean().round(3).to_dict(),
        "versions": versions(),
    }
    with replacing(folder) as room:
        model.half().save_pretrained(room)
        processor.save_pretrained(room)
        write_json(room / FIGURES, figures)


@torch.inference_mode()
def attributes_read_right(model, processor, seed: int, studies: int) -> pd.DataFrame:
    """A row for each of `studies` unseen phantoms: for each attribute, whether the model lists its value."""
    right = []
    model.eval()
    for start in range(0, studies, 50):
        batch = [phantoms.draw((seed, len(SPLITS), i)) for i in range(start, min(start + 50, studies))]
        question = {"type": "text", "text": ASK_LIST}
        asked = [[{"type": "image"}] * len(phantom.views) + [question] for phantom in batch]
        texts = [processor.apply_chat_template([{"role": "user", "content": parts}]) for parts in asked]
        views = [phantom.views for phantom in batch]
        inputs = processor(images=views, text=texts, padding=True, padding_side="left", return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=160, do_sample=False)
        answers = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for phantom, answer in zip(batch, answers, strict=True):
            parts = {part for line in parse(answer).values() for part in line.split(", ")}
            values = asdict(phantom.attributes).items()
            right.append({name: f"{name} {value}" in parts for name, value in values})
    return pd.DataFrame(right)


if __name__ == "__main__":
    name = "python -m utils.training.base_models.phantoms"
    parser = argparse.ArgumentParser(prog=name, description="Pretrain the demo's base model.")
    parser.add_argument("--folder", type=Path, default=DEMO_FOLDER)
    parser.add_argument("--studies", type=int, default=6000, help="phantoms to learn from (%(default)s)")
    pretrain(**vars(parser.parse_args()))
