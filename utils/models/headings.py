"""The headings of a report, set where the model would leave one out."""

from collections.abc import Iterable, Mapping
from os.path import commonprefix

from transformers import ProcessorMixin

from utils.data.hf_dataset import instruction
from utils.regions import REGIONS, heading

from . import reading


class EveryRegion:
    """Makes reports name every region, in order: where one would end or begin a line, the next heading comes,
    which may name the findings to write about, see `regions.heading`. A report that names all is left as it
    is.

    Called with the plan of one report, by region the names of findings, it gives its `decoding.rows.Rule`.
    """

    def __init__(self, processor: ProcessorMixin):
        self.tokenizer, self.lead = processor.tokenizer, lead(processor)
        self.end = self.tokenizer.eos_token_id

    def __call__(self, plan: Mapping[str, Iterable[str]] | None = None) -> "Headings":
        texts = [heading(region, (plan or {}).get(region, ())) for region in REGIONS]
        return Headings(self.tokenizer, self.lead, texts)

    def first(self, text: str) -> list[int]:
        """The tokens of an answer's first heading."""
        return Headings(self.tokenizer, self.lead, [text]).ahead()


class Headings(reading.Headings):
    """The headings of one report, a `decoding.rows.Rule`; an adapter that is shared takes the same along."""

    def ahead(self) -> list[int]:
        """The tokens that come next whatever the model would write."""
        return list(self.queue)


def lead(processor: ProcessorMixin) -> str:
    """What stands between the prompt and the answer's first word, which training gives with the answer."""
    question = [{"role": "user", "content": [{"type": "text", "text": instruction()}]}]
    answer = [{"role": "assistant", "content": [{"type": "text", "text": REGIONS[0]}]}]
    prompt = processor.apply_chat_template(question, add_generation_prompt=True)
    whole = processor.apply_chat_template(question + answer)
    return whole[len(commonprefix([prompt, whole])) : whole.rindex(REGIONS[0])]  # noqa: RUF071
