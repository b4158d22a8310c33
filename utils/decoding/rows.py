"""The rows that `decoder.Decoder` writes at once: how they enter, go on by a pass, and leave."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from .drafts import Drafts, Ngrams
from .slots import SlotCache

if TYPE_CHECKING:
    from .decoder import Decoder

PREFILL_TOKENS = 4096  # of prompts read in one pass, at most; one prompt may be longer
STEP = 64  # slots that all rows grow by
PAUSE = (16, 512)  # passes until more rows are tried after the first lack of memory; after many, at most
Prepare = Callable[[list[int]], Mapping[str, torch.Tensor]]


class Rule(Protocol):
    """What may overrule the model in one text. Both are called in the order of the text's tokens."""

    def choose(self, best: int) -> int:
        """The token to write where the model's own choice is `best`; called once a token written."""
        ...

    def ahead(self) -> list[int]:
        """The next tokens as far as they are sure whatever the model chooses; a draft may be wrong."""
        ...


@dataclass
class Request:
    """A text to be written.

    prompt: its tokens; empty where `prepare` makes the model's inputs
    length: of the prompt in tokens, where `prepare` makes it: an estimate
    rule: what may overrule the model in it
    """

    prompt: Sequence[int] = ()
    length: int = 0
    rule: Callable[[], Rule] | None = None


@dataclass
class Row:
    """A request being written: the cache holds all of its tokens but the last."""

    index: int
    request: Request
    prompt: list[int]
    own: Ngrams | None = None
    rule: Rule | None = None
    written: list[int] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)  # what it had written before it had to give up its place

    @property
    def tokens(self) -> int:
        return len(self.prompt) + len(self.written)

    @property
    def last(self) -> int:
        return self.written[-1] if self.written else self.prompt[-1]


class Batch:
    """The rows being written, in the cache's first rows, and those that wait."""

    def __init__(self, decoder: "Decoder", requests: Sequence[Request], prepare: Prepare | None):
        self.decoder, self.prepare = decoder, prepare
        self.cache = SlotCache(decoder.model.config)
        self.rows: list[Row] = []
        self.entering: list[Row] = []  # whose prompts are being read
        self.waiting = deque(
            Row(index, request, list(request.prompt)) for index, request in enumerate(requests)
        )
        self.most = decoder.most_rows
        self.calm = self.pause = 0  # passes since `most` changed; passes until it grows back

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """Read the prompts of rows that there is room for, and one pass on; the rows that ended."""
        self._fill()
        done = self._pass()
        self._recover()
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
            self._put_back(min(range(len(self.rows)), key=lambda place: len(self.rows[place].written)))
        self.cache.resize(len(self.rows), self.cache.shape[1])
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _recover(self) -> None:
        """Twice the rows again after enough passes without a lack of memory.

        A lack may have been one of the moment, such as of memory in one piece. It may as well come
        back at the same size, so each one doubles the pause until the next try.
        """
        self.calm += 1
        if self.most < self.decoder.most_rows and self.calm >= self.pause:
            self.most, self.calm = min(2 * self.most, self.decoder.most_rows), 0

    @torch.inference_mode()
    def drop(self) -> None:
        """Let go of all rows, keys and values, also where a traceback that is kept holds the batch."""
        self.rows, self.entering = [], []
        self.waiting.clear()
        self.cache.resize(0, 0)

    def _put_back(self, place: int) -> None:
        row = self.rows[place]
        self._leave(place)
        self.waiting.appendleft(Row(row.index, row.request, list(row.request.prompt), draft=row.written))

    def _fill(self) -> None:
        """Let waiting rows in, some at a time: reading a prompt costs a pass, however short."""
        if not self.waiting:
            return
        written = [len(row.written) for row in self.rows]
        near = [*self.rows, *itertools.islice(self.waiting, self.most)]
        prompt = max(len(row.prompt) or row.request.length for row in near)
        slots = prompt + max([self.decoder.expected(written), *written]) + self.decoder.most_proposed + 1
        slots = -(-slots // STEP) * STEP  # seldom another number than before, as room is made by copying
        room = min(self.decoder.room(slots, self.cache.nbytes), self.most)
        places = room - len(self.rows)
        if self.rows and places < max(room // 4, 1):
            return
        self.cache.resize(len(self.rows) + min(places, len(self.waiting)), slots)
        while self.waiting and len(self.rows) < room:
            self._enter(room - len(self.rows))

    def _enter(self, places: int) -> None:
        tokens = 0
        while self.waiting and len(self.entering) < places:
            row = self.waiting[0]
            tokens += len(row.prompt) or row.request.length
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
        known = min(_alike(decoder.start, row.prompt) for row in rows)
        for row in rows:
            row.own = Drafts.of_prompt(row.prompt[known:])
        if known:
            self.cache.begin_with(decoder.started(), first, len(rows), known)
        rests = [row.prompt[known:] for row in rows]
        if longest := max(map(len, rests)):
            tokens = torch.tensor(_padded(rests, longest), device=decoder.model.device)
            slots = torch.arange(known, known + longest, device=tokens.device).expand(len(rows), -1)
            decoder.read(self.cache, first, tokens, slots, keep=1)

    def _pass(self) -> list[Row]:
        """One forward pass over all rows; the rows that it ended, which leave."""
        decoder, began = self.decoder, time.perf_counter()
        most = decoder.width.choose(len(self.rows))
        drafts = [self._draft(row, most) for row in self.rows]
        width = 1 + max(map(len, drafts))
        self._grow(width)
        tokens = torch.tensor(
            _padded([[row.last, *draft] for row, draft in zip(self.rows, drafts, strict=True)], width),
            device=decoder.model.device,
        )
        stored = torch.tensor([[row.tokens - 1] for row in self.rows], device=tokens.device)
        logits = decoder.read(self.cache, 0, tokens, stored + torch.arange(width, device=tokens.device))
        best = logits.argmax(-1).tolist()
        decoder.passes += 1
        ended = []
        for place, (row, draft, found) in enumerate(zip(self.rows, drafts, best, strict=True)):
            if self._accept(row, draft, found, most):
                ended.append(place)
        done = [self.rows[place] for place in ended]
        for place in reversed(ended):
            self._leave(place)
        decoder.width.timed(width * (len(self.rows) + len(done)), time.perf_counter() - began)
        return done

    def _draft(self, row: Row, most: int) -> list[int]:
        most = min(most, self.decoder.most_new - len(row.written) - 1)
        if row.draft[: len(row.written)] == row.written and len(row.draft) > len(row.written):
            return row.draft[len(row.written) :][:most]
        sure = row.rule.ahead()[:most] if row.rule and most > 0 else []
        return sure + self.decoder.drafts.propose(row.written + sure, row.own, most - len(sure))

    def _accept(self, row: Row, draft: list[int], best: list[int], most: int) -> bool:
        """Write what agrees with the model's own choice, and one token more; whether the text ends there."""
        decoder, right = self.decoder, 0
        for place in range(len(draft) + 1):
            token = row.rule.choose(best[place]) if row.rule else best[place]
            row.written.append(token)
            ends = token in decoder.ends or len(row.written) == decoder.most_new
            agrees = place < len(draft) and token == draft[place]
            right += agrees
            if ends or not agrees:
                break
        decoder.width.checked(most, right)
        return ends

    def _grow(self, width: int) -> None:
        """Room for `width` tokens more of each row, where memory holds it; or half of the rows wait."""
        slots = max(row.tokens for row in self.rows) - 1 + width
        rows, room = self.cache.shape
        if slots <= room or not rows:
            return
        slots += STEP
        if not self.decoder.holds(rows * (slots - room)) and len(self.rows) > 1:
            raise torch.OutOfMemoryError("the rows' next tokens do not fit in memory")
        self.cache.resize(rows, slots)

    def _leave(self, place: int) -> None:
        """The row at `place` leaves; the last one takes its place, so that rows stay together."""
        last = self.rows.pop()
        if place < len(self.rows):
            self.rows[place] = last
            self.cache.move(len(self.rows), place)


def _alike(start: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens of `prompt` are those of `start`; its last token is never counted."""
    most = min(len(start), len(prompt) - 1)
    return next((i for i in range(most) if start[i] != prompt[i]), most)


def _padded(rows: list[list[int]], width: int) -> list[list[int]]:
    return [row + [0] * (width - len(row)) for row in rows]
