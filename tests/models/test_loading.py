"""What a view costs in tokens, what the model makes of it, and which weights are in 4 bits."""

import json
import shutil

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlavaNextImageProcessor, LlavaNextProcessor, PreTrainedTokenizerFast

from utils.data.wording import VALUES
from utils.models import bases, loading
from utils.run.workspace import StepError
from utils.settings import BUDGETS

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
    one, two, three = (
        {
            name: loading.view_tokens(loading.load_processor(str(real_processor), name), [size] * views)
            for name in BUDGETS
        }
        for views in (1, 2, 3)
    )
    assert one["base"] == one["frontal"] == 576 and one["pooled"] == 144
    assert 2536 <= one["tiles"] <= 2928
    assert two["frontal"] == 576 + 144 and three["frontal"] == 576 + 2 * 144
    assert all(two[name] == 2 * one[name] for name in ("tiles", "base", "pooled"))


@pytest.fixture(scope="module")
def study(tiny_base):
    """A study of two noisy views and a question, as the model's inputs by budget."""
    rng = np.random.default_rng(0)
    views = [Image.fromarray(rng.integers(0, 255, (150, 130), dtype=np.uint8)) for _ in range(2)]

    def inputs(image_tokens):
        processor = loading.load_processor(str(tiny_base), image_tokens)
        content = [{"type": "image"}] * 2 + [{"type": "text", "text": "Write."}]
        text = processor.apply_chat_template([{"role": "user", "content": content}])
        return processor(images=[views], text=[text], return_tensors="pt")

    return inputs


@pytest.mark.parametrize(
    ("image_tokens", "sides"), [("base", (8, 8)), ("frontal", (8, 4)), ("pooled", (4, 4))]
)
def test_whole_view_features_match_an_independent_computation(tiny_base, study, image_tokens, sides):
    loaded = loading.load_model(str(tiny_base), image_tokens, "fp32")
    inputs = study(image_tokens)
    with torch.no_grad():
        features = loaded.model.get_image_features(
            inputs["pixel_values"], inputs["image_sizes"]
        ).pooler_output
        hidden = loaded.model.vision_tower(
            inputs["pixel_values"][:, 0], output_hidden_states=True
        ).hidden_states[-2]
        patches = loaded.model.multi_modal_projector(hidden[:, 1:])
    for view, grid, side in zip(features, patches, sides, strict=True):
        assert len(view) == side**2
        block = 8 // side
        for row in range(side):
            for column in range(side):
                cells = [
                    (row * block + i) * 8 + column * block + j for i in range(block) for j in range(block)
                ]
                torch.testing.assert_close(
                    view[row * side + column], grid[cells].mean(0), rtol=1e-4, atol=1e-5
                )


@pytest.mark.parametrize("image_tokens", BUDGETS)
def test_studies_of_one_and_of_two_views_have_the_tokens_that_are_counted(tiny_base, image_tokens):
    sizes = [(150, 130), (90, 200)]
    views = [Image.new("L", size[::-1]) for size in sizes]
    processor = loading.load_processor(str(tiny_base), image_tokens)
    texts = [f"{'<image>' * count}Write." for count in (2, 1, 2)]
    read = processor(images=[views, views[:1], views], text=texts, padding=True, return_tensors="pt")
    counted = [loading.view_tokens(processor, sizes[:count]) for count in (2, 1, 2)]
    assert (read["input_ids"] == processor.image_token_id).sum(1).tolist() == counted


@pytest.mark.parametrize("image_tokens", BUDGETS)
def test_every_budget_goes_through_the_model(tiny_base, study, image_tokens):
    inputs = study(image_tokens)
    logits = loading.load_model(str(tiny_base), image_tokens, "fp32")(**inputs).logits
    assert logits.shape[:2] == inputs["input_ids"].shape
    assert torch.isfinite(logits).all()


def test_only_the_language_model_is_in_4_bits(tiny_base):
    loaded = loading.load_model(str(tiny_base), "base", "fp32")
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
    assert set(VALUES) == {
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


ORIGINAL, COPIES = "llava-v1.6-mistral-7b", ("vision-in-4-bits", "vision-in-16-bits")
SHORT = ["lm_head", "multi_modal_projector", "vision_tower"]
LANGUAGE, TOWER = 2 * 7, 3 * 6  # linear maps of the published fixtures


def logits(base, image_tokens="pooled"):
    """Of a question and the start of an answer on two noisy views; and the model."""
    rng = np.random.default_rng(0)
    views = [Image.fromarray(rng.integers(0, 255, (150, 130), dtype=np.uint8)) for _ in range(2)]
    text = ["<s>[INST] <image>\n<image>\nWrite. [/INST] lung: clear."]
    loaded, processor = (load(str(base), image_tokens) for load in (load_in_fp32, loading.load_processor))
    inputs = processor(images=[views], text=text, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        return loaded(**inputs).logits, loaded


def load_in_fp32(base, image_tokens):
    return loading.load_model(base, image_tokens, "fp32")


@pytest.fixture(scope="module")
def of_the_original(published):
    return logits(published / ORIGINAL)[0]


@pytest.mark.parametrize("kind", COPIES)
def test_a_published_copy_in_4_bits_is_read_as_it_is_and_computes_in_our_precision(
    published, of_the_original, kind
):
    said, copied = logits(published / "copies" / kind)
    layers = [name for name, module in copied.named_modules() if isinstance(module, Linear4bit)]
    assert sum("language_model" in name for name in layers) == LANGUAGE
    assert sum("vision_tower" in name for name in layers) == (TOWER if kind == "vision-in-4-bits" else 0)
    assert len(layers) == LANGUAGE + (TOWER if kind == "vision-in-4-bits" else 0)
    assert {m.compute_dtype for m in copied.modules() if isinstance(m, Linear4bit)} == {torch.float32}
    assert {p.dtype for p in copied.parameters()} == {torch.float32, torch.uint8}
    both = torch.stack([said.flatten(), of_the_original.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.98


@pytest.fixture
def copy(published, tmp_path):
    """A copy in 4 bits of one's own to damage: its folder, and what changes its quantisation."""
    folder = tmp_path / "copy"
    shutil.copytree(published / "copies" / "vision-in-16-bits", folder)

    def change(**quantisation):
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"].update(quantisation)
        (folder / "config.json").write_text(json.dumps(config))

    return folder, change


@pytest.mark.parametrize(
    ("quantisation", "said"),
    [
        ({"quant_method": "gptq"}, "copy is quantised by gptq, not by bitsandbytes in 4 bits. Set base to"),
        ({"load_in_4bit": False, "load_in_8bit": True}, "not by bitsandbytes in 4 bits. Set base to"),
        (
            {"llm_int8_skip_modules": ["elsewhere"]},
            r"copy does not match .* different weights in 4 bits than it lists \(lm_head and 20 more\)\. Set",
        ),
        (  # transformers 5.24 finds this itself, as shapes that do not fit
            {"llm_int8_skip_modules": [*SHORT, "gate_proj"]},
            r"(lists \(.*gate_proj and 1 more\)|missing or of another shape)\. Set base",
        ),
    ],
)
def test_a_copy_that_is_quantised_otherwise_is_named_in_a_sentence(copy, quantisation, said):
    folder, change = copy
    change(**quantisation)
    with pytest.raises(StepError, match=said):
        loading.load_model(str(folder), "base", "fp32")


def test_weights_that_miss_a_layer_are_named_in_a_sentence(copy):
    folder, _ = copy
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layers.1.mlp.up_proj" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        StepError, match=r"copy .* has weights that are missing or of another shape. Set base"
    ):
        loading.load_model(str(folder), "base", "fp32")


def test_a_base_in_full_precision_that_misses_a_layer_is_named_too(published, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(published / ORIGINAL, folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    lost = "language_model.model.layers.1.input_layernorm.weight"
    shard = folder / index["weight_map"][lost]
    save_file({n: w for n, w in load_file(shard).items() if n != lost}, shard, {"format": "pt"})
    with pytest.raises(
        StepError, match=r"base .* has no weights for model.*layers.1.input_layernorm.* Set base"
    ):
        loading.load_model(str(folder), "base", "fp32")
