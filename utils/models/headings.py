"""The headings of a report, set where the model would leave one out."""

import itertools
from collections.abc import Iterable, Mapping
from functools import cache

from PIL import Image
from transformers import ProcessorMixin
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from utils.data.hf_dataset import instruction
from utils.regions import REGIONS, heading

_FIRST_WORDS = ("a", "clear", "no", "unremarkable")  # of findings: whatever begins differently


class EveryRegion:
    """Makes reports name every region, in order: where one would end or begin a line, the next heading comes.

    Headings are the form of a report, not findings: what stands behind one is
    the model's own, and a report that names all regions is left as it is.
    Without this, a model that saw many studies silent on bone leaves it out of
    those too that are not. A line's end is seen in a token's text, as many
    tokenizers join it with the full stop before it.

    A heading may also name the findings to write about, see `regions.heading`: what is said is then
    decided before, and how it is said is the model's.

    Called with the plan of one report, by region the names of findings, it gives its `decoding.rows.Rule`.
    """

    def __init__(self, processor: ProcessorMixin):
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.end = self.tokenizer.eos_token_id
        special = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        self.ends = {self.end, *special}

    def __call__(self, plan: Mapping[str, Iterable[str]] | None = None) -> "Headings":
        return Headings(self, [heading(region, (plan or {}).get(region, ())) for region in REGIONS])

    def first(self, text: str) -> list[int]:
        """The tokens of an answer's first heading."""
        return _first_heading(self.processor, text)

    @cache  # noqa: B019  (lives as long as one run)
    def up_to_newline(self, token: int) -> str:
        """A token's text up to its last line break, that included."""
        text = self.tokenizer.decode([token])
        return text[: text.rfind("\n") + 1]

    @cache  # noqa: B019
    def heading(self, kept: str, text: str) -> list[int]:
        """The tokens of `kept` and of a heading."""
        return self.inside(kept + text)

    def inside(self, text: str) -> list[int]:
        """The tokens of `text` where it does not begin a text."""
        one, both = (self.tokenizer.encode(part, add_special_tokens=False) for part in ("x", f"x{text}"))
        return both[len(one) :]


class Headings:
    """The headings of one report."""

    def __init__(self, form: EveryRegion, texts: list[str]):
        self.form, self.texts = form, texts
        self.queue = list(form.first(texts[0]))  # the tokens that come whatever the model would write
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
        return list(self.form.heading(kept, self.texts[self.written - 1]))


@cache
def _first_heading(processor: ProcessorMixin, text: str) -> list[int]:
    """What all answers with this first heading begin with, in the tokens of the trainer's collator."""
    collate = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
    reports = [f"{text} {word}" for word in _FIRST_WORDS]
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
