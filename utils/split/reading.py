"""What a language model wrote, read as findings by region, also where it is only nearly JSON."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress

import yaml
from pydantic_core import from_json

from utils.regions import ALL, OTHERS

from .auditing import Split, failures
from .offline import region_of

# What models write before the answer, and how its end is marked: `<think>`, `[THINK]`, or gpt-oss's channels.
_THOUGHT_NAME = r"(?:\w+:)?(?:think|thinking|thought|thoughts|reasoning)"
_THOUGHT = re.compile(rf"^.*(?:</{_THOUGHT_NAME}>|\[/THINK\]|<\|channel\|>final<\|message\|>)", re.S | re.I)
_UNFINISHED = re.compile(rf"(?:<{_THOUGHT_NAME}>|\[THINK\]|<\|channel\|>analysis).*", re.S | re.I)
_FLAT_OBJECT = re.compile(r"\{[^{}]*\}")
_NOTHING_SAID = frozenset({"none", "null", "nil", "n/a", "not mentioned"})


def read_answer(content: str | None, text: str) -> Split | None:
    """The split of `text` in an answer, whatever is around it; None where none can be read.

    Thoughts do not count. Of several splits it is the one with the fewest failures in the audit, the last
    where they are equal. Names of regions are read as they are meant ("Lungs", "cardiac"), lists of sentences
    are joined, and a broken answer is read up to there.
    """
    content = _UNFINISHED.sub("", _THOUGHT.sub("", whole(content or "")))
    splits = list(_splits(content))
    if len(splits) > 1:
        return min(reversed(splits), key=lambda split: len(failures(text, split)))
    return splits[0] if splits else _beginning(content)


def whole(text: str) -> str:
    """`text` without halves of characters (lone surrogates), which no file and no server takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")


def _splits(content: str) -> Iterator[Split]:
    """The split in each object that names a region: read as JSON, else as near to it as YAML can read."""
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_together)
    at = content.find("{")
    while at >= 0:
        try:
            read, end = decoder.raw_decode(content, at)
        except (ValueError, RecursionError):
            read, end = _leniently(content, at)
        split = _split(read)
        if split:
            yield split
        at = content.find("{", end if split else at + 1)


def _together(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object in which a name that comes twice has the list of what is said under it."""
    together: dict[str, object] = {}
    for name, value in pairs:
        together[name] = [together[name], value] if name in together else value
    return together


def _leniently(content: str, at: int) -> tuple[object, int]:
    """An object with a trailing comma, quotes of another kind, or names without; and where it ends."""
    flat = _FLAT_OBJECT.match(content, at)
    if not flat:
        return None, at + 1
    try:
        return yaml.load(flat[0].replace("\t", " "), yaml.BaseLoader), flat.end()
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return None, at + 1


def _beginning(content: str) -> Split | None:
    """What there is of an answer up to where it ends too early or is no JSON any more."""
    for brace in re.finditer("{", content):
        with suppress(ValueError):
            if split := _split(from_json(content[brace.start() :], allow_partial="trailing-strings")):
                return split
    return None


def _split(answer: object) -> Split | None:
    """The five regions of an object that names one; None of any other, and where a value is no text."""
    if not isinstance(answer, dict):
        return None
    texts: dict[str, list[str]] = {}
    for name, value in answer.items():
        if region := _region(name):
            if (text := _text(value)) is None:
                return None
            texts.setdefault(region, []).append(text)
    return {name: " ".join(filter(None, texts.get(name, []))) for name in ALL} if texts else None


def _region(name: str) -> str | None:
    """The region that a name means: its own, or the one that the lexicon has the word in."""
    plain = name.strip().casefold().replace("_", " ")
    if plain in ALL:
        return plain
    return OTHERS if plain == "other" else region_of(plain)


def _text(value: object) -> str | None:
    """A region's text in one line; "" where nothing is said of it, None where the value is no text."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        parts = [_text(part) for part in value]
        ended = (part if part.endswith((".", "!", "?")) else f"{part}." for part in parts if part)
        return None if None in parts else " ".join(ended)
    if not value:
        return ""
    if not isinstance(value, str):
        return None
    text = " ".join(whole(value).split())
    return "" if text.rstrip(".").casefold() in _NOTHING_SAID else text
