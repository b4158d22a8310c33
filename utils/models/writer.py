"""Reports from radiographs: in batches, appended as they come, so that a run can stop and go on.

`generations.jsonl` has a line a report: `system` (which way of writing), `split`, `id`,
`text` as the model wrote it, `report` by region, and the hash of the adapter.
"""

import gc
import itertools
import random
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import torch
from datasets import Dataset
from PIL import Image
from transformers import LogitsProcessor, PreTrainedModel, ProcessorMixin
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from utils.answers import AnswerFile
from utils.data.hf_dataset import instruction
from utils.models.loading import ADAPTER_FILES, how_to_read, load_adapter, load_model, load_processor
from utils.regions import REGIONS, parse, render
from utils.settings import GenerationSettings
from utils.workspace import StepError, file_hash, progress

_FIRST_WORDS = ("a", "clear", "no", "unremarkable")  # of findings: whatever begins differently
MODEL, SHUFFLED = "fine-tuned model", "images shuffled"


class EveryRegion(LogitsProcessor):
    """Makes a report name every region, in order: where it would end or begin a line, the next heading comes.

    Headings are the form of a report, not findings: what stands behind one is
    the model's own, and a report that names all regions is left as it is.
    Without this, a model that saw many studies silent on bone leaves it out of
    those too that are not. A line's end is seen in a token's text, as many
    tokenizers join it with the full stop before it.
    """

    def __init__(self, processor: ProcessorMixin, prompt_length: int):
        self.tokenizer, self.start = processor.tokenizer, prompt_length
        self.first = _first_heading(processor)
        self.end = self.tokenizer.eos_token_id
        special = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        self.ends = {self.end, *special}
        self.queues: list[list[int]] = []  # of each row, the tokens that come whatever the model would write
        self.written: list[int] = []  # of each row, the headings so far

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if input_ids.shape[1] == self.start:
            self.queues = [list(self.first) for _ in input_ids]
            self.written = [1] * len(input_ids)
        for row, best in enumerate(scores.argmax(-1).tolist()):
            queue = self.queues[row] = self.queues[row] or self._instead_of(best, row)
            if queue:
                scores[row] = -torch.inf
                scores[row, queue.pop(0)] = 0
        return scores

    def _instead_of(self, token: int, row: int) -> list[int]:
        """What comes in place of `token`, the model's choice in `row`; empty: the choice stands."""
        if token in self.ends:
            kept, ended = "\n", True
        else:
            kept, ended = self._up_to_newline(token), False
        if not kept:
            return []
        if self.written[row] == len(REGIONS):
            return [self.end] if ended else []
        self.written[row] += 1
        return self._encode(f"x{kept}{REGIONS[self.written[row] - 1]}:")[len(self._encode("x")) :]

    @cache  # noqa: B019  (lives as long as one batch)
    def _up_to_newline(self, token: int) -> str:
        text = self.tokenizer.decode([token])
        return text[: text.rfind("\n") + 1]

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)


class Writer:
    """The fine-tuned model, ready to write reports."""

    def __init__(self, adapter: Path):
        self.reading = how_to_read(adapter)
        self.adapter = file_hash(adapter / ADAPTER_FILES[0])[:16]
        base, image_tokens, precision = (self.reading[n] for n in ("base", "image_tokens", "precision"))
        self.processor = load_processor(base, image_tokens)
        self.model = load_adapter(load_model(base, image_tokens, precision), adapter)

    def write(self, studies: list[list], max_new_tokens: int) -> list[str]:
        """A report text for each study, given as its list of views (PIL images). Greedy."""
        first = [views[: self.reading["views"]] for views in studies]
        return write(self.model, self.processor, first, max_new_tokens)

    def take(self, adapter: Path) -> "Writer":
        """Write with another adapter of the same base model from now on."""
        self.model.delete_adapter("default")
        self.model.load_adapter(adapter, "default")
        self.model.set_adapter("default")
        self.adapter = file_hash(adapter / ADAPTER_FILES[0])[:16]
        return self

    def close(self) -> None:
        """Free the model's memory, which the judge needs."""
        self.model = None
        gc.collect()
        torch.cuda.empty_cache()


@torch.inference_mode()
def write(
    model: PreTrainedModel, processor: ProcessorMixin, studies: list[list], max_new_tokens: int
) -> list[str]:
    """A report text by `model` for each study, given as its list of views (PIL images). Greedy."""
    batch = processor(
        images=studies,
        text=[_question(processor, len(views)) for views in studies],
        padding=True,
        padding_side="left",
        add_special_tokens=False,  # the prompt holds those it needs, as in training
        return_tensors="pt",
    ).to(model.device, model.dtype)
    length = batch["input_ids"].shape[1]
    tokens = model.generate(
        **batch,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
        logits_processor=[EveryRegion(processor, length)],
    )
    return processor.batch_decode(tokens[:, length:], skip_special_tokens=True)


def _question(processor: ProcessorMixin, views: int) -> str:
    content = [{"type": "image"}] * views + [{"type": "text", "text": instruction()}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


@cache
def _first_heading(processor: ProcessorMixin) -> list[int]:
    """What all answers of training begin with, in the tokens that the trainer's own collator gives them."""
    collate = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
    reports = [render({REGIONS[0]: word}) for word in _FIRST_WORDS]
    view = Image.new("RGB", (32, 32))
    rows = [
        {
            "images": [view],
            "prompt": [{"role": "user", "content": instruction()}],
            "completion": [{"role": "assistant", "content": report}],
        }
        for report in reports
    ]
    answers = [row[row != -100].tolist() for row in collate(rows)["labels"]]
    alike = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*answers, strict=False))
    return [tokens[0] for tokens in alike]


def write_reports(
    writer: Writer,
    split: Dataset,
    name: str,
    path: Path,
    settings: GenerationSettings,
    system: str = MODEL,
    show: Callable[..., Iterable] = progress,
) -> list[dict]:
    """The reports on the studies of `split`, called `name`, in order; those in `path` are not written again.

    With `system` SHUFFLED each study is written from the views of another,
    which shows how much of a score comes from the pictures.
    Raises StepError where `path` holds the reports of another adapter.
    """
    most = settings.shuffled if system == SHUFFLED else settings.studies or len(split)
    studies = split.select(range(min(most, len(split))))
    sources = other_studies(len(studies)) if system == SHUFFLED else list(range(len(studies)))
    known, file = _open_generations(path, writer.adapter)
    done = {(row["system"], row["split"], row["id"]): row for row in known}
    ids = studies["id"]
    todo = [i for i, study in enumerate(ids) if (system, name, study) not in done]
    todo.sort(key=lambda i: studies[sources[i]]["views"])  # same number of views together: less padding
    batches = [
        todo[start : start + settings.batch_size] for start in range(0, len(todo), settings.batch_size)
    ]
    for batch in show(batches, f"{name}: {system}"):
        texts = _within_memory(writer, [studies[sources[i]]["images"] for i in batch], settings)
        for i, text in zip(batch, texts, strict=True):
            row = {
                "system": system,
                "split": name,
                "id": ids[i],
                "text": text,
                "report": parse(text),
                "adapter": writer.adapter,
            }
            file.add(row)
            done[system, name, ids[i]] = row
    return [done[system, name, study] for study in ids]


def _within_memory(writer: Writer, studies: list[list], settings: GenerationSettings) -> list[str]:
    """The reports of `studies`, in halves of halves where the GPU's memory does not hold all at once."""
    try:
        return writer.write(studies, settings.max_new_tokens)
    except torch.OutOfMemoryError:
        if len(studies) == 1:
            raise StepError(
                "The GPU's memory does not hold one study: restart the runtime, or use an adapter with "
                "fewer image tokens."
            ) from None
    torch.cuda.empty_cache()
    half = len(studies) // 2
    parts = (studies[:half], studies[half:])
    return [text for part in parts for text in _within_memory(writer, part, settings)]


def read_generations(path: Path, adapter: str | None = None) -> list[dict]:
    """The lines of `path`, `[]` where there is none.

    Raises StepError where a line is damaged or comes from another adapter than `adapter`.
    """
    return _open_generations(path, adapter)[0] if path.exists() else []


def _open_generations(path: Path, adapter: str | None) -> tuple[list[dict], AnswerFile]:
    rows: list[dict] = []

    def take(row: dict) -> None:
        if adapter and row["adapter"] != adapter:
            raise StepError(
                f"{path} holds the reports of another adapter: move it away and run this cell again."
            )
        rows.append(row)

    return rows, AnswerFile(path, "a report", take, StepError)


def other_studies(count: int, seed: int = 0) -> list[int]:
    """For each of `count` studies another one, each used once."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    partner = dict(zip(order, order[1:] + order[:1], strict=True))
    return [partner[i] for i in range(count)]
