"""Reports from radiographs: many at once, appended as they come, so that a run can stop and go on.

`generations.jsonl` has a line a report: `system` (which way of writing), `split`, `id`,
`text` as the model wrote it, `report` by region, and the hash of the adapter.
"""

import gc
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import torch
from datasets import Dataset
from PIL import Image
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from utils.answers import AnswerFile
from utils.data.hf_dataset import instruction
from utils.decoding import Decoder, Drafts, Request
from utils.models.loading import ADAPTER_FILES, how_to_read, load_adapter, load_model, load_processor
from utils.regions import REGIONS, parse, render
from utils.settings import GenerationSettings
from utils.workspace import StepError, file_hash, progress

_FIRST_WORDS = ("a", "clear", "no", "unremarkable")  # of findings: whatever begins differently
AT_ONCE = 16  # studies written together where no number is given
MODEL, SHUFFLED = "fine-tuned model", "images shuffled"


class EveryRegion:
    """Makes reports name every region, in order: where one would end or begin a line, the next heading comes.

    Headings are the form of a report, not findings: what stands behind one is
    the model's own, and a report that names all regions is left as it is.
    Without this, a model that saw many studies silent on bone leaves it out of
    those too that are not. A line's end is seen in a token's text, as many
    tokenizers join it with the full stop before it.

    Called, it gives the `decoding.Rule` of one report.
    """

    def __init__(self, processor: ProcessorMixin):
        self.tokenizer = processor.tokenizer
        self.first = _first_heading(processor)
        self.end = self.tokenizer.eos_token_id
        special = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        self.ends = {self.end, *special}

    def __call__(self) -> "Headings":
        return Headings(self)

    @cache  # noqa: B019  (lives as long as one run)
    def up_to_newline(self, token: int) -> str:
        """A token's text up to its last line break, that included."""
        text = self.tokenizer.decode([token])
        return text[: text.rfind("\n") + 1]

    @cache  # noqa: B019
    def heading(self, kept: str, number: int) -> list[int]:
        """The tokens of `kept` and of the heading of that region."""
        return self.inside(f"{kept}{REGIONS[number]}:")

    def inside(self, text: str) -> list[int]:
        """The tokens of `text` where it does not begin a text."""
        one, both = (self.tokenizer.encode(part, add_special_tokens=False) for part in ("x", f"x{text}"))
        return both[len(one) :]


class Headings:
    """The headings of one report."""

    def __init__(self, form: EveryRegion):
        self.form = form
        self.queue = list(form.first)  # the tokens that come whatever the model would write
        self.written = 1  # headings so far

    def choose(self, best: int) -> int:
        """The token to write where the model would write `best`."""
        self.queue = self.queue or self._instead_of(best)
        return self.queue.pop(0) if self.queue else best

    def ahead(self) -> list[int]:
        """The tokens that come next whatever the model would write."""
        return list(self.queue)

    def _instead_of(self, token: int) -> list[int]:
        """What comes in place of `token`, the model's choice; empty: the choice stands."""
        ended = token in self.form.ends
        kept = "\n" if ended else self.form.up_to_newline(token)
        if not kept:
            return []
        if self.written == len(REGIONS):
            return [self.form.end] if ended else []
        self.written += 1
        return list(self.form.heading(kept, self.written - 1))


class Writer:
    """The fine-tuned model, ready to write reports."""

    def __init__(self, adapter: Path):
        self.reading = how_to_read(adapter)
        self.adapter = file_hash(adapter / ADAPTER_FILES[0])[:16]
        base, image_tokens, precision = (self.reading[n] for n in ("base", "image_tokens", "precision"))
        self.processor = load_processor(base, image_tokens)
        self.model = load_adapter(load_model(base, image_tokens, precision), adapter)
        self.drafts = Drafts()  # of all that it writes

    def write(self, studies: list[list], max_new_tokens: int) -> list[str]:
        """A report text for each study, given as its list of views (PIL images). Greedy."""
        texts = dict(self.stream(studies, max_new_tokens))
        return [texts[number] for number in range(len(studies))]

    def stream(
        self, studies: Sequence[list], max_new_tokens: int, at_once: int = AT_ONCE
    ) -> Iterator[tuple[int, str]]:
        """The number of a study and its report's text, each as soon as it is done; up to `at_once` together.

        studies: their views, read when their turn comes
        """
        first = _FirstViews(studies, self.reading["views"])
        return stream(self.model, self.processor, first, max_new_tokens, at_once, self.drafts)

    def learn(self, reports: Iterable[str]) -> None:
        """Draft reports after these, such as those of training."""
        form = EveryRegion(self.processor)
        for report in reports:
            rest = report.strip().removeprefix(f"{REGIONS[0]}:")
            self.drafts.learn([*form.first, *form.inside(rest), form.end])

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


class _FirstViews(Sequence):
    """The first views of each study, read when asked for."""

    def __init__(self, studies: Sequence[list], views: int):
        self.studies, self.views = studies, views

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, number: int) -> list:
        return self.studies[number][: self.views]


def write(
    model: PreTrainedModel, processor: ProcessorMixin, studies: Sequence[list], max_new_tokens: int
) -> list[str]:
    """A report text by `model` for each study, given as its list of views (PIL images). Greedy."""
    texts = dict(stream(model, processor, studies, max_new_tokens))
    return [texts[number] for number in range(len(studies))]


def stream(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    studies: Sequence[list],
    max_new_tokens: int,
    at_once: int = AT_ONCE,
    drafts: Drafts | None = None,
) -> Iterator[tuple[int, str]]:
    """The number of a study and the text of its report by `model`, each as soon as it is done. Greedy.

    at_once: studies written together, at most, where memory holds as many
    drafts: what reports are drafted after, which learns each report
    """

    def prepare(numbers: list[int]) -> BatchFeature:
        views = [studies[number] for number in numbers]
        return processor(
            images=views,
            text=[_question(processor, len(one)) for one in views],
            padding=True,
            padding_side="right",
            add_special_tokens=False,  # the prompt holds those it needs, as in training
            return_tensors="pt",
        ).to(model.device, model.dtype)

    if not studies:
        return
    # Tiles, and so tokens, differ little between studies of as many views: the first and last stand for all.
    length = max(prepare([number])["input_ids"].shape[1] for number in {0, len(studies) - 1})
    end = processor.tokenizer.eos_token_id
    decoder = Decoder(model, {end}, max_new_tokens, most_rows=at_once, drafts=drafts)
    form = EveryRegion(processor)
    requests = [Request(length=length, rule=form) for _ in studies]
    for number, tokens in decoder.write(requests, prepare):
        yield number, processor.decode(tokens, skip_special_tokens=True)


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
    views = studies.select([sources[i] for i in todo])["images"]
    writer.learn(row["text"] for row in done.values())
    written = writer.stream(views, settings.max_new_tokens, settings.batch_size)
    try:
        for number, text in show(written, f"{name}: {system}", len(todo)):
            study = ids[todo[number]]
            row = {
                "system": system,
                "split": name,
                "id": study,
                "text": text,
                "report": parse(text),
                "adapter": writer.adapter,
            }
            file.add(row)
            done[system, name, study] = row
    except torch.OutOfMemoryError:
        raise StepError(
            "The GPU's memory does not hold one study: restart the runtime, or use an adapter with "
            "fewer image tokens."
        ) from None
    return [done[system, name, study] for study in ids]


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
