"""The knobs of each step, with their types, ranges, defaults and one line of help each.

`preset("t4")` is the real thing on a Colab T4. `preset("small")` is the same series with the real radiographs
on two CPU cores, `preset("demo")` with phantoms, offline. A test checks that docs/training.md has all their
differences.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from utils.run.machine import PRESETS, card, in_kaggle

DEMO_BASE = "demo"  # the small base model that ships with the project
SMALL_BASE = "small"  # the one that notebook 03 teaches on the training split first
BASES = (  # what each needs stands in bases.py
    "llava-v1.6-mistral-7b",
    "llava-v1.6-vicuna-7b",
    "llama3-llava-next-8b",
    "llava-interleave-qwen-0.5b",
    "medgemma-4b-it",
)
# What `make demo` and `make collection` took once on two CPU cores, by step: the estimate. They print both.
TIMES = {
    "demo": {"regions": "18 s", "dataset": "12 s", "training": "69 s", "evaluation": "38 s"},
    "small": {"regions": "17 s", "dataset": "55 s", "training": "17 min", "evaluation": "97 s"},
}
BUDGETS = ("tiles", "base", "frontal", "pooled")  # of image tokens
AS_NEEDED, ALL = "as needed", "all"  # layers that are recomputed
RECALL_WEIGHT = 0.5  # see GenerationSettings
KAGGLE_HOURS = 11  # of a session's 12, until training or judging stops by itself


class StepSettings(BaseModel):
    """Settings that refuse unknown names and values out of range, also when changed later. A form folds
    away, by group, those that are `folded`, and offers a field's `examples` beside any other text."""

    folded: ClassVar[dict[str, tuple[str, ...]]] = {}
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


Settings = TypeVar("Settings", bound=StepSettings)
Fraction = Annotated[float, Field(ge=0, le=1)]


class SplitSettings(StepSettings):
    """Step 1: findings to regions."""

    folded = {
        "prompt": ("prompt", "examples"),
        "requests": ("concurrency", "budget"),
        "comparison with gold": ("gold_studies", "other_prompt"),
    }
    engine: Literal["offline", "openai", "local"] = Field(
        "offline", description="offline: a lexicon, no key needed; openai: a server; local: a model run here"
    )
    model: str = Field("", description="name of the language model; empty: the engine's default")
    base_url: str = Field("", description="address of an OpenAI-compatible server; empty for OpenAI itself")
    prompt: str = Field("split_v1", description="name of the prompt file in utils/split/prompts")
    examples: int = Field(0, ge=0, le=8, description="training studies shown in the prompt as examples")
    concurrency: int = Field(16, ge=1, le=64, description="requests sent at the same time")
    budget: float = Field(
        2, ge=0, le=1000, description="dollars per run; no questions are sent after that; 0: no limit"
    )
    gold_studies: int = Field(
        40, ge=0, le=2000, description="training studies used to compare the split with gold; 0: none"
    )
    other_prompt: str = Field("", description="a second prompt file to compare with the first; empty: none")


class PromptSettings(StepSettings):
    """Step 1: the system prompt that a language model gets before each report."""

    text: str = Field(description="the system prompt; the report follows as the user's message")


class DatasetSettings(StepSettings):
    """Step 2: radiographs and findings to a Hugging Face dataset."""

    views: int = Field(2, ge=1, le=4, description="maximum radiographs per study, frontal first")
    longest_side: int = Field(
        672, ge=112, le=2048, description="larger radiographs are scaled down to this many pixels"
    )


class TrainingSettings(StepSettings):
    """Step 3: 4-bit QLoRA fine-tuning."""

    folded = {
        "memory and speed": ("views", "batch_size", "accumulation", "precision", "optimizer", "recompute"),
        "adapter": ("lora_alpha", "lora_dropout", "projector"),
        "schedule": ("max_steps", "warmup", "hours", "seed"),
        "evaluation": ("evaluate_every", "evaluate_on", "samples"),
        "checkpoints": ("choose", "save_every", "keep"),
    }
    base: str = Field(
        BASES[0],
        examples=[*BASES, DEMO_BASE],
        description="the base model: clear the field to see the list, or type a Hub name or a folder",
    )
    image_tokens: Literal[BUDGETS] = Field(
        "pooled",
        description="tiles: whole views and their tiles; base: whole views; pooled: a quarter of base; "
        "frontal: base, but only a quarter of views after the first",
    )
    views: int = Field(2, ge=1, le=4, description="maximum radiographs per study, frontal first")
    precision: Literal["fp16", "bf16", "fp32"] = Field(
        "fp16", description="arithmetic between the 4-bit weights; bf16 needs a newer GPU than a T4"
    )
    optimizer: Literal["paged_adamw_8bit", "adamw_torch"] = Field(
        "paged_adamw_8bit", description="paged 8-bit AdamW needs a GPU"
    )
    recompute: str = Field(
        AS_NEEDED,
        pattern=rf"^({AS_NEEDED}|{ALL}|\d+)$",
        coerce_numbers_to_str=True,
        examples=[AS_NEEDED, ALL, "0"],
        description="layers whose activations are computed again, not kept: as needed for memory, all, or a "
        "number; the losses are the same",
    )
    epochs: float = Field(2.0, gt=0, le=50, description="passes over the training studies")
    max_steps: int = Field(-1, ge=-1, description="optimiser steps; -1: as many as the epochs need")
    batch_size: int = Field(4, ge=1, le=64, description="studies in one batch on the device")
    accumulation: int = Field(4, ge=1, le=256, description="batches per optimiser step")
    learning_rate: float = Field(1e-4, gt=0, le=0.1, description="peak learning rate")
    warmup: Fraction = Field(0.1, description="share of the steps during which the learning rate rises")
    lora_rank: int = Field(16, ge=1, le=256, description="rank of the adapter's matrices")
    lora_alpha: int = Field(32, ge=1, le=512, description="the adapter's scale is alpha / rank")
    lora_dropout: Fraction = Field(0.05, description="share of adapter inputs dropped while training")
    projector: bool = Field(False, description="also train the projector, which maps vision to language")
    evaluate_every: int = Field(40, ge=1, description="optimiser steps between evaluation losses")
    evaluate_on: int = Field(100, ge=1, description="validation studies used for the evaluation loss")
    samples: int = Field(
        2, ge=0, le=8, description="validation studies with a report shown at each evaluation"
    )
    choose: Literal["loss", "findings", "last"] = Field(
        "loss", description="checkpoint to use: lowest evaluation loss, most findings right, or last"
    )
    save_every: int = Field(20, ge=1, description="optimiser steps between checkpoints")
    keep: int = Field(2, ge=1, le=20, description="newest checkpoints to keep, in addition to the best")
    hours: float = Field(3.5, ge=0, le=24, description="hours until training stops at a checkpoint; 0: never")
    seed: int = Field(17, ge=0, description="random seed for the adapter, the order of studies, and dropout")


class GenerationSettings(StepSettings):
    """Step 4, first half: reports for validation and test."""

    batch_size: int = Field(
        0, ge=0, le=256, description="reports written at once; 0: as many as fit in free memory"
    )
    max_new_tokens: int = Field(200, ge=16, le=1024, description="maximum tokens per report")
    recall_weight: float = Field(
        RECALL_WEIGHT,
        ge=0.1,
        le=2,
        description="how much naming every finding counts against naming no false one; 1: the same",
    )
    studies: int = Field(0, ge=0, description="maximum studies per split; 0: all")
    shuffled: int = Field(
        150,
        ge=0,
        description="test studies also written by two controls: the model with the images of other studies, "
        "and the base model without fine-tuning; 0: none",
    )


class JudgeSettings(StepSettings):
    """Step 4, second half: the judge of the reports."""

    folded = {"how the judge runs": ("precision", "batch_size", "identical_without_asking")}
    engine: Literal["green", "server", "offline"] = Field(
        "green", description="green: the 7B judge, run here; server: GREEN on a server; offline: a stand-in"
    )
    precision: Literal["nf4", "int8", "fp16"] = Field("nf4", description="for the 7B judge; fp16 needs 14 GB")
    base_url: str = Field(
        "", description="address of the judge's server; if it needs a key, set the secret JUDGE_API_KEY"
    )
    batch_size: int = Field(
        0, ge=0, le=256, description="pairs judged at once; 0: as many as fit in free memory (server: 8)"
    )
    systems: Literal["model", "model and shuffled", "all"] = Field(
        "all", description="whose reports are judged; all: those of the baselines, too"
    )
    hours: float = Field(3.5, ge=0, le=24, description="hours until judging stops after an answer; 0: never")
    identical_without_asking: bool = Field(
        False, description="score 1.0 without asking if report and reference are equal; the table says so"
    )


class Preset(StepSettings):
    """All steps' settings, and where the studies come from."""

    name: Literal[PRESETS]
    data: Literal["iu_xray", "phantoms"]
    split: SplitSettings = SplitSettings()
    dataset: DatasetSettings = DatasetSettings()
    training: TrainingSettings = TrainingSettings()
    generation: GenerationSettings = GenerationSettings()
    judge: JudgeSettings = JudgeSettings()


def with_values(settings: Settings, values: dict) -> Settings:
    """`settings` with `values` in place of some of them, checked as any others."""
    return type(settings).model_validate({**settings.model_dump(), **values})


def explained(settings: Mapping[str, Mapping]) -> list[tuple[str, object, str]]:
    """Rows (step and name, value, meaning) of settings; meaning is empty where no form has the name."""
    rows = []
    for step, values in settings.items():
        form = Preset.model_fields.get(step)
        knobs = form.annotation.model_fields if form else {}
        meanings = {name: knob.description for name, knob in knobs.items()}
        rows += [(f"{step}.{name}", value, meanings.get(name, "")) for name, value in values.items()]
    return rows


def preset(name: str) -> Preset:
    """The settings of all steps at one of the three sizes, `t4`, `small` or `demo`.

    `t4` follows the machine: it trains in bf16 on a GPU that has it, and for longer in Kaggle's sessions.
    """
    # On a processor, where memory and the network play no part.
    plain = {"image_tokens": "base", "precision": "fp32", "optimizer": "adamw_torch", "accumulation": 1}
    plain, offline = {**plain, "lora_dropout": 0}, JudgeSettings(engine="offline")
    match name:
        case "t4":
            gpu, session = card(), {"hours": KAGGLE_HOURS} if in_kaggle() else {}
            training = TrainingSettings(precision="bf16" if gpu and gpu.bf16 else "fp16", **session)
            return Preset(name="t4", data="iu_xray", training=training, judge=JudgeSettings(**session))
        case "demo":
            training = TrainingSettings(base=DEMO_BASE, learning_rate=3e-3, evaluate_every=80, **plain)
            return Preset(name="demo", data="phantoms", training=training, judge=offline)
        case "small":
            schedule = {"epochs": 3, "batch_size": 8, "learning_rate": 2e-3}
            schedule |= {"evaluate_every": 130, "save_every": 130}
            # Where the losses are level, the last checkpoint names more of what the plan says.
            training = TrainingSettings(base=SMALL_BASE, choose="last", **schedule, **plain)
            return Preset(
                name="small",
                data="iu_xray",
                dataset=DatasetSettings(longest_side=256),
                training=training,
                generation=GenerationSettings(shuffled=1000),
                judge=offline,
            )
    raise ValueError(f"no preset called {name!r}: choose {', '.join(PRESETS)}")
