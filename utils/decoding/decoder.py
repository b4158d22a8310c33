"""Greedy decoding of many texts at once: full batches, and drafts that cannot change a word.

Each pass gives every row its last token and the proposals of a table
(`drafts.Drafts`); a row keeps the proposals that agree with the model's own
greedy choice, and one token more. In exact arithmetic the texts are those of
plain greedy decoding; in half precision a near tie may fall either way with
the shape of a batch, here as in any other batching.

Why not transformers 5.15's own: assisted generation (`prompt_lookup_num_tokens`,
an assistant model, a custom `candidate_generator`) refuses more than one row;
`generate_batch` takes token ids only, so no images, one new token a row and
pass, so no drafts, and without FlashAttention, which a T4 cannot run, it pays
for the attention of every row to every other row. `generate` waits for the
longest row of a batch.
"""

import inspect
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import psutil
import torch
from transformers import PreTrainedModel

from .drafts import Drafts, Width
from .rows import Batch, Prepare, Request
from .slots import SlotCache, bytes_a_token

CACHE_SHARE = 0.85  # of the free memory, for keys and values; the rest is for a pass's own tensors
MOST_ROWS = 64  # texts at once, where memory holds as many
ENOUGH_SEEN = 32  # texts whose lengths say more than what was expected before


def free_memory() -> int:
    """Bytes that can be had: of the GPU where there is one, else of the host, without swapping."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return psutil.virtual_memory().available


class Decoder:
    """Writes texts with `model`, and learns from each one what the next may look like.

    ends: tokens that end a text
    most_new: tokens of a text at most
    expected: tokens that 95 % of the texts need at most; learnt from the texts as they end
    most_rows: texts at once, where memory holds as many
    start: tokens that prompts begin with; their keys and values are computed once and kept
    most_proposed: tokens proposed a row and pass at most; 0: no drafts
    drafts: what proposes them, where it is to outlive the decoder
    free: free bytes now

    Raises ValueError for a model whose layers keep no keys and values, or whose attention is not SDPA.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        ends: set[int],
        most_new: int,
        *,
        expected: int | None = None,
        most_rows: int = MOST_ROWS,
        start: Sequence[int] = (),
        most_proposed: int = Width.CHOICES[-1],
        drafts: Drafts | None = None,
        free: Callable[[], int] = free_memory,
    ):
        self.model, self.ends, self.most_new = model, ends, most_new
        self.most_rows, self.start, self.free = most_rows, list(start), free
        self.drafts, self.width = drafts or Drafts(), Width(most_proposed)
        self.most_proposed = most_proposed
        self.passes = self.prefills = 0
        self._expected = expected or most_new
        self._lengths: deque[int] = deque(maxlen=512)
        self._bytes = bytes_a_token(model.config, model.dtype)
        self._start_cache: SlotCache | None = None
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        names = inspect.signature(whole.forward).parameters
        self._cache_name = (
            "cache" if "cache" in names else "past_key_values"
        )  # as transformers called it before
        SlotCache(model.config)  # says at once what it cannot serve
        attention = model.config.get_text_config()._attn_implementation
        if attention != "sdpa":  # others take the cache's masks for something else, and write other texts
            raise ValueError(f"the model's attention is {attention}: load it with attn_implementation='sdpa'")

    def write(
        self, requests: Sequence[Request], prepare: Prepare | None = None
    ) -> Iterator[tuple[int, list[int]]]:
        """The index of a request and its tokens, what ends it included, each as soon as it is known.

        prepare: the model's inputs for the requests of these indices, padded on the
            right, with `input_ids` and `attention_mask`; None: `Request.prompt` is all

        Out of memory, half of the texts wait for a while, with what they have as
        their draft; with one text left torch.OutOfMemoryError is raised.
        """
        batch = Batch(self, requests, prepare)
        try:
            while batch.waiting or batch.rows:
                try:
                    done = batch.step()
                except torch.OutOfMemoryError:
                    done = None  # room is made outside the handler, which keeps the failed pass's tensors
                if done is None:
                    batch.halve()
                    continue
                for row in done:
                    self._lengths.append(len(row.written))
                    self.drafts.learn(row.written)
                    yield row.index, row.written
        finally:
            batch.drop()  # a user's interrupt keeps this frame, and the GPU's memory with it

    def expected(self, being_written: Sequence[int]) -> int:
        """How many tokens 95 % of the texts need at most; those `being_written` need at least theirs."""
        if len(self._lengths) < ENOUGH_SEEN:
            return min(self._expected, self.most_new)
        # Without those being written the short texts would count for too much: they end first.
        lengths = sorted([*self._lengths, *being_written])
        return lengths[math.ceil(0.95 * len(lengths)) - 1]

    def room(self, slots: int, used: int) -> int:
        """How many texts of `slots` tokens in all memory holds, where `used` bytes are theirs already.

        At least 1: that one text does not fit is found by trying.
        """
        fitting = CACHE_SHARE * (self.free() + used) / (self._bytes * slots)
        return max(min(int(fitting), self.most_rows), 1)

    def holds(self, slots: int) -> bool:
        """Whether so many slots more fit in the free memory."""
        return slots * self._bytes <= CACHE_SHARE * self.free()

    @torch.inference_mode()
    def started(self) -> SlotCache:
        """The keys and values of `start`."""
        if self._start_cache is None:
            cache = SlotCache(self.model.config)
            tokens = torch.tensor([self.start], device=self.model.device)
            self.read(cache, 0, tokens, torch.arange(len(self.start), device=tokens.device)[None], keep=1)
            self._start_cache = cache
        return self._start_cache

    def read(self, cache: SlotCache, first: int, tokens, slots, keep: int = 0) -> torch.Tensor:
        """The logits (rows x tokens x vocabulary) after `tokens`, which rows from `first` on get in `slots`.

        keep: logits of so many last tokens; 0: of all
        """
        cache.write_at(first, slots, int(slots.max()) + 1)
        return self.logits(cache, keep, input_ids=tokens, attention_mask=cache.mask(), position_ids=slots)

    def logits(self, cache: SlotCache, keep: int, **inputs: torch.Tensor) -> torch.Tensor:
        """The logits for `inputs`, of `keep` last tokens (0: all); keys and values go into `cache`."""
        named = {self._cache_name: cache}
        return self.model(**inputs, **named, use_cache=True, logits_to_keep=keep).logits
