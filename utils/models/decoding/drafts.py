"""What a text will go on with, guessed from the texts before it; `decoder.Decoder` keeps what is right."""

from collections.abc import Sequence

LONGEST = 8  # tokens of context that a guess rests on, at most
MOST_CONTEXTS = 3_000_000  # half a GB; what was learnt by then is the form that all texts share
BEFORE = -1  # stands for what comes before a text's first token
_VOTES = 255


class Drafts:
    """Proposals for a text's next tokens: after each context the token that most often came next.

    A context keeps one token and its lead, counted as in a majority vote of one pass (Boyer and Moore, 1981),
    of equals the later. A context whose lead is used up gives no guess.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, ...], int] = {}  # token and lead in one number: a third of the memory

    def learn(self, tokens: Sequence[int]) -> None:
        """Learn from a whole text, its end token included."""
        text, kept = [BEFORE] * LONGEST + list(tokens), self._kept
        for end in range(LONGEST, len(text)):
            token = text[end]
            for start in range(end - LONGEST, end):
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

    def propose(self, written: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens to follow `written`; fewer where no context known has a token that leads."""
        tail = [BEFORE] * LONGEST + list(written[-LONGEST:])
        proposed: list[int] = []
        while len(proposed) < most:
            known = (self._kept.get(tuple(tail[-length:]), 0) for length in range(LONGEST, 0, -1))
            longest = next((kept for kept in known if kept & _VOTES), None)  # context with a token that leads
            if longest is None:
                break
            proposed.append(longest >> 8)
            tail.append(longest >> 8)
        return proposed
