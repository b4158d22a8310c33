"""Reports from radiographs: many at once, appended as they come, so that a run can stop and go on.

`generations.jsonl` has a line for each report: `system` (which way of writing), `split`, `id`, `text` as the
model wrote it, `plan` (by region, the findings that it was to name), `report` by region, which names all of
them (see `plans.complete`), and the hash of the adapter and what it was told.
"""

import gc
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from utils.data.hf_dataset import instruction
from utils.findings.plans import Plan, complete
from utils.findings.probe import load as load_probe
from utils.models.decoding import MOST_ROWS, Decoder, Drafts, Request
from utils.regions import REGIONS, parse, without_plan
from utils.run.answers import AnswerFile, files_of
from utils.run.disk import file_hash
from utils.run.processes import shard
from utils.run.progress import progress
from utils.run.workspace import StepError
from utils.settings import RECALL_WEIGHT, GenerationSettings

from .features import Tower, study_features
from .headings import EveryRegion
from .loading import ADAPTER_FILES, PROBE, how_to_read, load_adapter, load_model, load_processor
from .reading import inside
from .systems import BASE, MODEL, SHUFFLED


class Writer:
    """The fine-tuned model; it is loaded when it first writes.

    recall_weight: see `findings.probe.Probe.threshold`; it counts where a probe lies beside the adapter
    kept: a folder in which the features of studies are kept
    """

    def __init__(self, adapter: Path, recall_weight: float = RECALL_WEIGHT, kept: Path | None = None):
        self.reading, self._folder = how_to_read(adapter), adapter
        self.recall_weight, self.kept = recall_weight, kept
        self.adapter = file_hash(adapter / ADAPTER_FILES[0])[:16]
        self.processor = load_processor(self.reading["base"], self.reading["image_tokens"])
        of_base = (self.reading[name] for name in ("base", "precision", "views"))
        self.tower = Tower(*of_base, self.processor, load=lambda: self.model)
        self.probe = load_probe(adapter / PROBE) if (adapter / PROBE).exists() else None
        self.drafts = Drafts()  # of all that it writes

    @cached_property
    def model(self) -> PeftModel:
        """The base model with the adapter."""
        how = (self.reading[name] for name in ("base", "image_tokens", "precision"))
        with torch.inference_mode(False):  # else, where the tower asks first, no adapter could be switched on
            return load_adapter(load_model(*how), self._folder)

    def write(self, studies: list[list], max_new_tokens: int) -> list[str]:
        """A report text for each study, given as its list of views (PIL images). Greedy."""
        plans = self.plans(self.tower.see(studies)) if studies else []
        texts = dict(self.stream(studies, max_new_tokens, plans=plans))
        return [texts[number] for number in range(len(studies))]

    def features(self, studies: Dataset, name: str, show: Callable[..., Iterable] = progress) -> np.ndarray:
        """The features of `studies`, called `name`: see `features.study_features`."""
        return study_features(self.tower, studies, name, self.kept, show)

    def plans(self, features: np.ndarray) -> list[Plan]:
        """For studies with these features, by region, the findings that their reports are to name."""
        return self.probe.plans(features, self.recall_weight) if self.probe else [{}] * len(features)

    def stream(
        self, studies: Sequence[list], max_new_tokens: int, at_once: int = 0, plans: Sequence[Plan] = ()
    ) -> Iterator[tuple[int, str]]:
        """The number of a study and its report's text, each as soon as it is done.

        studies: their views, read when their turn comes
        at_once: studies written together, at most; 0: as many as fit in free memory
        plans: for each study, what `plans` gives
        """
        if not studies:
            return iter(())  # for nothing the model need not be loaded
        views = self.reading["views"]
        how = max_new_tokens, at_once, self.drafts, plans, views
        tokens = stream(self.model, self.processor, studies, *how)
        return ((number, as_text(self.processor, report)) for number, report in tokens)

    def learn(self, reports: Iterable[str]) -> None:
        """Draft reports after these, such as those of training."""
        form, first = EveryRegion(self.processor), f"{REGIONS[0]}:"
        for report in reports:
            rest = inside(self.processor.tokenizer, report.strip().removeprefix(first))
            self.drafts.learn([*form.first(first), *rest, form.end])

    def writing(self, system: str) -> AbstractContextManager:
        """While it is entered, the model writes as `system` does: BASE without the adapter."""
        return self.model.disable_adapter() if system == BASE else nullcontext()

    def take(self, adapter: Path) -> "Writer":
        """Write with another adapter of the same base model from now on."""
        self.model.delete_adapter("default")
        self.model.load_adapter(adapter, "default")
        self.model.set_adapter("default")
        self._folder, self.adapter = adapter, file_hash(adapter / ADAPTER_FILES[0])[:16]
        return self

    def close(self) -> None:
        """Free the model's memory, which the judge needs; the model is loaded again when it next writes."""
        vars(self).pop("model", None)
        self.tower.close()
        gc.collect()
        torch.cuda.empty_cache()


def stream(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    studies: Sequence[list],
    max_new_tokens: int,
    at_once: int = 0,
    drafts: Drafts | None = None,
    plans: Sequence[Plan] = (),
    views: int | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """The number of a study and the tokens of its report by `model`, each as soon as it is done. Greedy.

    at_once: studies written together, at most, where memory holds as many; 0: as many as fit
    drafts: what reports are drafted after, which learns each report
    plans: for each study, by region, the findings that its headings name; see `as_text`
    views: of a study the first ones that are read; None: all
    """

    def prepare(numbers: list[int]) -> BatchFeature:
        return questions(model, processor, [studies[number][:views] for number in numbers])

    if not studies:
        return
    # Tiles, and so tokens, differ little between studies of as many views: the first and last stand for all.
    length = max(prepare([number])["input_ids"].shape[1] for number in {0, len(studies) - 1})
    ends = {processor.tokenizer.eos_token_id}
    decoder = Decoder(model, ends, max_new_tokens, most_rows=at_once or MOST_ROWS, drafts=drafts)
    form = EveryRegion(processor)
    rules = [partial(form, plan) for plan in plans] or [form] * len(studies)
    yield from decoder.write([Request(length=length, rule=rule) for rule in rules], prepare)


def as_text(processor: ProcessorMixin, tokens: Sequence[int]) -> str:
    """A report's text with plain headings: its plans and its end are taken out."""
    return without_plan(processor.decode(tokens, skip_special_tokens=True))


def questions(model: PreTrainedModel, processor: ProcessorMixin, studies: Sequence[list]) -> BatchFeature:
    """What `model` reads before it writes reports on `studies`, each a list of views; padded on the right."""
    return processor(
        images=list(studies),
        text=[_question(processor, len(views)) for views in studies],
        padding=True,
        padding_side="right",
        add_special_tokens=False,  # the prompt holds those it needs, as in training
        return_tensors="pt",
    ).to(model.device, model.dtype)


def _question(processor: ProcessorMixin, views: int) -> str:
    content = [{"type": "image"}] * views + [{"type": "text", "text": instruction()}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


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

    With `system` SHUFFLED each study is written from the views of another, which shows how much of a score
    comes from the pictures. With BASE adapter and probe are switched off: the headings name nothing. A report
    in `path` that was to name other findings is written anew. Of several processes, each writes its share,
    and has the reports that are there. Raises StepError where `path` holds the reports of another adapter.
    """
    ids = ids_to_write(split, settings, system)
    source = dict(zip(split["id"], _sources(split, system), strict=True))
    known, file = _open_generations(path, writer.adapter)
    plans = plans_to_write(writer, split, name, system, show)
    done = as_planned(known, system, name, plans)
    counts = split["views"]
    order = sorted(ids, key=lambda study: counts[source[study]])  # as many views together: less padding
    todo = [study for study in shard(order) if study not in done]
    views = split.select([source[study] for study in todo])["images"]
    writer.learn(row["text"] for row in done.values())
    asked = [plans[study] for study in todo]
    try:
        with writer.writing(system) if todo else nullcontext():
            written = writer.stream(views, settings.max_new_tokens, settings.batch_size, asked)
            for number, text in show(written, f"{name}: {system}", len(todo)):
                study = todo[number]
                done[study] = {
                    "system": system,
                    "split": name,
                    "id": study,
                    "text": text,
                    "report": complete(parse(text), plans[study]),
                    "plan": _noted(plans[study]),
                    "adapter": writer.adapter,
                }
                file.add(done[study])
    except torch.OutOfMemoryError:
        raise StepError(
            "The GPU's memory does not hold one study: restart the runtime, or use an adapter with "
            "fewer image tokens."
        ) from None
    return [done[study] for study in ids if study in done]


def _noted(plan: Plan) -> dict[str, list[str]]:
    return {region: list(names) for region, names in plan.items()}


def plans_to_write(
    writer: Writer, split: Dataset, name: str, system: str, show: Callable[..., Iterable] = progress
) -> dict[str, Plan]:
    """By study of `split`, called `name`, the plan of the study whose views `system` writes it from; BASE has
    none."""
    if system == BASE:
        return {study: {} for study in split["id"]}
    plans = writer.plans(writer.features(split, name, show)) if writer.probe else [{}] * len(split)
    by_study = zip(split["id"], _sources(split, system), strict=True)
    return {study: plans[source] for study, source in by_study}


def as_planned(rows: Iterable[dict], system: str, name: str, plans: dict[str, Plan]) -> dict[str, dict]:
    """By study, the reports of `system` on the split called `name` that were to name what `plans` say."""
    wanted = {(system, name, study): _noted(plan) for study, plan in plans.items()}
    keyed = (((row["system"], row["split"], row["id"]), row) for row in rows)
    return {row["id"]: row for key, row in keyed if wanted.get(key) == row.get("plan", {})}


def _sources(split: Dataset, system: str) -> list[int]:
    """For each study of `split` the number of the study whose views `system` writes it from."""
    return other_studies(len(split)) if system == SHUFFLED else list(range(len(split)))


def ids_to_write(split: Dataset, settings: GenerationSettings, system: str = MODEL) -> list[str]:
    """The studies of `split` that `system` writes reports on; the controls take the same ones, evenly
    spread."""
    ids = split["id"][: settings.studies or len(split)]
    if system == MODEL:
        return ids
    count = min(settings.shuffled, len(ids))
    return [ids[number * len(ids) // count] for number in range(count)]


def read_generations(path: Path, adapter: str | None = None) -> list[dict]:
    """The lines of `path`, `[]` where there is none. Raises StepError where one is damaged or of another
    adapter than `adapter`."""
    return _open_generations(path, adapter)[0] if files_of(path) else []


def _open_generations(path: Path, adapter: str | None) -> tuple[list[dict], AnswerFile]:
    rows: list[dict] = []

    def take(row: dict) -> None:
        if adapter and row["adapter"] != adapter:
            raise StepError(
                f"{path} holds the reports of another adapter: move it away and run this cell again."
            )
        rows.append(row)

    return rows, AnswerFile(path, "a report", take, StepError)


def other_studies(count: int) -> list[int]:
    """For each of `count` studies another one, each used once."""
    order = list(range(count))
    random.Random(0).shuffle(order)
    partner = dict(zip(order, order[1:] + order[:1], strict=True))
    return [partner[i] for i in range(count)]
