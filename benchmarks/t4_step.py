"""What an optimiser step of the real size takes: memory and seconds, beside what the plan says.

    python benchmarks/t4_step.py [--budgets pooled frontal base tiles] [--recompute "as needed" all 0]

With a GPU: LLaVA-NeXT 7B with random weights in NF4, fp16, the memory capped at
a T4's 14.56 GiB, the default settings, phantoms as radiographs. The peak is the
allocator's; the seconds are this card's, not a T4's.

Without one: the same code with a model of a sixteenth of the width and an eighth of the depth, in
32 bits. The peak is counted tensor by tensor; the seconds are this processor's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import weakref
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPVisionConfig, LlavaNextConfig, LlavaNextForConditionalGeneration, MistralConfig

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import base_model  # noqa: E402
from utils.data import hf_dataset, phantoms, studies  # noqa: E402
from utils.findings.groups import frequent  # noqa: E402
from utils.findings.probe import Probe  # noqa: E402
from utils.models import bases  # noqa: E402
from utils.run.machine import T4  # noqa: E402
from utils.settings import BUDGETS, DatasetSettings, preset, with_values  # noqa: E402
from utils.training import sizes  # noqa: E402
from utils.training.checkpoints import Store  # noqa: E402
from utils.training.lengths import study_tokens  # noqa: E402
from utils.training.probing import findings  # noqa: E402
from utils.training.trainer import make_trainer  # noqa: E402

GRID = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
STUDIES = 64
SHARD = 2 * 2**30  # bytes of a file of weights


class LiveBytes(TorchDispatchMode):
    """Counts the bytes that tensors hold, and the most that they held at once."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.sizes:
                    self.sizes[key] = storage.nbytes()
                    self.live += storage.nbytes()
                    self.peak = max(self.peak, self.live)
                    weakref.finalize(storage, self._drop, key)
        return out

    def _drop(self, key: int) -> None:
        self.live -= self.sizes.pop(key, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--budgets", nargs="+", choices=BUDGETS, default=["pooled", "frontal", "base", "tiles"]
    )
    parser.add_argument("--recompute", nargs="+", default=["as needed", "all", "0"])
    parser.add_argument("--folder", type=Path, help="where base model and phantoms are made; kept if given")
    parser.add_argument("--measure", choices=BUDGETS, help=argparse.SUPPRESS)  # one budget, in this process
    options = parser.parse_args()
    if options.measure:
        (recompute,) = options.recompute
        print(json.dumps(measure(options.folder, options.measure, options.steps, recompute)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "base" / "config.json").exists():
            make(folder)
        for budget, recompute in product(options.budgets, options.recompute):
            command = [sys.executable, __file__, "--folder", folder, "--steps", options.steps]
            command += ["--measure", budget, "--recompute", recompute]
            ran = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
            if ran.returncode:
                print(f"{budget}, {recompute}: did not finish (see above)")
            else:
                print(sentence(json.loads(ran.stdout.splitlines()[-1])))


def make(folder: Path, config: LlavaNextConfig | None = None) -> None:
    """Phantoms as a dataset, and a random base model that reads them: `config`, or what fits this machine."""
    drawn = phantoms.write(folder / "phantoms", STUDIES, 2, 2, seed=0)
    train = {"train": studies.load_studies(drawn)["train"]}
    dataset, _ = hf_dataset.build(train, DatasetSettings(), folder / "dataset", data_label="phantoms")
    texts = [row["prompt"][0]["content"] + row["completion"][0]["content"] for row in dataset["train"]]
    processor = base_model.new_processor(texts, side=336)
    processor.image_processor.image_grid_pinpoints = GRID
    random_base(
        processor, folder / "base", config or (seven_billion() if torch.cuda.is_available() else small())
    )


def random_base(processor, folder: Path, config: LlavaNextConfig) -> None:
    """LLaVA-NeXT with random weights, written a file at a time, as nobody has 15 GB of memory to spare."""
    processor.save_pretrained(folder)
    config.image_token_index = processor.tokenizer.convert_tokens_to_ids("<image>")
    with torch.device("meta"):
        names = {name: w.shape for name, w in LlavaNextForConditionalGeneration(config).state_dict().items()}
    config.architectures = [LlavaNextForConditionalGeneration.__name__]
    config.save_pretrained(folder)
    dtype = torch.float16 if torch.cuda.is_available() else torch.float32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shard, size, index = {}, 0, {}
    torch.manual_seed(0)
    for position, (name, shape) in enumerate(names.items()):
        is_norm = len(shape) == 1 and name.endswith("weight")
        weight = torch.ones(shape) if is_norm else torch.randn(shape, device=device) * 0.02
        shard[name] = weight.to(dtype).cpu().contiguous()
        size += shard[name].nbytes
        if size > SHARD or position == len(names) - 1:
            file = f"model-{len(set(index.values())):05d}.safetensors"
            save_file(shard, folder / file, {"format": "pt"})
            index |= dict.fromkeys(shard, file)
            shard, size = {}, 0
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def seven_billion() -> LlavaNextConfig:
    """The shapes of llava-v1.6-mistral-7b, from the registry."""
    shape = bases.REGISTRY["llava-v1.6-mistral-7b"].shape
    return LlavaNextConfig(
        text_config=MistralConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=32768,
            sliding_window=None,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        ),
        vision_config=CLIPVisionConfig(
            hidden_size=shape.vision_hidden,
            intermediate_size=shape.vision_intermediate,
            num_hidden_layers=shape.vision_layers,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
        ),
        image_grid_pinpoints=GRID,
        vision_feature_layer=-2,
    )


def small() -> LlavaNextConfig:
    """The same proportions at a size for two cores."""
    config = seven_billion()
    text, vision = config.text_config, config.vision_config
    text.vocab_size, text.hidden_size, text.intermediate_size = 4008, 256, 896
    text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads, text.head_dim = 4, 4, 1, 64
    vision.hidden_size, vision.intermediate_size = 64, 256
    vision.num_hidden_layers, vision.num_attention_heads = 3, 4
    return config


def one_layer() -> LlavaNextConfig:
    """The real width and vocabulary, but one layer of the language model and two of the tower."""
    config = seven_billion()
    config.text_config.num_hidden_layers, config.vision_config.num_hidden_layers = 1, 2
    return config


def unread(dataset: dict) -> Probe:
    """A probe for the headings of the reports: it has the findings, but no weights, which no step reads."""
    names = tuple(group.name for group in frequent(findings(dataset["train"])))
    return Probe(names, np.zeros((len(names), 1)), np.zeros(len(names)), np.zeros((1, len(names))))


def measure(folder: Path, budget: str, steps: int, recompute: str) -> dict:
    """Train `steps` steps at `budget` with `recompute`, and what they took."""
    on_gpu = torch.cuda.is_available()
    changes = {"base": str(folder / "base"), "image_tokens": budget, "max_steps": steps, "samples": 0}
    changes["recompute"] = recompute
    if on_gpu:
        changes["precision"] = "fp16"  # as on a T4, whatever the card
    else:
        changes |= {"precision": "fp32", "optimizer": "adamw_torch", "batch_size": 2, "accumulation": 1}
    settings = with_values(preset("t4").training, {**changes, "save_every": 10_000})
    dataset = hf_dataset.load(folder / "dataset")
    if on_gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(T4.memory * sizes.GIB / total)
    store = Store(folder / "kept", folder / "scratch", 1)
    with nullcontext() if on_gpu else LiveBytes() as counted:
        trainer = make_trainer(settings, dataset, store, unread(dataset))
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    base = bases.find(settings.base)
    longest = max(trainer.train_dataset["length"])
    counts = study_tokens(trainer.processing_class, dataset["train"], settings.views)
    answer = max(said for *_, said in counts)
    planned = sizes.memory(settings, base, longest, recomputed=trainer.recomputed, answer=answer)
    return {
        "budget": budget,
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "steps": steps,
        "tokens": longest,
        "recomputed": trainer.recomputed,
        "layers": base.shape.layers,
        "peak": (torch.cuda.max_memory_allocated() if on_gpu else counted.peak) / sizes.GIB,
        "planned": planned / sizes.GIB,
        "seconds": seconds / steps,
    }


def sentence(row: dict) -> str:
    """A row of `measure` in words."""
    share = row["planned"] / row["peak"]
    return (
        f"{row['budget']} on {row['device']}: {row['tokens']:,} tokens in the longest study, "
        f"{row['recomputed']} of {row['layers']} layers recomputed, "
        f"peak {row['peak']:.3f} GiB, planned {row['planned']:.3f} GiB ({share:.2f} of it), "
        f"{row['seconds']:.2f} s a step over {row['steps']} steps"
    )


if __name__ == "__main__":
    main()
