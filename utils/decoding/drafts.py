"""What a text will go on with, guessed from the texts before it; and how much of a guess is worth checking.

A guess costs nothing but a wider pass: `decoder.Decoder` keeps of it what
the model itself would have written. So a table may be wrong, and may forget.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

LONGEST = 8  # tokens of context that a guess rests on, at most
OWN = (4, 2)  # of the contexts in a text's own prompt: longest and shortest
MOST_CONTEXTS = 3_000_000  # half a GB; what was learnt by then is the form that all texts share
BEFORE = -1  # stands for what comes before a text's first token
_VOTES = 255


class Ngrams:
    """After each context of `shortest` to `longest` tokens, the token that most often came next.

    A context keeps one token and its lead, counted as in a majority vote of
    one pass (Boyer and Moore, 1981): a token with more than half of the counts
    is always the one kept, and of equals the later wins. A context whose lead
    is used up gives no guess.
    """

    def __init__(self, longest: int = LONGEST, shortest: int = 1):
        self.longest, self.shortest = longest, shortest
        self._kept: dict[tuple[int, ...], int] = {}  # token and lead in one number: a third of the memory

    def __len__(self) -> int:
        return len(self._kept)

    def learn(self, tokens: Sequence[int]) -> None:
        """Learn from a whole text, its end token included."""
        text, kept = [BEFORE] * self.longest + list(tokens), self._kept
        for end in range(self.longest, len(text)):
            token = text[end]
            for start in range(end - self.longest, end - self.shortest + 1):
                context = tuple(text[start:end])
                old = kept.get(context)
                if old is None:
                    if len(kept) < MOST_CONTEXTS:
                        kept[context] = token << 8 | 1
                    continue
                lead = old & _VOTES
                if old >> 8 == token:
                    kept[context] = token << 8 | min(lead + 1, _VOTES)
                else:
                    kept[context] = old - 1 if lead else token << 8 | 1

    def get(self, context: tuple[int, ...]) -> int | None:
        """The token after `context`, None where none leads."""
        found = self._kept.get(context)
        return found >> 8 if found is not None and found & _VOTES else None


class Drafts:
    """Proposals for a text's next tokens, from the texts learnt and from the text's own prompt."""

    def __init__(self) -> None:
        self.table = Ngrams()

    def learn(self, tokens: Sequence[int]) -> None:
        """Learn from a whole text, its end token included."""
        self.table.learn(tokens)

    @staticmethod
    def of_prompt(tokens: Sequence[int]) -> Ngrams:
        """What a prompt has to offer to the text that answers it, which may quote it."""
        own = Ngrams(*OWN)
        own.learn(tokens)
        return own

    def propose(self, written: Sequence[int], own: Ngrams | None, most: int) -> list[int]:
        """Up to `most` tokens to follow `written`; fewer where no context known has a token that leads."""
        tail = [BEFORE] * LONGEST + list(written[-LONGEST:])
        proposed: list[int] = []
        while len(proposed) < most:
            token = self._next(tail, own)
            if token is None:
                break
            proposed.append(token)
            tail.append(token)
        return proposed

    def _next(self, tail: list[int], own: Ngrams | None) -> int | None:
        for length in range(LONGEST, 0, -1):
            context = tuple(tail[-length:])
            token = self.table.get(context)
            if token is None and own is not None:
                token = own.get(context)
            if token is not None:
                return token
        return None


class Width:
    """How many tokens to propose a row: as many as make the most tokens a second.

    A pass's seconds are taken as linear in the tokens that it reads, fitted to
    the last passes as they were timed; what is gained is the share of
    proposals that were right at each place. It decides speed, never a word.

    most: never propose more; 0: propose nothing
    """

    CHOICES = (0, 2, 4, 8, 16)
    EXPLORE = 16  # every so many passes another width is tried, or its cost would never be known
    MEMORY = 0.998  # how much of what was right before still counts after another row was checked

    def __init__(self, most: int = CHOICES[-1]):
        self.choices = [choice for choice in self.CHOICES if choice < most] + [most]
        self._timed: deque[tuple[int, float]] = deque(maxlen=64)
        self._tried = np.ones(most)
        self._right = np.ones(most)
        self._passes = 0

    def choose(self, rows: int) -> int:
        """The number to propose to each of `rows` rows in the next pass."""
        self._passes += 1
        if len(self.choices) == 1:
            return self.choices[0]
        best = self._best(rows)
        if best is None:  # nothing known yet: widths in turn, the wide ones first
            return self.choices[-1 - self._passes % min(len(self.choices), 3)]
        if self._passes % self.EXPLORE:
            return self.choices[best]
        other = best + (1 if self._passes // self.EXPLORE % 2 else -1)
        return self.choices[min(max(other, 0), len(self.choices) - 1)]

    def timed(self, tokens: int, seconds: float) -> None:
        """A pass that read `tokens` tokens, padding included, took `seconds`."""
        if self._passes > 1:  # the first pass warms up
            self._timed.append((tokens, seconds))

    def checked(self, proposed: int, right: int) -> None:
        """Of `proposed` tokens that a row was allowed, the first `right` were right."""
        reached = min(right + 1, proposed)
        self._tried *= self.MEMORY
        self._right *= self.MEMORY
        self._tried[:reached] += 1
        self._right[:right] += 1

    def _best(self, rows: int) -> int | None:
        tokens, seconds = np.array(self._timed or [(0, 0.0)]).T
        if len(seconds) < 6 or np.ptp(tokens) == 0:
            return None
        slope, base = np.polyfit(tokens, seconds, 1)
        slope = max(slope, 0.0)
        base = max(base, seconds.min() / 10)  # a line through noisy points may begin below nothing
        gained = np.concatenate([[1.0], 1 + np.cumsum(np.cumprod(self._right / self._tried))])
        rates = [gained[choice] / (base + slope * rows * (choice + 1)) for choice in self.choices]
        return int(np.argmax(rates))
