"""Findings to regions without a model: a clinical lexicon and a little grammar.

A sentence goes whole to the region that its terms speak of. Where its clauses or the members of its list
speak of several, each region gets its own part with the words that all share: "... are normal", "No ...".
"""

import re
from functools import partial
from typing import NamedTuple

from utils.findings.sentences import sentences, words
from utils.regions import ALL, OTHERS, tidy

from .lexicon import COMPANY, LEXICON

FIRST = 0.5  # added to the term named first: the subject
STANDS_ALONE = 3  # weight that a part of a sentence must reach to be cut out of it
JOINT = "cardiomediastinal"  # the outline that heart and mediastinum share


_pattern = partial(re.compile, flags=re.IGNORECASE)
_SEPARATOR = _pattern(
    r"(\s*;\s+"
    r"|(?<!consistent)(?<!compatible)(?<!associated)(?<!corresponds)(?<!corresponding)"
    r",?\s+(?:and|but|or|with|while|nor|however)\s+"
    r"|,\s+"
    r"|(?:(?<=silhouette)|(?<=heart)|(?<=heart size)|(?<=cardiac))\s+(?=mediastin))"
)
_CLAUSE_MARKS = ("with", ";", "but", "while", "however")
_OPENER = _pattern(r"^(?:there (?:is is|is|are|was|were|has been|have been)|the)\s+(?=\S)")
# What shows the findings, and is none: "frontal and lateral views of the chest demonstrate ...".
_SHOWN = _pattern(
    r"[^,;]*\b(?:views?|radiographs?|examination|exam|evaluation|images?|films?|chest)\b[^,;]*?"
    r"\b(?:demonstrates?|shows?|reveals?)\s+"
)
# Where what is said of a subject begins: a verb, or its state alone ("heart and mediastinum normal").
_VERB = _pattern(
    r"\b(?:is|are|was|were|appears?|remains?|has|have|demonstrates?|shows?|reveals?|looks?|seen|noted|identified"
    r"|measures?|suggests?|indicates?"
    r"|(?<=\w )(?:grossly )?(?:within normal|of normal"
    r"|(?:normal|unremarkable|stable|intact|clear|unchanged)(?= (?:in|configuration|appearance)\b|$)))\b"
)
# What may stand before a list and be meant for each of its members.
_PREFIX = _pattern(
    r"^(?:(?:no|negative for|without|normal|stable|unremarkable|unchanged|grossly|visible|visualized|definite"
    r"|evidence of|evidence for|radiographic|convincing|acute|significant|the|of|any),?\s+)+"
)
# A member that brings its own state, and a clause that begins with one.
_STATE = _pattern(r"^(?:no|normal|stable|unremarkable|unchanged|clear|mild|negative|without|minimal|there)\b")
_DENIAL = _pattern(r"(?:no|without|negative for)\b")
# "Normal" before a list is not meant for a finding in it: "normal heart size and aortic ectasia".
_NORMAL = _pattern(r"(?:normal|unremarkable)\b")
_ABNORMAL = _pattern(
    r"\b(?:ectasia|ectatic|tortuo|atherosclero|calcifi|enlarge|cardiomegaly|crowding|opaci|edema|effusion|atelecta"
    r"|scar|granuloma|nodul|fracture|degenerat|scolio|osteophyte)"
)
_LISTED = _pattern(r"\b(?:and|or|nor)\b")
# What binds a member to the one before it.
_BOUND = _pattern(
    r"(?:most )?(?:secondary|due|possibly|probably|likely|representing|related|compatible|consistent"
    r"|suggest\w*|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|\d+(?:st|nd|rd|th))\b"
)
_PREPOSITION = _pattern(r"\b(?:in|of|within|over|overlying|at|along|near(?! top)|to|from|through|on|by)\b")
# A member that waits for the noun of a later one ("cardiac and hilar contours"), and those that wait only
# for a noun that fits ("heart and hilar contours", "lung and hilar granulomas").
_HEADLESS = _pattern(
    r"(?:the )?(?:left |right |bilateral )?"
    r"(?:cardiac|mediastinal|hilar|pulmonary|bony|osseous|aortic|atrial|ventricular)"
)
_OF_HEART = _pattern(r"(?:the )?heart (?:contour|silhouette|border|shadow)s?")
_OF_LUNG = _pattern(r"(?:calcified )?(?:left |right )?lungs? (?:granuloma|calcification|nodule)s?")
_JOINT = _pattern(r"\b(?:the\s+)?cardio[\s-]?mediastinal\s+(\w+)(?:\s+(?:is|are|was|were)\b)?")
# What de-identification left: a noun that names no region any more, a sentence that says nothing any more.
_NAMELESS = _pattern(r"\bpulmonary XXXX\b")
_SAYS_NOTHING = re.compile(r"\b(?:is|are|has|have)(?: XXXX)+(?: in the interval)?\W*$")
# A sentence that goes on about the one before it.
_GOES_ON = _pattern(r"^(?:however,? |not )?(?:this|these|that|it|they|which)\b")


_SINGULARS = {  # term: (region, weight)
    tidy(term): (region, weight)
    for region, by_weight in LEXICON.items()
    for weight, terms in by_weight.items()
    for term in terms.split(",")
}
_TERMS = {
    plural: hit for term, hit in _SINGULARS.items() for plural in (term + "s", term + "es", term[:-1] + "ies")
} | _SINGULARS


class Part(NamedTuple):
    """A region's part of a sentence; `shared` where other regions have a part of it too."""

    region: str
    text: str
    shared: bool


def split_offline(text: str) -> dict[str, str]:
    """The findings `text` by region, "" where nothing is said of one; shares of joint sentences come last."""
    parts: list[Part] = []
    for sentence in sentences(text):
        parts += split_sentence(sentence, parts[-1].region if parts else None)
    parts.sort(key=lambda part: part.shared)
    return {name: " ".join(part.text for part in parts if part.region == name) for name in ALL}


def split_sentence(sentence: str, before: str | None = None) -> list[Part]:
    """`sentence` as one part per region; `before` is the region of the sentence before it."""
    body = sentence.strip().rstrip(".,; ")
    if _SAYS_NOTHING.search(body):
        return [Part(OTHERS, _sentence(body), False)]
    runs = _runs(body)
    named = [region for region, _ in runs if region]
    if len(set(named)) < 2:
        region = named[0] if named else region_of(body)
        region = region or (before if before and _GOES_ON.match(body) else OTHERS)
        return [Part(region, _sentence(body), False)]
    texts: dict[str, list[str]] = {}
    for region, phrase in runs:
        texts.setdefault(region or named[0], []).append(_sentence(phrase))
    return [Part(region, " ".join(parts), True) for region, parts in texts.items()]


def clauses(sentence: str) -> list[tuple[str, str]]:
    """`sentence` as (mark before it, clause), cut at "but", "with", "no", ";" and before a second verb."""
    pieces = _SEPARATOR.split(sentence)
    parts = [("", pieces[0])]
    for mark, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        word, (last_mark, last) = mark.strip(" ,").lower(), parts[-1]
        stated = _VERB.search(_OPENER.sub("", last))
        second = stated and (_VERB.search(piece) or _STATE.match(piece))
        verb_last = any(verb.end() == len(last) for verb in _VERB.finditer(last))
        ended = not word and verb_last and not _BOUND.match(piece)
        if ended or second or _DENIAL.match(piece) or word in _CLAUSE_MARKS:
            parts.append((mark, piece))
        else:
            parts[-1] = (last_mark, last + mark + piece)
    return parts


def _runs(body: str) -> list[tuple[str | None, str]]:
    """(region, phrase) in order: clauses of one region together as they stand, lists shared out."""
    parts, of_list = [], range(0)  # (mark, region, phrase); where the parts of the last list stand
    for mark, clause in clauses(body):
        shared = _share(clause)
        if of_list and len(shared) == 1 and shared[0][0] is None and "with" not in mark:
            for at in of_list:  # "..., unchanged from prior" is said of every member of the list
                parts[at] = (*parts[at][:2], parts[at][2] + mark + clause)
            continue
        of_list = range(len(parts), len(parts) + len(shared)) if len(shared) > 1 else range(0)
        parts += [(mark if len(shared) == 1 else None, region, phrase) for region, phrase in shared]
    named = {region for _, region, _ in parts}
    for at, (mark, _, phrase) in enumerate(parts):  # the terms of `COMPANY` move to the region they keep to
        for term, (beside, to) in COMPANY.items():
            if named & beside and term in phrase.lower():
                parts[at] = (mark, to, phrase)
    runs = [parts[0][1:]]
    for mark, region, phrase in parts[1:]:
        last, before = runs[-1]
        if mark is not None and (region is None or region == last or last is None):
            runs[-1] = (last or region, before + mark + phrase)
        else:
            runs.append((region or last, phrase))
    return runs


def region_of(phrase: str, least: float = 1) -> str | None:
    """The region that `phrase` speaks of most, None where its terms weigh less than `least`."""
    scores: dict[str, float] = {}
    tokens, at = words(_NAMELESS.sub("", phrase)), 0
    while at < len(tokens):
        for length in (3, 2, 1):
            if hit := _TERMS.get(" ".join(tokens[at : at + length])):
                region, weight = hit
                scores[region] = scores.get(region, 0 if scores else FIRST) + weight
                at += length - 1
                break
        at += 1
    best = max(scores, key=scores.get, default=None)
    return best if best and scores[best] >= least else None


def _share(clause: str) -> list[tuple[str | None, str]]:
    """(region, phrase) of each part of a clause: its list's members, each with the words they share."""
    body = _OPENER.sub("", clause)
    shown = _leading(_SHOWN, body)
    body = body[len(shown) :]
    verb = _VERB.search(body)
    subject, predicate = (body[: verb.start()].rstrip(), body[verb.start() :]) if verb else (body, "")
    prefix = _leading(_PREFIX, subject)
    subject = subject[len(prefix) :]
    groups = _members(subject, bool(predicate))
    if len(groups) == 1:
        if groups[0][0] not in (None, JOINT) or not _JOINT.search(body):
            return [(region_of(body, STANDS_ALONE), clause)]
        aortic = region_of(predicate, STANDS_ALONE) == "mediastinal"  # "... demonstrates a tortuous aorta"
        return [("mediastinal", clause)] if aortic else _joint(shown + body)
    apart = bool(predicate) and _apart(prefix, subject, groups[0][1])
    beside_heart = any(region == "heart" for region, _ in groups)
    parts: list[tuple[str | None, str]] = []
    for at, (region, phrase) in enumerate(groups):
        stated = _STATE.match(phrase) or (_NORMAL.match(prefix) and _ABNORMAL.search(phrase))
        before = "" if stated or (apart and at) else prefix
        after = "" if apart and at < len(groups) - 1 else predicate
        text = " ".join(f"{shown}{before}{phrase} {_noun(groups, at)} {after}".split())
        if region == JOINT and not beside_heart:
            parts += _joint(text)
        else:
            parts.append(("mediastinal" if region == JOINT else region, text))
    return parts


def _apart(prefix: str, subject: str, first: str) -> bool:
    """Whether a list's verb is its last member's: "normal heart size, hilar calcifications suggest ..."."""
    marks = _SEPARATOR.split(subject)[1::2]
    stated = _ABNORMAL.search(first) or (prefix and not _DENIAL.match(prefix))
    return bool(stated and marks and not _LISTED.search(marks[-1]))


def _noun(groups: list[tuple[str | None, str]], at: int) -> str:
    """The noun that the member `at` waits for: the last word of the next member that has its own."""
    phrase = groups[at][1]
    later = (other for _, other in groups[at + 1 :] if other and not _HEADLESS.fullmatch(other))
    noun = next(later, "").split(" ")[-1]
    whole = f"{phrase} {noun}"
    waits = _HEADLESS.fullmatch(phrase) or _OF_HEART.fullmatch(whole) or _OF_LUNG.fullmatch(whole)
    return noun if waits else ""


def _leading(pattern: re.Pattern, text: str) -> str:
    start = pattern.match(text)
    return start.group(0) if start else ""


def _members(subject: str, has_predicate: bool) -> list[tuple[str | None, str]]:
    """The members of a list, neighbours of one region together as they stand."""
    pieces = _SEPARATOR.split(subject)
    groups = [(_joint_region(pieces[0]), pieces[0])]
    for mark, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        region, (last, phrase) = _joint_region(piece), groups[-1]
        bound = _BOUND.match(piece) or (not has_predicate and _PREPOSITION.search(phrase))
        if region is None or region == last or bound:
            groups[-1] = (last, phrase + mark + piece)
        elif last is None:
            groups[-1] = (region, phrase + mark + piece)
        else:
            groups.append((region, piece))
    return groups


def _joint_region(phrase: str) -> str | None:
    return JOINT if _JOINT.search(phrase) else region_of(phrase, STANDS_ALONE)


def _joint(text: str) -> list[tuple[str, str]]:
    """Both shares of "the cardiomediastinal silhouette is ..."; the verb goes, as its number may not fit."""
    outlined = _JOINT.search(text)
    noun, verb = outlined.group(1), _VERB.search(text, outlined.start())
    outline = "contours" if verb and noun.lower().startswith("silhouette") else noun
    shares = {"heart": f"cardiac {noun}", "mediastinal": f"mediastinal {outline}"}
    return [(region, _JOINT.sub(share, text)) for region, share in shares.items()]


def _sentence(phrase: str) -> str:
    """`phrase` as a sentence: without "The" or "There is" before it, capital first, full stop last."""
    phrase = _OPENER.sub("", phrase.strip(" ,;."))
    return phrase[:1].upper() + phrase[1:] + "."
