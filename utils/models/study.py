"""One study read: its report by region, what the probe sees, and how sure the model was of each word."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import PreTrainedModel, ProcessorMixin

from utils.data.studies import DataError, read_view
from utils.findings.plans import Plan, left_out
from utils.models.decoding import Decoder
from utils.models.decoding.slots import SlotCache
from utils.regions import parse, places, plan_places, without_plan
from utils.run.workspace import StepError
from utils.settings import DatasetSettings, GenerationSettings

from .loading import SIDE
from .writer import Writer, questions, stream

MOST_TOKENS = GenerationSettings().max_new_tokens
FORMS = "Use chest radiographs as DICOM, PNG or JPEG files, of at most 13,000 x 13,000 pixels."


class Word(NamedTuple):
    """A word of a report, and the probability that the model gave it where it stands."""

    text: str
    probability: float


@dataclass(frozen=True)
class StudyReport:
    """What a model and its probe make of one study; `report`, `added`, `words` and `plan` are by region."""

    report: dict[str, str]  # what the model wrote
    added: dict[str, str]  # sentences for findings that it was to name and did not: see `plans.left_out`
    words: dict[str, list[Word]]  # that the model wrote, each with its probability
    findings: dict[str, float]  # the probe's probability of each
    threshold: float  # the probability from which on the report is to name a finding
    plan: Plan  # the findings that the report was to name
    tokens: list[int]  # of the whole answer
    views: int  # how many of the study's views were read
    seconds: float  # how long the model takes to read the answer through once


def open_views(paths: Sequence[Path], longest_side: int) -> list[Image.Image]:
    """The radiographs at `paths` as step 2 reads them, see `data.studies.read_view`. Raises DataError, in
    one sentence, where there is none, or one is no radiograph."""
    if not paths:
        raise DataError(f"There is no image. {FORMS}")
    views = []
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path} is not a file. {FORMS}")
        try:
            views.append(read_view(path, longest_side))
        except DataError as error:
            reason = str(error).replace(f"{path.parent.name}/{path.name}", path.name, 1).rstrip(".")
            raise DataError(f"{reason}. {FORMS}") from None
    return views


def open_writer(adapter: Path) -> Writer:
    """The adapter in folder `adapter` with its base model, loaded. Raises StepError where one of them is
    not there or damaged, or they do not fit."""
    try:
        writer = Writer(adapter)
        _ = writer.model
    except (OSError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StepError(f"The adapter {adapter} or its base model cannot be read: {reason}") from None
    return writer


def side_of(reading: Mapping) -> int:
    """To what an adapter's radiographs were scaled: the longest side in pixels."""
    return reading.get(SIDE, DatasetSettings().longest_side)


def read_study(
    writer: Writer, views: Sequence[Image.Image], max_new_tokens: int = MOST_TOKENS
) -> StudyReport:
    """The report that `writer` writes on the study with these views, frontal first, and what goes with it.
    Raises StepError where the adapter does not fit its base model or memory does not hold the study."""
    views = list(views[: writer.reading["views"]])
    try:
        (plan,) = writer.plans(seen := writer.tower.see([views]))
        model, processor = writer.model, writer.processor
        ((_, tokens),) = stream(model, processor, [views], max_new_tokens, drafts=writer.drafts, plans=[plan])
        started = time.perf_counter()
        (sure,) = log_probabilities(model, processor, [views], tokens)
        seconds = time.perf_counter() - started
    except torch.OutOfMemoryError:
        raise StepError("Memory does not hold the study: restart the runtime and run this alone.") from None
    text, owners = plain_text(processor, tokens)
    report, probe = parse(text), writer.probe if writer.probe and writer.probe.names else None
    seen = probe.probabilities(seen)[0].tolist() if probe else []
    return StudyReport(
        report=report,
        added=left_out(report, plan),
        words={region: _words(text, span, owners, sure) for region, span in places(text).items()},
        findings=dict(zip(probe.names if probe else (), seen, strict=True)),
        threshold=probe.threshold(writer.recall_weight) if probe else 0.0,
        plan=plan,
        tokens=tokens,
        views=len(views),
        seconds=seconds,
    )


@torch.inference_mode()
def log_probabilities(
    model: PreTrainedModel, processor: ProcessorMixin, studies: Sequence[list], tokens: Sequence[int]
) -> np.ndarray:
    """(studies, tokens) of one answer, `tokens`, to studies, each a list of views: the log-probability of
    each token after those before it."""
    inputs = questions(model, processor, studies)
    ids, lengths = inputs["input_ids"], inputs["attention_mask"].sum(1)[:, None]
    cache, decoder = SlotCache(model.config), Decoder(model, set(), len(tokens))
    slots = torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)
    cache.write_at(0, slots, ids.shape[1])
    decoder.logits(cache, 1, **inputs)
    answer = torch.tensor(tokens, device=ids.device).expand(len(ids), -1)
    read = torch.cat([ids.gather(1, lengths - 1), answer[:, :-1]], dim=1)
    slots = lengths - 1 + torch.arange(len(tokens), device=ids.device)
    sure = decoder.read(cache, 0, read, slots).float().log_softmax(-1)
    return sure.gather(2, answer[:, :, None])[:, :, 0].double().cpu().numpy()


def plain_text(processor: ProcessorMixin, tokens: Sequence[int]) -> tuple[str, list[int]]:
    """The text of an answer with plain headings, and for each of its characters the number of its token."""

    def text_of(count: int) -> str:
        return processor.decode(tokens[:count], skip_special_tokens=True)

    text, owners = text_of(len(tokens)), []
    for number in range(len(tokens)):
        owners += [number] * (min(len(text_of(number + 1)), len(text)) - len(owners))
    for start, end in reversed(plan_places(text)):
        del owners[start:end]
    return without_plan(text), owners


def lines_of(processor: ProcessorMixin, tokens: Sequence[int]) -> dict[str, range]:
    """By region, the numbers of the tokens of its line: of its heading, with its plan, and of its text."""
    text, owners = plain_text(processor, tokens)
    lines, start = {}, 0
    for region, (_, end) in sorted(places(text).items(), key=lambda item: item[1]):
        stop = owners[end - 1] + 1 if end else 0
        lines[region] = range(start, stop)
        start = stop
    return lines


def _words(text: str, span: tuple[int, int], owners: Sequence[int], sure: Sequence[float]) -> list[Word]:
    """The words of `text` within `span`; a word of several tokens has the product of their probabilities."""
    words = []
    for match in re.compile(r"\S+").finditer(text, *span):
        tokens = sorted(set(owners[slice(*match.span())]))
        words.append(Word(match.group(), float(np.exp(sum(sure[token] for token in tokens)))))
    return words
