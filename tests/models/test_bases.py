"""Every base model of the registry trains and writes reports, as a small random one of the same classes.

The LLaVA models are in published form, with real tokenizers, the default's weights as the copy in 4 bits.
MedGemma's is made by today's classes, and its vocabulary is bytes: no package carries the real one.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import probes
import pytest
import torch
from adapters import reader_of
from bitsandbytes.nn import Linear4bit
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    LlamaConfig,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)

from utils.models import bases, loading
from utils.models.bases import REGISTRY, Shape
from utils.models.features import Tower
from utils.models.writer import Writer, questions
from utils.regions import REGIONS
from utils.run.workspace import StepError
from utils.settings import BASES, preset, with_values
from utils.training import trainer as training
from utils.training.checkpoints import Store
from utils.training.lengths import study_tokens

FIRST = {  # what a question begins with, once
    "llava-v1.6-mistral-7b": "<s>",
    "llava-v1.6-vicuna-7b": "<s>",
    "llama3-llava-next-8b": "<|begin_of_text|>",
    "llava-interleave-qwen-0.5b": "<|im_start|>user",
    "medgemma-4b-it": "<bos>",
}
GEMMA, DEFAULT = "medgemma-4b-it", "llava-v1.6-mistral-7b"
BUDGETS = [
    (name, budget)
    for name, base in REGISTRY.items()
    for budget in base.budgets
    if budget != "frontal" or name == DEFAULT  # the same code for all of LLaVA-NeXT
]


def small_gemma(folder: Path) -> None:
    """A random MedGemma in `folder`, with a tokenizer of bytes."""
    images = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    special = ["<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>", *images.values()]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(special)
    words = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=images,
    )
    side = {"height": 56, "width": 56}
    Gemma3Processor(Gemma3ImageProcessor(size=side), words, image_seq_length=4).save_pretrained(folder)
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
    )
    text = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "vocab_size": len(words),
        "pad_token_id": words.pad_token_id,
    }
    torch.manual_seed(0)
    config = Gemma3Config(
        vision_config=vision.to_dict(),
        text_config=text,
        mm_tokens_per_image=4,
        image_token_index=words.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
    )
    Gemma3ForConditionalGeneration(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def base(request, tmp_path_factory):
    """A model of the registry and one of its budgets, with a small one of its classes in its place."""
    name, budget = request.param
    real = REGISTRY[name]
    if name == GEMMA:
        processor = weights = tmp_path_factory.mktemp("base")
        small_gemma(processor)
    else:
        published = request.getfixturevalue("published")
        processor = published / name
        weights = published / "copies" / "vision-in-4-bits" if name == DEFAULT else processor
    shape = Shape.of(AutoConfig.from_pretrained(processor))
    REGISTRY[name] = replace(real, processor=str(processor), weights=str(weights), shape=shape)
    bases.find.cache_clear()
    yield name, budget
    REGISTRY[name] = real
    bases.find.cache_clear()


each_budget = pytest.mark.parametrize("base", BUDGETS, indirect=True, ids="-".join)


@pytest.fixture
def settings(base):
    name, budget = base
    few = {"max_steps": 1, "batch_size": 1, "views": 1, "samples": 0, "evaluate_on": 1, "choose": "last"}
    changes = {"base": name, "image_tokens": budget, "precision": REGISTRY[name].precisions[-1], **few}
    return with_values(preset("demo").training, changes)


def collated(processor, rows):
    """Rows of a dataset as the trainer's collator gives them to the model."""
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    columns = [{key: row[key] for key in ("images", "prompt", "completion")} for row in rows]
    return DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)(columns)


@pytest.mark.slow
@each_budget
def test_it_trains_and_writes_reports_that_name_every_region(base, settings, phantom_dataset, tmp_path):
    training.train(settings, phantom_dataset, tmp_path)
    writer = Writer(tmp_path / "adapter")
    quantised = [n for n, module in writer.model.named_modules() if isinstance(module, Linear4bit)]
    assert sum("language_model" in name for name in quantised) == 7 * 2  # layers of the fixtures
    studies = [study["images"] for study in phantom_dataset["test"].select(range(2))]
    reports = writer.write(studies, 40)
    for report in reports:
        named = [
            name for name in (line.split(":")[0].strip() for line in report.split("\n")) if name in REGIONS
        ]
        assert named and tuple(named) == REGIONS[: len(named)]  # the last ones may lie beyond the limit
    elsewhere = reader_of(tmp_path / "adapter", tmp_path / "shared", 40)
    assert [elsewhere.report(views) for views in studies] == reports


@pytest.mark.slow
@each_budget
def test_what_it_learns_is_the_answer_and_to_stop_after_it(base, settings, phantom_dataset):
    name, _ = base
    processor = loading.load_processor(name, settings.image_tokens)
    rows = [phantom_dataset["train"][i] for i in range(2)]
    batch = collated(processor, rows)
    end = REGISTRY[name].prompt.partition("{answer}")[2]
    for row, study in zip(batch["labels"], rows, strict=True):
        said = processor.tokenizer.decode(row[row != -100])
        assert said.strip() == study["completion"][0]["content"] + end.strip()
    assert processor.tokenizer.decode(batch["input_ids"][0]).count(FIRST[name]) == 1


@each_budget
def test_the_plan_counts_the_tokens_that_the_collator_makes(base, settings, phantom_dataset):
    processor = loading.load_processor(base[0], settings.image_tokens)
    split = phantom_dataset["train"].select(range(3))
    counts = study_tokens(processor, split, 2)
    batch = collated(processor, split)
    assert [total for total, *_ in counts] == batch["attention_mask"].sum(1).tolist()
    assert [answer for *_, answer in counts] == (batch["labels"] != -100).sum(1).tolist()


@pytest.mark.parametrize("base", [(name, "base") for name in REGISTRY], indirect=True, ids="-".join)
def test_the_tower_gives_what_the_model_feeds_its_projector(base, settings, phantom_dataset):
    processor, read = loading.load_processor(base[0]), []
    model = loading.load_model(base[0], "base", settings.precision)
    model.model.multi_modal_projector.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    views = phantom_dataset["test"][0]["images"]
    with torch.inference_mode():
        model(**questions(model, processor, [views]))
    tower = Tower(base[0], settings.precision, 2, processor, load=lambda: model)
    torch.testing.assert_close(torch.cat(read), tower.look(views), rtol=1e-5, atol=1e-5)


def test_the_form_names_every_base():
    assert tuple(REGISTRY) == BASES


def test_what_a_base_cannot_take_is_refused_in_a_sentence():
    settings = preset("t4").training
    assert bases.fits_or_stop(settings) is REGISTRY["llava-v1.6-mistral-7b"]
    for budget in ("pooled", "frontal"):
        refused = f"medgemma-4b-it does not support image_tokens = {budget}: set it to base"
        with pytest.raises(StepError, match=refused):
            bases.fits_or_stop(with_values(settings, {"base": "medgemma-4b-it", "image_tokens": budget}))
    with pytest.raises(StepError, match="does not support precision = fp16: set it to bf16 or fp32"):
        bases.fits_or_stop(with_values(settings, {"base": "medgemma-4b-it", "image_tokens": "base"}))


def test_a_base_that_is_none_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(StepError, match=r"is not a model that can be loaded\. Choose one of llava-v1.6"):
        bases.find(str(tmp_path))
    LlamaConfig(num_hidden_layers=1).save_pretrained(tmp_path / "llama")
    with pytest.raises(StepError, match="is a llama, but this project trains only models of the families"):
        bases.find(str(tmp_path / "llama"))


@pytest.mark.slow
@pytest.mark.parametrize("base", [(DEFAULT, "pooled")], indirect=True, ids="-".join)
def test_a_step_of_the_default_precision_stays_finite(base, settings, phantom_dataset, tmp_path):
    """fp16 under autocast with a gradient scaler, as on a T4, but on the CPU's own kernels."""
    settings = with_values(settings, {"precision": "fp16", "lora_dropout": 0})
    store = Store(tmp_path / "checkpoints", tmp_path / "scratch", 1)
    trainer = training.make_trainer(settings, phantom_dataset, store, probes.NONE)
    trained = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    assert {weight.dtype for weight in trained} == {torch.float32}
    assert {w.dtype for w in trainer.model.parameters() if w.dtype != torch.uint8} == {
        torch.float16,
        torch.float32,
    }
    optimizer, scaler = torch.optim.AdamW(trained, lr=1e-3), torch.amp.GradScaler("cpu")
    batch = next(iter(trainer.get_train_dataloader()))
    losses = []
    trainer.model.train()
    for _ in range(3):
        with torch.autocast("cpu", torch.float16):
            loss = trainer.model(**batch).loss
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        assert all(torch.isfinite(weight.grad).all() for weight in trained)
        assert any(weight.grad.abs().sum() > 0 for weight in trained)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > losses[-1] > 0
    assert all(torch.isfinite(weight).all() for weight in trained)


@pytest.mark.slow
@pytest.mark.parametrize("base", [(DEFAULT, "pooled")], indirect=True, ids="-".join)
def test_bf16_trains_without_a_scaler_and_its_adapter_writes_reports(
    base, settings, phantom_dataset, tmp_path
):
    changes = {"precision": "bf16", "max_steps": 6, "evaluate_every": 3, "learning_rate": 1e-2}
    settings = with_values(settings, changes)
    store = Store(tmp_path / "checkpoints", tmp_path / "scratch", 1)
    trainer = training.make_trainer(settings, phantom_dataset, store, probes.NONE)
    assert trainer.accelerator.scaler is None and trainer.accelerator.mixed_precision == "bf16"
    kinds = {weight.dtype for weight in trainer.model.parameters() if not weight.requires_grad}
    assert kinds == {torch.uint8, torch.bfloat16}  # in 4 bits, and the rest
    assert {weight.dtype for weight in trainer.model.parameters() if weight.requires_grad} == {torch.float32}
    log = training.train(settings, phantom_dataset, tmp_path / "run").log.dropna()
    assert list(log["step"]) == [3, 6] and log["eval_loss"].iloc[1] < log["eval_loss"].iloc[0]
    writer = Writer(tmp_path / "run" / "adapter")
    assert writer.model.dtype == torch.bfloat16
    (report,) = writer.write([phantom_dataset["test"][0]["images"]], 20)
    assert report.strip().startswith(REGIONS[0])
    seen = writer.features(phantom_dataset["test"], "test")
    assert seen.dtype == np.float32 and np.isfinite(seen).all()
