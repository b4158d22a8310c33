"""What a view costs in tokens, what the model makes of it, and which weights are in 4 bits."""

import shutil

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    BitsAndBytesConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
)

from utils import bases, model
from utils.demo import base_model
from utils.settings import preset, with_values

IU_XRAY_SIZES = [(512, 512), (624, 512), (420, 512), (512, 420)]  # height, width


@pytest.fixture(scope="module")
def real_processor(tmp_path_factory, tiny_base):
    """The processor classes with the 7B model's own numbers: 336 pixels, patches of 14, its five tilings."""
    folder = tmp_path_factory.mktemp("real_processor")
    side = 336
    images = LlavaNextImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_grid_pinpoints=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    )
    LlavaNextProcessor(
        images,
        PreTrainedTokenizerFast.from_pretrained(tiny_base),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    shutil.copy(tiny_base / "config.json", folder)
    return folder


@pytest.mark.parametrize("size", IU_XRAY_SIZES)
def test_a_view_of_the_7b_model_costs_what_the_budget_says(real_processor, size):
    tokens = {
        name: model.view_tokens(model.load_processor(str(real_processor), name), size)
        for name in ("tiles", "base", "pooled")
    }
    assert tokens["base"] == 576
    assert tokens["pooled"] == 144
    assert 2536 <= tokens["tiles"] <= 2928


@pytest.fixture(scope="module")
def study(tiny_base):
    """A study of two noisy views and a question, as the model's inputs by budget."""
    rng = np.random.default_rng(0)
    views = [Image.fromarray(rng.integers(0, 255, (150, 130), dtype=np.uint8)) for _ in range(2)]

    def inputs(image_tokens):
        processor = model.load_processor(str(tiny_base), image_tokens)
        content = [{"type": "image"}] * 2 + [{"type": "text", "text": "Write."}]
        text = processor.apply_chat_template([{"role": "user", "content": content}])
        return processor(images=[views], text=[text], return_tensors="pt")

    return inputs


@pytest.mark.parametrize(("image_tokens", "side"), [("base", 8), ("pooled", 4)])
def test_whole_view_features_match_an_independent_computation(tiny_base, study, image_tokens, side):
    loaded = model.load_model(str(tiny_base), image_tokens, "fp32")
    inputs = study(image_tokens)
    with torch.no_grad():
        features = loaded.model.get_image_features(
            inputs["pixel_values"], inputs["image_sizes"]
        ).pooler_output
        hidden = loaded.model.vision_tower(
            inputs["pixel_values"][:, 0], output_hidden_states=True
        ).hidden_states[-2]
        patches = loaded.model.multi_modal_projector(hidden[:, 1:])
    for view, grid in zip(features, patches, strict=True):
        block = 8 // side
        for row in range(side):
            for column in range(side):
                cells = [
                    (row * block + i) * 8 + column * block + j for i in range(block) for j in range(block)
                ]
                torch.testing.assert_close(
                    view[row * side + column], grid[cells].mean(0), rtol=1e-4, atol=1e-5
                )


@pytest.mark.parametrize("image_tokens", ["tiles", "base", "pooled"])
def test_every_budget_goes_through_the_model(tiny_base, study, image_tokens):
    inputs = study(image_tokens)
    logits = model.load_model(str(tiny_base), image_tokens, "fp32")(**inputs).logits
    assert logits.shape[:2] == inputs["input_ids"].shape
    assert torch.isfinite(logits).all()


def test_only_the_language_model_is_in_4_bits(tiny_base):
    loaded = model.load_model(str(tiny_base), "base", "fp32")
    quantised = [name for name, module in loaded.named_modules() if isinstance(module, Linear4bit)]
    assert len(quantised) == 4 * 7  # layers of the language model, linear layers in each
    assert all("language_model" in name for name in quantised)
    assert all(
        module.weight.quant_type == "nf4" for module in loaded.modules() if isinstance(module, Linear4bit)
    )


def test_the_shipped_base_model_is_small_and_says_what_made_it():
    files = {path.name: path.stat().st_size for path in bases.DEMO_FOLDER.iterdir()}
    assert files["model.safetensors"] <= 8 * 2**20
    assert "figures.json" in files
    assert set(base_model.VALUES) == {
        "heart",
        "effusion",
        "opacity",
        "nodule",
        "pneumothorax",
        "mediastinum",
        "aorta",
        "fracture",
        "scoliosis",
        "spine",
        "clips",
    }


@pytest.fixture(scope="module")
def copy_in_4_bits(tiny_base, tmp_path_factory):
    """The base model as others publish it: in 4 bits, made for bfloat16, its weights named as of old."""
    folder = tmp_path_factory.mktemp("copy")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=model.UNQUANTISED,
    )
    LlavaNextForConditionalGeneration.from_pretrained(
        tiny_base, dtype=torch.bfloat16, quantization_config=config, device_map={"": "cpu"}
    ).save_pretrained(folder)
    weights = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        old = name.replace("model.language_model.", "language_model.model.")
        old = old.replace("lm_head.", "language_model.lm_head.", 1) if old.startswith("lm_head") else old
        weights[old.removeprefix("model.")] = weight
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for path in tiny_base.glob("*"):
        if not (folder / path.name).exists():
            shutil.copy(path, folder)
    return folder


def test_a_copy_already_in_4_bits_is_read_as_it_is_and_computes_in_our_precision(
    copy_in_4_bits, tiny_base, study
):
    ours = model.load_model(str(tiny_base), "base", "fp32")
    copied = model.load_model(str(copy_in_4_bits), "base", "fp32")
    layers = [module for module in copied.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 4 * 7
    assert {layer.compute_dtype for layer in layers} == {torch.float32}
    assert {p.dtype for n, p in copied.named_parameters() if "vision_tower" in n} == {torch.float32}
    inputs = study("base")
    torch.testing.assert_close(copied(**inputs).logits, ours(**inputs).logits, rtol=0.05, atol=0.05)


def test_an_adapter_trains_on_a_copy_already_in_4_bits(copy_in_4_bits, phantom_dataset, tmp_path):
    from utils.training import train

    few = {"base": str(copy_in_4_bits), "max_steps": 1, "batch_size": 2, "samples": 0, "choose": "last"}
    assert train(with_values(preset("demo").training, few), phantom_dataset, tmp_path).finished
