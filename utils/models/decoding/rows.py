"""A text that `decoder.Decoder` writes: what is asked, what may overrule the model, and what is written."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .drafts import Drafts


class Rule(Protocol):
    """What may overrule the model in one text. Both are called in the order of the text's tokens."""

    def choose(self, best: int) -> int:
        """The token to write where the model's own choice is `best`; called once per token written."""

    def ahead(self) -> list[int]:
        """The next tokens as far as they are sure whatever the model chooses; a draft may be wrong."""


@dataclass
class Request:
    """A text to be written."""

    prompt: Sequence[int] = ()  # its tokens; empty where `prepare` makes the model's inputs
    length: int = 0  # of the prompt in tokens, where `prepare` makes it: an estimate
    rule: Callable[[], Rule] | None = None  # what may overrule the model in it


@dataclass
class Row:
    """A request being written: the cache holds all of its tokens but the last."""

    index: int
    request: Request
    prompt: list[int]
    rule: Rule | None = None
    written: list[int] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)  # what it had written before it had to give up its place

    @property
    def tokens(self) -> int:
        """How many tokens it has so far, those of its prompt included."""
        return len(self.prompt) + len(self.written)

    @property
    def length(self) -> int:
        """Tokens of the prompt; an estimate until it is made."""
        return len(self.prompt) or self.request.length

    @property
    def last(self) -> int:
        """Its last token so far."""
        return self.written[-1] if self.written else self.prompt[-1]

    def propose(self, drafts: Drafts, most: int) -> list[int]:
        """Up to `most` tokens that may come next."""
        if self.draft[: len(self.written)] == self.written and len(self.draft) > len(self.written):
            return self.draft[len(self.written) :][:most]
        sure = self.rule.ahead()[:most] if self.rule and most > 0 else []
        return sure + drafts.propose(self.written + sure, most - len(sure))

    def accept(self, draft: Sequence[int], best: Sequence[int], ends: Collection[int], most: int) -> bool:
        """Write what agrees with the model's own choice, and one token more; whether the text ends there.

        best: the model's choice after the text so far, and after each token of `draft`
        most: tokens of a text at most
        """
        for index, choice in enumerate(best[: len(draft) + 1]):
            token = self.rule.choose(choice) if self.rule else choice
            self.written.append(token)
            if token in ends or len(self.written) == most:
                return True
            if index < len(draft) and token != draft[index]:
                return False
        return False
