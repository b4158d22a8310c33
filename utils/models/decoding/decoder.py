"""Greedy decoding of many texts at once: full batches, and drafts that cannot change a word.

Each pass gives every row its last token and the proposals of a table (`drafts.Drafts`); a row keeps the
proposals that agree with the model's own greedy choice, and one token more. So the texts are those of plain
greedy decoding; in half precision a near tie may fall either way with the shape of a batch, as in any other.

Why not transformers 5.15's own: `generate` waits for the longest row of a batch, and has drafts for one row
alone; `generate_batch` takes no images. `benchmarks/decoding.py` compares `generate`, in sorted batches.
"""

import inspect
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from os.path import commonprefix

import psutil
import torch
from transformers import PreTrainedModel

from .drafts import Drafts
from .rows import Request, Row
from .slots import SlotCache, bytes_a_token

CACHE_SHARE = 0.85  # of the free memory, for keys and values; the rest is for a pass's own tensors
MOST_ROWS = 64  # texts at once, where memory holds as many
MOST_PROPOSED = 8  # tokens per row and pass
ENOUGH_SEEN = 32  # texts whose lengths say more than what was expected before
PREFILL_TOKENS = 4096  # of prompts read in one pass, at most; one prompt may be longer
STEP = 64  # slots that all rows grow by
PAUSE = (16, 512)  # passes until more rows are tried after the first lack of memory; after many, at most
Prepare = Callable[[list[int]], Mapping[str, torch.Tensor]]


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
    most_proposed: tokens proposed per row and pass at most; 0: no drafts
    drafts: what proposes them, where it is to outlive the decoder

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
        most_proposed: int = MOST_PROPOSED,
        drafts: Drafts | None = None,
    ):
        self.model, self.ends, self.most_new = model, ends, most_new
        self.most_rows, self.start = most_rows, list(start)
        self.drafts = Drafts() if drafts is None else drafts  # an empty table is to learn, too
        self.most_proposed = most_proposed
        self.passes = self.prefills = 0
        self._expected = expected or most_new
        self._lengths: deque[int] = deque(maxlen=512)
        self._bytes = bytes_a_token(model.config, model.dtype)
        self._start_cache: SlotCache | None = None
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        names = inspect.signature(whole.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"  # as it was called before
        SlotCache(model.config)  # says at once what it cannot serve
        attention = model.config.get_text_config()._attn_implementation
        if attention != "sdpa":  # others take the cache's masks for something else, and write other texts
            raise ValueError(f"the model's attention is {attention}: load it with attn_implementation='sdpa'")

    def write(
        self, requests: Sequence[Request], prepare: Prepare | None = None
    ) -> Iterator[tuple[int, list[int]]]:
        """The index of a request and its tokens, what ends it included, each as soon as it is known.

        prepare: the model's inputs for the requests of these indices, padded on the right, with `input_ids`
        and `attention_mask`; None: `Request.prompt` is all
        Out of memory, half of the texts wait for a while, with what they have as their draft. Raises
        torch.OutOfMemoryError where one text alone does not fit.
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
        """How many texts of `slots` tokens memory holds where `used` bytes are theirs already; at least 1."""
        fitting = CACHE_SHARE * (free_memory() + used) / (self._bytes * slots)
        return max(min(int(fitting), self.most_rows), 1)

    def holds(self, slots: int) -> bool:
        """Whether so many slots more fit in the free memory."""
        return slots * self._bytes <= CACHE_SHARE * free_memory()

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
        """(rows, tokens, vocabulary): logits after `tokens`, which rows from `first` on get in `slots`."""
        cache.write_at(first, slots, int(slots.max()) + 1)
        return self.logits(cache, keep, input_ids=tokens, attention_mask=cache.mask(), position_ids=slots)

    def logits(self, cache: SlotCache, keep: int, **inputs: torch.Tensor) -> torch.Tensor:
        """The logits for `inputs`, of `keep` last tokens (0: all); keys and values go into `cache`."""
        named = {self._cache_name: cache}
        return self.model(**inputs, **named, use_cache=True, logits_to_keep=keep).logits


class Batch:
    """The rows being written, in the cache's first rows, and those that wait."""

    def __init__(self, decoder: Decoder, requests: Sequence[Request], prepare: Prepare | None):
        self.decoder, self.prepare = decoder, prepare
        self.cache = SlotCache(decoder.model.config)
        self.rows: list[Row] = []
        self.entering: list[Row] = []  # whose prompts are being read
        self.waiting = deque(Row(index, request, [*request.prompt]) for index, request in enumerate(requests))
        self.most = decoder.most_rows
        self.calm = self.pause = 0  # passes since `most` changed; passes until it grows back

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """Read the prompts of rows that there is room for, and one pass on; the rows that ended."""
        if self.waiting:
            self._fill()
        done = self._pass()
        # A lack of memory may have been one of the moment, such as of memory in one piece. It may as well
        # come back at the same size, so each one doubles the pause until twice the rows are tried again.
        self.calm += 1
        if self.most < self.decoder.most_rows and self.calm >= self.pause:
            self.most, self.calm = min(2 * self.most, self.decoder.most_rows), 0
        return done

    @torch.inference_mode()
    def halve(self) -> None:
        """After a lack of memory: fewer rows for a while. Raises torch.OutOfMemoryError with one row left."""
        failed, self.entering = self.entering, []
        tried = len(self.rows) + len(failed) or self.most
        # Rows that run have their memory: they stay when others do not get in.
        self.most = max(len(self.rows), tried // 2) if failed else tried // 2
        self.calm, self.pause = 0, min(2 * self.pause or PAUSE[0], PAUSE[1])
        if not self.most:
            raise torch.OutOfMemoryError("not even one text fits in memory")
        self.waiting.extendleft(reversed(failed))
        while len(self.rows) > self.most:  # those with the least written lose least
            row = min(self.rows, key=lambda row: len(row.written))
            self._leave(self.rows.index(row))
            self.waiting.appendleft(Row(row.index, row.request, [*row.request.prompt], draft=row.written))
        self.cache.resize(len(self.rows), self.cache.shape[1])
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def drop(self) -> None:
        """Let go of all rows, keys and values, also where a traceback that is kept holds the batch."""
        self.rows, self.entering = [], []
        self.waiting.clear()
        self.cache.resize(0, 0)

    def _fill(self) -> None:
        """Let waiting rows in, some at a time: reading a prompt costs a pass, however short."""
        decoder, written = self.decoder, [len(row.written) for row in self.rows]
        near = [*self.rows, *itertools.islice(self.waiting, self.most)]
        slots = max(row.length for row in near) + max([decoder.expected(written), *written])
        slots += decoder.most_proposed + 1
        slots = -(-slots // STEP) * STEP  # seldom another number than before, as room is made by copying
        room = min(decoder.room(slots, self.cache.nbytes), self.most)
        free = room - len(self.rows)
        if self.rows and free < max(room // 4, 1):
            return
        self.cache.resize(len(self.rows) + min(free, len(self.waiting)), slots)
        while self.waiting and len(self.rows) < room:
            tokens = 0
            while self.waiting and len(self.entering) < room - len(self.rows):
                tokens += self.waiting[0].length
                if self.entering and tokens > PREFILL_TOKENS:
                    break
                self.entering.append(self.waiting.popleft())
            self._read_prompts(self.entering, len(self.rows))
            for row in self.entering:
                row.rule = row.request.rule() if row.request.rule else None
            self.rows += self.entering
            self.entering = []

    def _read_prompts(self, rows: list[Row], first: int) -> None:
        """Keys and values of the prompts; the last token's too, which the first pass writes again."""
        decoder = self.decoder
        decoder.prefills += 1
        if self.prepare:
            inputs = self.prepare([row.index for row in rows])
            ids, lengths = inputs["input_ids"], inputs["attention_mask"].sum(1).tolist()
            for row, tokens, length in zip(rows, ids.tolist(), lengths, strict=True):
                row.prompt = tokens[:length]
            slots = torch.arange(ids.shape[1], device=ids.device).expand(len(rows), -1)
            self.cache.write_at(first, slots, ids.shape[1])
            decoder.logits(self.cache, 1, **inputs)
            return
        # Tokens of the start that all have; a prompt's last token is never one.
        known = len(commonprefix([decoder.start, *(row.prompt[:-1] for row in rows)]))  # noqa: RUF071
        if known:
            self.cache.begin_with(decoder.started(), first, len(rows), known)
        rests = [row.prompt[known:] for row in rows]
        if longest := max(map(len, rests)):
            tokens = torch.tensor(_padded(rests, longest), device=decoder.model.device)
            slots = torch.arange(known, known + longest, device=tokens.device).expand(len(rows), -1)
            decoder.read(self.cache, first, tokens, slots, keep=1)

    def _pass(self) -> list[Row]:
        """One forward pass over all rows; the rows that it ended, which leave."""
        decoder = self.decoder
        most = (min(decoder.most_proposed, decoder.most_new - len(row.written) - 1) for row in self.rows)
        drafts = [row.propose(decoder.drafts, count) for row, count in zip(self.rows, most, strict=True)]
        width = 1 + max(map(len, drafts))
        self._grow(width)
        read = [[row.last, *draft] for row, draft in zip(self.rows, drafts, strict=True)]
        tokens = torch.tensor(_padded(read, width), device=decoder.model.device)
        stored = torch.tensor([[row.tokens - 1] for row in self.rows], device=tokens.device)
        logits = decoder.read(self.cache, 0, tokens, stored + torch.arange(width, device=tokens.device))
        best = logits.argmax(-1).tolist()
        decoder.passes += 1
        rows = enumerate(zip(self.rows, drafts, best, strict=True))
        ended = [i for i, (row, *seen) in rows if row.accept(*seen, decoder.ends, decoder.most_new)]
        done = [self.rows[index] for index in ended]
        for index in reversed(ended):
            self._leave(index)
        return done

    def _grow(self, width: int) -> None:
        """Room for `width` tokens more of each row, where memory holds it; or half of the rows wait."""
        slots = max(row.tokens for row in self.rows) - 1 + width
        rows, room = self.cache.shape
        if slots <= room or not rows:
            return
        slots += STEP
        if len(self.rows) > 1 and not self.decoder.holds(rows * (slots - room)):
            raise torch.OutOfMemoryError("the rows' next tokens do not fit in memory")
        self.cache.resize(rows, slots)

    def _leave(self, index: int) -> None:
        """The row at `index` leaves; the last one takes its place, so that rows stay together."""
        last = self.rows.pop()
        if index < len(self.rows):
            self.rows[index] = last
            self.cache.move(len(self.rows), index)


def _padded(rows: list[list[int]], width: int) -> list[list[int]]:
    return [row + [0] * (width - len(row)) for row in rows]
