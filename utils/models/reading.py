"""Reports on chest X-rays with transformers alone, as `reading.json` says. Not for clinical use."""

import json
import re
from functools import cache
from math import isqrt
from os.path import commonprefix
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch.nn.functional import avg_pool2d
from transformers import GenerationConfig


class Reader:
    """Writes by a model and its processor, with the other files in `folder`."""

    def __init__(self, model, processor, folder):
        self.model, self.processor, self.folder = model.eval(), processor, Path(folder)
        self.how = json.loads((self.folder / "reading.json").read_bytes())
        self.inner = model.base_model.model.model if hasattr(model, "peft_config") else model.model
        model.generation_config = GenerationConfig.from_pretrained(folder)  # no sampling, no penalties
        compute_in(model, getattr(torch, self.how["dtype"]))
        projector, pools = self.inner.multi_modal_projector, self.how["pools"]
        if pools:  # views are read whole: see `pooled`
            projector.register_forward_pre_hook(lambda _, patches: as_rows(patches[0]))
            projector.register_forward_hook(lambda _, patches, tokens: pooled(tokens, *pools))

    @torch.inference_mode()
    def report(self, views):
        """The findings of a study, one line per region; `views` are PIL images, the frontal one first."""
        views, asked = views[: self.how["views"]], {"type": "text", "text": self.how["instruction"]}
        question = [{"role": "user", "content": [{"type": "image"}] * len(views) + [asked]}]
        text = self.processor.apply_chat_template(question, add_generation_prompt=True)
        inputs = self.inputs(text, views).to(self.model.device, self.model.dtype)
        plan = self.plan(inputs["pixel_values"])
        lines = [f"{name} ({', '.join(plan[name])}):" if plan[name] else f"{name}:" for name in plan]
        headings = Headings(self.processor.tokenizer, self.how["lead"], lines)
        tokens = self.model.generate(**inputs, logits_processor=[headings])[0, inputs["input_ids"].shape[1] :]
        report = self.processor.decode(tokens, skip_special_tokens=True)
        return re.sub(rf"^([ \t]*(?:{'|'.join(plan)})) \([^()\n]*\):", r"\1:", report, flags=re.MULTILINE)

    def inputs(self, text, views):
        """What the model reads; the first view may take the tokens of several further ones."""
        (first, further), token = self.how["pools"] or (1, 1), self.processor.image_token
        more = (further // first) ** 2 - 1  # the processor gives each view the tokens of a further one
        text, images = text.replace(token, token * (1 + more), 1), views[:1] * more + views
        inputs = self.processor(images=[images], text=[text], add_special_tokens=False, return_tensors="pt")
        if more:
            inputs["pixel_values"] = inputs["pixel_values"][more:]
        return inputs

    def plan(self, pixels):
        """By region, the findings to name: those that the probe finds likely in what the tower sees."""
        noted, likely = self.how["probe"], []
        if noted["findings"]:
            whole = pixels[:, 0] if pixels.ndim == 5 else pixels  # of a view's tiles the whole comes first
            seen = self.inner.vision_tower(whole, output_hidden_states=True, return_dict=True)
            patches = patches_of(seen, noted["layer"])
            each = torch.stack([patches.mean(1), patches.amax(1)], 1).float().cpu().numpy()
            features = np.stack([each[0], each.mean(0)]).astype(np.float64).ravel()
            probe = load_file(self.folder / "probe.safetensors")
            scores = features @ probe["weight"].T.astype(np.float64) + probe["bias"]
            likely = 1 / (1 + np.exp(-np.clip(scores, -30, 30))) >= noted["threshold"]
        named = {region: [] for region in self.how["regions"]}
        for (name, region), is_likely in zip(noted["findings"], likely, strict=True):
            named[region] += [name] if is_likely else []
        return {region: names or noted["normal"].get(region) for region, names in named.items()}


class Headings:
    """Of one report: where the model would end it or begin a line, the next heading comes."""

    def __init__(self, tokenizer, lead, headings):
        self.tokenizer, (first, *self.headings) = tokenizer, headings
        starts = (f"{lead}{first} {word}" for word in ("a", "clear", "no", "unremarkable"))
        # What comes whatever the model would write: first, the tokens that all answers begin with.
        self.queue = commonprefix([tokenizer.encode(text, add_special_tokens=False) for text in starts])  # noqa: RUF071

    def choose(self, best):
        """The token to write where the model would write `best`."""
        if not self.queue:
            ended, kept = line_end(self.tokenizer, best)
            if not (kept and self.headings):
                return self.tokenizer.eos_token_id if ended else best
            self.queue = inside(self.tokenizer, kept + self.headings.pop(0))
        return self.queue.pop(0)

    def __call__(self, input_ids, scores):
        token = self.choose(scores[0].argmax().item())
        return torch.full_like(scores, -torch.inf).index_fill(1, input_ids.new_tensor([token]), 0)


@cache
def line_end(tokenizer, token):
    """Whether a token ends a text, and its text up to its last line break."""
    added, text = tokenizer.added_tokens_decoder.get(token), tokenizer.decode([token])
    ended = token == tokenizer.eos_token_id or (added is not None and added.special)
    return ended, "\n" if ended else text[: text.rfind("\n") + 1]


def inside(tokenizer, text):
    """The tokens of `text` where it does not begin a text."""
    start, whole = (tokenizer.encode(part, add_special_tokens=False) for part in ("x", f"x{text}"))
    return whole[len(start) :]


def compute_in(model, dtype):
    """Make a model in 4 bits compute in `dtype`: copies come in bfloat16, which a T4 lacks."""
    modules = [
        part for part in model.modules() if getattr(getattr(part, "weight", None), "quant_state", None)
    ]
    for module in modules:
        module.compute_dtype = module.weight.quant_state.dtype = dtype
        module.support_avx512bf16_for_cpu = False  # an evaluation would repack weights with coarser scales
    for tensor in (*model.parameters(), *model.buffers()) if modules else ():
        if tensor.dtype == torch.bfloat16:
            tensor.data = tensor.data.to(dtype)


def as_rows(seen):
    """(views, patches, hidden); a map of channels, as convolutions leave it, is read row by row."""
    return seen.flatten(2).transpose(1, 2) if seen.ndim == 4 else seen


def patches_of(outputs, layer):
    """(views, patches, hidden) of a vision tower's outputs in `layer`, without a class token.

    layer: None for the last one after its norm, as Gemma 3 reads it
    """
    seen = as_rows(outputs.last_hidden_state if layer is None else outputs.hidden_states[layer])
    return seen[:, seen.shape[1] - isqrt(seen.shape[1]) ** 2 :]


def pooled(tokens, first, further):
    """(1, tokens, hidden) of a study's (views, tokens, hidden): the means of `first` x `first` tokens of the
    first view, then of `further` x `further` of each other one."""
    side = isqrt(tokens.shape[1])
    grids = tokens.transpose(1, 2).unflatten(2, (side, side))
    views = (avg_pool2d(grid, further if number else first) for number, grid in enumerate(grids))
    return torch.cat([view.flatten(1).T for view in views])[None]
