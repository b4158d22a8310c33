"""The demo's small base model: LLaVA-NeXT's own classes, pretrained on phantom captions.

`python -m tools.base_model` makes the weights in `utils/models/demo_base` again, on phantoms that fine-tuning
never meets: the seeds are apart.
"""

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, Features, List
from datasets import Image as ImageColumn
from PIL import Image
from torch.nn.functional import cross_entropy
from transformers import (
    CLIPVisionConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    get_cosine_schedule_with_warmup,
)

from utils.data import phantoms
from utils.data.hf_dataset import MESSAGES, instruction
from utils.data.phantoms import Phantom
from utils.data.studies import SPLITS
from utils.data.wording import OF_REGION, VALUES, Attributes
from utils.models.bases import DEMO_FOLDER
from utils.models.loading import load_processor
from utils.regions import ALL, parse, render
from utils.run.disk import replacing, write_json
from utils.run.progress import progress
from utils.run.workspace import versions
from utils.training.small_bases import (
    RATE,
    MuonAndAdamW,
    language_trainer,
    lesson,
    new_processor,
    normal,
    untrained,
)

SIDE, PATCH = 112, 14
SEED = 7_000_003  # far from the seed of any set that is fine-tuned on
EPOCHS_OF_SEEING, EPOCHS_OF_CAPTIONS = 6, 2
FIGURES = "figures.json"
SEEN_AT_ONCE = 32  # phantoms in a step of seeing
TESTED = 300  # phantoms that it has not met
ASK_LIST, ASK_TEXT = "List what is in the picture.", "Describe the radiograph."
ASK_REGION = "Describe the {}."


def listed(attributes: Attributes) -> str:
    """What is drawn, attribute by attribute, one line per region: it teaches the model to read pictures."""
    values = asdict(attributes)
    return render(
        {region: ", ".join(f"{name} {values[name]}" for name in names) for region, names in OF_REGION.items()}
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


def draw_small(seed: int, index: int) -> Phantom:
    """Phantom `index` of the pretraining stream, its views as small as the model sees them."""
    phantom = phantoms.draw((seed, len(SPLITS), index))
    views = [view.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for view in phantom.views]
    return replace(phantom, views=views)


def teach_to_see(
    model: LlavaNextForConditionalGeneration, drawn: list[Phantom], epochs: int, seed: int
) -> None:
    """Train the vision tower alone to name each attribute of the frontal view from its patches.

    The strongest patches decide, as most findings fill a few only. Captions come after: alone they teach a
    tower from nothing far more slowly, as most of their loss is about wording.
    """
    torch.manual_seed(seed)
    tower, layer = model.model.vision_tower, model.config.vision_feature_layer
    heads = torch.nn.ModuleList(
        torch.nn.Linear(tower.config.hidden_size, len(values)) for values in VALUES.values()
    )
    pixels = torch.from_numpy(np.stack([np.asarray(phantom.views[0]) for phantom in drawn]))
    attributes = [asdict(phantom.attributes).items() for phantom in drawn]
    wanted = torch.tensor([[VALUES[name].index(value) for name, value in each] for each in attributes])
    steps = epochs * (len(drawn) // SEEN_AT_ONCE)
    weights = [*tower.named_parameters(), *heads.named_parameters()]
    optimizer = MuonAndAdamW(weights, RATE)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
    order = torch.cat([torch.randperm(len(drawn))[: steps // epochs * SEEN_AT_ONCE] for _ in range(epochs)])
    for chosen in progress(order.split(SEEN_AT_ONCE), "teaching to see", total=steps):
        views = normal(pixels[chosen, None].expand(-1, 3, -1, -1) / 255)
        with torch.autocast("cpu", torch.bfloat16):
            patches = tower(views, output_hidden_states=True).hidden_states[layer][:, 1:]
        seen = patches.float()
        losses = (cross_entropy(head(seen).logsumexp(1), wanted[chosen, k]) for k, head in enumerate(heads))
        sum(losses).backward()
        torch.nn.utils.clip_grad_norm_([weight for _, weight in weights], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


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
    name = "python -m tools.base_model"
    parser = argparse.ArgumentParser(prog=name, description="Pretrain the demo's base model.")
    parser.add_argument("--folder", type=Path, default=DEMO_FOLDER)
    parser.add_argument("--studies", type=int, default=6000, help="phantoms to learn from (%(default)s)")
    pretrain(**vars(parser.parse_args()))
