"""The base models that can be fine-tuned, and what each needs.

Any other folder or name on the Hub is read from its own configuration, and keeps its processor's prompts.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

from transformers import AutoConfig, PretrainedConfig

from utils.run.machine import Card
from utils.run.workspace import StepError
from utils.settings import BUDGETS, DEMO_BASE, SMALL_BASE, TrainingSettings

DEMO_FOLDER = Path(__file__).parent / "demo_base"
FAMILIES = {"llava_next": BUDGETS, "llava": ("base",), "gemma3": ("base",)}  # and the budgets of each
CHAT = Template(
    "{% for message in messages %}{% if message['role'] == 'user' %}$user"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}$image{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% else %}$between{% for part in message['content'] %}{{ part['text'] }}{% endfor %}$end"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}$opening{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """The sizes of language model and vision tower; `patches` are the tower's positions per picture."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    vision_layers: int
    vision_hidden: int
    vision_intermediate: int
    patches: int
    tied: bool = False  # whether the output head is the embedding

    @classmethod
    def of(cls, config: PretrainedConfig) -> "Shape":
        """The shape in a model's own configuration."""
        text, vision = config.text_config, config.vision_config
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=text.intermediate_size,
            heads=text.num_attention_heads,
            kv_heads=text.num_key_value_heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
            vocabulary=text.vocab_size,
            vision_layers=vision.num_hidden_layers,
            vision_hidden=vision.hidden_size,
            vision_intermediate=vision.intermediate_size,
            patches=(vision.image_size // vision.patch_size) ** 2,
            tied=bool(config.tie_word_embeddings),
        )

    @property
    def linears(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a layer's seven linear maps: query, key, value, output, gate, up, down."""
        hidden, wide = self.hidden, self.intermediate
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = [(hidden, q), (hidden, kv), (hidden, kv), (q, hidden)]
        return [*attention, (hidden, wide), (hidden, wide), (wide, hidden)]

    @property
    def weights(self) -> int:
        """Weights of all layers' linear maps, which are held in 4 bits."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears)

    @property
    def projector(self) -> list[tuple[int, int]]:
        """Inputs and outputs of the maps between vision tower and language model."""
        return [(self.vision_hidden, self.hidden), (self.hidden, self.hidden)]


@dataclass(frozen=True)
class Base:
    """A base model; `processor` and `weights` are names on the Hub or folders, the weights perhaps in 4
    bits. `prompt` is the form of a question and its answer, "" for the processor's own; `image` stands for
    a view."""

    processor: str
    weights: str
    shape: Shape
    family: str = "llava_next"
    prompt: str = ""
    image: str = "<image>\n"
    precisions: tuple[str, ...] = ("fp16", "bf16", "fp32")

    @property
    def budgets(self) -> tuple[str, ...]:
        """The image-token budgets that it can be read at."""
        return FAMILIES[self.family]

    @property
    def chat_template(self) -> str:
        """`prompt` as a Jinja template; every answer ends, as a model learns to stop only from that."""
        user, rest = self.prompt.split("{user}")
        between, end = rest.split("{answer}")
        opening = between.rstrip(" ")  # a space before the answer belongs to its first word
        texts = {"user": user, "image": self.image, "between": between, "end": end, "opening": opening}
        return CHAT.substitute({name: "{{ " + repr(text) + " }}" for name, text in texts.items()})


# Shapes and prompt formats are those of the models' own configurations on the Hub. In the order of `Shape`,
# the vision tower last: `CLIP` is ViT-L/14 at 336 pixels for all LLaVA-NeXT models.
CLIP = 24, 1024, 4096, 576
REGISTRY = {
    "llava-v1.6-mistral-7b": Base(
        processor="llava-hf/llava-v1.6-mistral-7b-hf",
        weights="unsloth/llava-v1.6-mistral-7b-hf-bnb-4bit",
        shape=Shape(32, 4096, 14336, 32, 8, 128, 32064, *CLIP),
        prompt="<s>[INST] {user} [/INST] {answer}</s>",
    ),
    "llava-v1.6-vicuna-7b": Base(
        processor="llava-hf/llava-v1.6-vicuna-7b-hf",
        weights="llava-hf/llava-v1.6-vicuna-7b-hf",
        shape=Shape(32, 4096, 11008, 32, 32, 128, 32064, *CLIP),
        prompt="<s>USER: {user} ASSISTANT: {answer}</s>",
    ),
    "llama3-llava-next-8b": Base(
        processor="llava-hf/llama3-llava-next-8b-hf",
        weights="llava-hf/llama3-llava-next-8b-hf",
        shape=Shape(32, 4096, 14336, 32, 8, 128, 128320, *CLIP),
        prompt="<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{user}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{answer}<|eot_id|>",
    ),
    "llava-interleave-qwen-0.5b": Base(
        processor="llava-hf/llava-interleave-qwen-0.5b-hf",
        weights="llava-hf/llava-interleave-qwen-0.5b-hf",
        family="llava",
        shape=Shape(24, 1024, 2816, 16, 16, 64, 152000, 26, 1152, 4304, 729),
        prompt="<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>",
    ),
    "medgemma-4b-it": Base(
        processor="google/medgemma-4b-it",
        weights="google/medgemma-4b-it",
        family="gemma3",
        shape=Shape(34, 2560, 10240, 8, 4, 256, 262208, 27, 1152, 4304, 4096, tied=True),
        prompt="<bos><start_of_turn>user\n{user}<end_of_turn>\n<start_of_turn>model\n{answer}<end_of_turn>",
        image="<start_of_image>",
        precisions=("bf16", "fp32"),  # Gemma 3's activations leave the range of fp16
    ),
}


@cache
def find(base: str) -> Base:
    """The base model called `base`: one of `REGISTRY`, `demo`, a folder, or another name on the Hub.
    Raises StepError where it cannot be read, or is of no family that this project can train."""
    if base in REGISTRY:
        return REGISTRY[base]
    if base == SMALL_BASE:
        raise StepError("The small base model is not taught yet: run notebooks/03_qlora_finetune_T4.ipynb.")
    name = str(DEMO_FOLDER) if base == DEMO_BASE else base
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError):
        raise StepError(
            f"{base} is not a model that can be loaded. Choose one of {', '.join(REGISTRY)}, a folder, or a "
            "name on the Hub. If the model asks for consent, give it on the model's page and set HF_TOKEN."
        ) from None
    if config.model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise StepError(
            f"{base} is a {config.model_type}, but this project trains only models of the families {known}."
        )
    return Base(name, name, Shape.of(config), config.model_type)


def reads_whole(base: str, image_tokens: str) -> bool:
    """Whether `base` is a LLaVA-NeXT that reads views whole, as our own budgets have it."""
    return find(base).family == "llava_next" and image_tokens != "tiles"


def fits_or_stop(settings: TrainingSettings) -> Base:
    """The base model of `settings`; raises StepError where it cannot be read or computed as they say."""
    base = find(settings.base)
    for name, possible in (("image_tokens", base.budgets), ("precision", base.precisions)):
        if (value := getattr(settings, name)) not in possible:
            raise StepError(
                f"{settings.base} does not support {name} = {value}: set it to {' or '.join(possible)}."
            )
    return base


def computes_or_stop(precision: str, card: Card | None) -> None:
    """Raise StepError where `card` cannot compute in `precision`; None stands for a processor, which can.
    torch would take bf16 on older cards too, and compute it slowly in 32 bits."""
    if precision == "bf16" and card and not card.bf16:
        raise StepError(
            f"The GPU ({card.name}) has no bf16: train with precision = fp16 or fp32, or use one that "
            "has it, such as an L4, A100 or H100."
        )
