"""Sentences and words: how every reader of a report takes it apart.

Not by a library: nltk's splitter is a download, and scikit-learn's stop words have "no" and "not" in them.
"""

import re

from utils.regions import tidy

WORD = re.compile(r"\w+")
_WORD_OR_DECIMAL = re.compile(r"\w+(?:\.\d+)?")
# After a mark comes white space, or at once a capitalised word, as de-identification left it.
_END, _END_OR_SEMICOLON = (
    re.compile(rf"(?<=[{marks}])(?:\s+(?=\S)|(?=[A-Z][a-z]))") for marks in (".!?", ".!?;")
)


def sentences(text: str, semicolons: bool = False) -> list[str]:
    """The sentences of `text`, in order, each with its mark; marks without a word are no sentence.

    semicolons: whether one ends a sentence too; for the splitter it only ends a clause
    """
    end = _END_OR_SEMICOLON if semicolons else _END
    return [part for part in end.split(tidy(text)) if WORD.search(part)]


def words(text: str, decimals: bool = False) -> list[str]:
    """The words and numbers of `text` in lower case, in order; with `decimals` "3.7" is one word, not two."""
    return (_WORD_OR_DECIMAL if decimals else WORD).findall(text.lower())


# Words without a meaning of their own; negations are not among them.
STOPWORDS = frozenset(
    words(
        "a an and are as at be been by for from has have in is it its of on or that the there these this to "
        "was were with"
    )
)
