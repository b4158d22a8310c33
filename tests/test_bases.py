"""Every base model of the registry trains and writes reports, as a small random one of the same classes."""

from dataclasses import replace

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

from utils import bases, model, plan, training
from utils.bases import REGISTRY, Shape
from utils.generation import Writer
from utils.regions import REGIONS
from utils.settings import BASES, preset, with_values
from utils.workspace import StepError

SIDE, PATCH = 56, 14
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}
SPECIAL = {  # beginning, end and padding in each model's tokenizer, and what else its prompt format holds
    "llava-v1.6-mistral-7b": ("<s>", "</s>", "<pad>"),
    "llava-v1.6-vicuna-7b": ("<s>", "</s>", "<pad>"),
    "llama3-llava-next-8b": (
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<pad>",
        "<|start_header_id|>",
        "<|end_header_id|>",
    ),
    "llava-interleave-qwen-0.5b": ("<|endoftext|>", "<|im_end|>", "<pad>", "<|im_start|>"),
    "medgemma-4b-it": ("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"),
}
GEMMA_IMAGE = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}


def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Bytes, and the special tokens of the model called `name`."""
    first, last, pad, *others = SPECIAL[name]
    images = GEMMA_IMAGE if name.startswith("medgemma") else {"image_token": "<image>"}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([first, last, pad, *others, *images.values()])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=first, eos_token=last, pad_token=pad, extra_special_tokens=images
    )


def small(name: str, words: PreTrainedTokenizerFast):
    """A processor and a random model of the classes of the model called `name`."""
    image = words.convert_tokens_to_ids("<image>")
    text = {**TEXT, "vocab_size": len(words), "pad_token_id": words.pad_token_id}
    crop = {"height": SIDE, "width": SIDE}
    if REGISTRY[name].family == "llava_next":
        grid = [[SIDE, SIDE], [SIDE, 2 * SIDE]]
        images = LlavaNextImageProcessor(
            size={"shortest_edge": SIDE}, crop_size=crop, image_grid_pinpoints=grid
        )
        processor = LlavaNextProcessor(
            images,
            words,
            patch_size=PATCH,
            num_additional_image_tokens=1,
            vision_feature_select_strategy="default",
        )
        config = LlavaNextConfig(
            vision_config=CLIPVisionConfig(**VISION),
            text_config=(MistralConfig if "mistral" in name else LlamaConfig)(**text),
            image_token_index=image,
            image_grid_pinpoints=grid,
        )
        return processor, LlavaNextForConditionalGeneration(config)
    if REGISTRY[name].family == "llava":
        processor = LlavaProcessor(
            SiglipImageProcessor(size=crop), words, patch_size=PATCH, vision_feature_select_strategy="full"
        )
        config = LlavaConfig(
            vision_config=SiglipVisionConfig(**VISION),
            text_config=Qwen2Config(**text),
            image_token_index=image,
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
        )
        return processor, LlavaForConditionalGeneration(config)
    processor = Gemma3Processor(Gemma3ImageProcessor(size=crop), words, image_seq_length=4)
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(**VISION).to_dict(),
        text_config={**text, "head_dim": 16},
        mm_tokens_per_image=4,
        image_token_index=words.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
    )
    return processor, Gemma3ForConditionalGeneration(config)


@pytest.fixture(scope="module", params=REGISTRY)
def name(request, tmp_path_factory):
    """A model of the registry, with a small random one of its classes in its place."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    processor, random_model = small(request.param, tokenizer(request.param))
    processor.save_pretrained(folder)
    random_model.save_pretrained(folder)
    real = REGISTRY[request.param]
    REGISTRY[request.param] = replace(
        real, processor=str(folder), weights=str(folder), shape=Shape.of(random_model.config)
    )
    bases.find.cache_clear()
    yield request.param
    REGISTRY[request.param] = real
    bases.find.cache_clear()


@pytest.fixture
def settings(name):
    base = REGISTRY[name]
    few = {"max_steps": 2, "batch_size": 2, "samples": 0, "evaluate_on": 2, "choose": "last"}
    changes = {"base": name, "image_tokens": base.budgets[-1], "precision": base.precisions[-1], **few}
    return with_values(preset("demo").training, changes)


@pytest.mark.slow
def test_it_trains_and_writes_reports_that_name_every_region(name, settings, phantom_dataset, tmp_path):
    training.train(settings, phantom_dataset, tmp_path)
    writer = Writer(tmp_path / "adapter")
    quantised = [n for n, module in writer.model.named_modules() if isinstance(module, Linear4bit)]
    assert len(quantised) == 7 * TEXT["num_hidden_layers"]
    reports = writer.write([study["images"] for study in phantom_dataset["test"].select(range(2))], 150)
    for report in reports:
        names = [line.split(":")[0].strip() for line in report.split("\n")]
        assert names and tuple(names) == REGIONS[: len(names)]


@pytest.mark.slow
def test_what_it_learns_is_the_answer_and_to_stop_after_it(name, settings, phantom_dataset):
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    processor = model.load_processor(name, settings.image_tokens)
    rows = [phantom_dataset["train"][i] for i in range(2)]
    columns = [{key: row[key] for key in ("images", "prompt", "completion")} for row in rows]
    batch = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)(columns)
    end = REGISTRY[name].prompt.partition("{answer}")[2]
    for row, study in zip(batch["labels"], rows, strict=True):
        said = processor.tokenizer.decode(row[row != -100])
        assert said.strip() == study["completion"][0]["content"] + end.strip()
    text = processor.tokenizer.decode(batch["input_ids"][0])
    assert text.count(SPECIAL[name][0]) == (1 if REGISTRY[name].prompt.startswith(SPECIAL[name][0]) else 0)


def test_the_plan_counts_the_tokens_that_the_collator_makes(name, settings, phantom_dataset):
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    processor = model.load_processor(name, settings.image_tokens)
    split = phantom_dataset["train"].select(range(3))
    counts = plan.study_tokens(processor, split, 2)
    columns = [{key: row[key] for key in ("images", "prompt", "completion")} for row in split]
    batch = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)(columns)
    assert [total for total, *_ in counts] == batch["attention_mask"].sum(1).tolist()
    assert [answer for *_, answer in counts] == (batch["labels"] != -100).sum(1).tolist()


def test_the_form_names_every_base():
    assert tuple(REGISTRY) == BASES


def test_what_a_base_cannot_take_is_refused_in_a_sentence():
    settings = preset("t4").training
    assert bases.fits_or_stop(settings) is REGISTRY["llava-v1.6-mistral-7b"]
    with pytest.raises(StepError, match="medgemma-4b-it cannot take image_tokens = pooled: set it to base"):
        bases.fits_or_stop(with_values(settings, {"base": "medgemma-4b-it"}))
    with pytest.raises(StepError, match="cannot take precision = fp16: set it to fp32"):
        bases.fits_or_stop(with_values(settings, {"base": "medgemma-4b-it", "image_tokens": "base"}))


def test_a_base_that_is_none_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(StepError, match=r"is no model that can be read: name one of llava-v1.6"):
        bases.find(str(tmp_path))
    LlamaConfig(num_hidden_layers=1).save_pretrained(tmp_path / "llama")
    with pytest.raises(StepError, match="is a llama; this project trains models of the families"):
        bases.find(str(tmp_path / "llama"))
