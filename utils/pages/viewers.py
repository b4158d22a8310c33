"""What is looked at: items to leaf through, a report beside its split, a study with its judged report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import groupby

import ipywidgets as widgets
import pandas as pd
from IPython.display import HTML
from PIL import Image

from utils.findings.reader import read_findings
from utils.findings.sentences import WORD, sentences, words
from utils.judge import Judgement
from utils.regions import ALL, NOT_FOR_CLINICAL_USE, REGIONS, mentioned
from utils.scores.statistics import ERRORS

from .page import Live, as_text, html, picture, quiet, table, tag

VIEW_SIDE = 320  # pixels: the longest side of a radiograph in a viewer


class Browser(Live):
    """Studies to leaf through, by a list and two buttons; `draw(i)` gives study i's HTML or markup."""

    def __init__(self, names: Sequence[str], draw: Callable[[int], HTML | str]):
        if not names:
            raise ValueError("no study to show")
        self._draw, self._changing = draw, False
        self.choice = widgets.Dropdown(description="study", layout=widgets.Layout(width="420px"))
        button = {"layout": widgets.Layout(width="110px")}
        self.previous = widgets.Button(description="Previous", icon="arrow-left", **button)
        self.next = widgets.Button(description="Next", icon="arrow-right", **button)
        self.previous.on_click(lambda _: self._step(-1))
        self.next.on_click(lambda _: self._step(1))
        self.choice.observe(lambda _: self._changing or self._show(), names="value")
        self._position, self.shown = widgets.HTML(), widgets.HTML()
        bar = widgets.HBox([self.choice, self.previous, self.next, self._position])
        super().__init__(widgets.VBox([bar, self.shown]), lambda: self.shown.value)
        self.show_studies(names)

    def show_studies(self, names: Sequence[str]) -> None:
        """Put other studies in place of those that are there, and show the first; there may be none."""
        self._names, self._changing = names, True
        self.choice.options = [(name, number) for number, name in enumerate(names)]
        if names:
            self.choice.value = 0  # ipywidgets 8 leaves it at none where it was none
        self._changing = False
        self._show()

    def _step(self, by: int) -> None:
        self.choice.value = min(max(self.choice.value + by, 0), len(self._names) - 1)

    def _show(self) -> None:
        number, last = self.choice.value, len(self._names) - 1
        self.previous.disabled, self.next.disabled = number in (None, 0), number in (None, last)
        if number is None:
            self._position.value, self.shown.value = "", html(quiet("no such study"))
        else:
            self._position.value = f"{number + 1} of {last + 1}"
            drawn = self._draw(number)
            markup = drawn.data if isinstance(drawn, HTML) else drawn
            self.shown.value = html(f"{markup}<small>study {escape(self._names[number])}</small>")
        self.refresh()


def labels(*texts: str) -> str:
    """What the radiographs are and who judged them, as far as that is given, and what they are not for."""
    return f"<p>{' '.join(tag(text) for text in (*texts, NOT_FOR_CLINICAL_USE) if text)}</p>"


def view(image: Image.Image, alt: str) -> str:
    """A radiograph as a captioned picture of at most VIEW_SIDE pixels."""
    small = image.convert("RGB")
    small.thumbnail((VIEW_SIDE, VIEW_SIDE))
    return picture(small, alt)


def views(images: Sequence[Image.Image], of: int = 0) -> str:
    """The views of a study, numbered; `of` so many, where not all of them are here."""
    return "".join(view(image, f"view {n} of {of or len(images)}") for n, image in enumerate(images, start=1))


def split_view(original: str, findings: Mapping[str, str], audit_rows: Iterable[Mapping] = ()) -> HTML:
    """A report beside its split, each word marked with the region that took it; `audit_rows` stand below."""
    regions = mentioned(dict(findings), ALL)
    marked = _marked(original, {name: [text] for name, text in regions.items()})
    rows = ((tag(name, name), escape(regions.get(name, "")) or quiet("not mentioned")) for name in ALL)
    original = f"<div><small>original findings</small><p>{marked}</p></div>"
    body = f'<div class="side">{original}<div>{table(("region", "findings"), rows)}</div></div>'
    if audit := list(audit_rows):
        head = list(audit[0])
        cells = ([escape(as_text(row.get(column, ""))) for column in head] for row in audit)
        body += "<small>audit</small>" + table(list(map(escape, head)), cells)
    return HTML(html(body))


def repairs(texts: Sequence[str], splits: Sequence[Mapping[str, str]], audit: pd.DataFrame) -> Browser:
    """The twenty reports with the most repaired or failing sentences, each beside its split and its audit."""
    wrong = (audit["repaired"] | ~audit["ok"]).groupby(audit["study"]).sum()
    order = wrong.sort_values(ascending=False, kind="stable").index[:20]
    columns = ["direction", "sentence", "regions", "ok", "repaired"]
    rows = {study: audit.loc[audit["study"] == study] for study in order}
    names = [f"{rows[study]['id'].iloc[0]}: {wrong[study]} sentences repaired" for study in order]

    def draw(number: int) -> HTML:
        study = order[number]
        return split_view(texts[study], splits[study], rows[study][columns].to_dict("records"))

    return Browser(names, draw)


def _marked(original: str, texts: Mapping[str, Sequence[str]], names: Mapping[str, str] | None = None) -> str:
    """`original` as markup, its words marked with the name of the `texts` that took them, or its label."""
    # An empty word stands between two texts: no run of words goes over it.
    others = {name: [word for text in own for word in (*words(text), "")] for name, own in texts.items()}
    takers = _takers(words(original), others)
    parts, end = [], 0
    for name, pairs in groupby(zip(WORD.finditer(original), takers, strict=True), key=lambda pair: pair[1]):
        run = [match for match, _ in pairs]
        start, before = run[0].start(), end
        end = run[-1].end()
        text = original[start:end]
        parts.append(escape(original[before:start]))
        parts.append(_mark(text, name, (names or {}).get(name, name)) if name else escape(text))
    return "".join([*parts, escape(original[end:])])


def _mark(text: str, colour: str, label: str) -> str:
    return f'<mark class="{colour}">{escape(text)}<small>{label}</small></mark>'


def _takers(words: list[str], regions: Mapping[str, list[str]]) -> list[str]:
    """For each word the region that shares the longest run of words around it, "" where none does."""
    runs = {name: _runs(words, text) for name, text in regions.items()}
    takers = [""]
    for position, word in enumerate(words):
        lengths = {name: lengths[position] for name, lengths in runs.items()}
        longest = max(lengths.values(), default=0)
        best = [name for name, length in lengths.items() if length == longest > 0]
        if longest == 1 and (len(word) < 4 or len(best) > 1):  # a lone "is" or "normal" says nothing
            best = []
        takers.append(takers[-1] if takers[-1] in best else best[0] if best else "")
    return takers[1:]


def _runs(words: list[str], others: list[str]) -> list[int]:
    """For each word the length of the longest run around it that `others` has too.

    `difflib` finds runs in the text's own order alone: of a sentence that a split moves no word is marked.
    """
    longest, before = [0] * len(words), [0] * (len(others) + 1)
    for end, word in enumerate(words):
        before = [0, *(before[at] + 1 if word == other else 0 for at, other in enumerate(others))]
        length = max(before)
        for position in range(end - length + 1, end + 1):
            longest[position] = max(longest[position], length)
    return longest


def report_view(
    images: Sequence[Image.Image],
    reference: Mapping[str, str],
    prediction: Mapping[str, str],
    judgements: Mapping[str, Judgement],
    judge_label: str,
    note: str = "",
    beside: str = "",
) -> HTML:
    """One study: its views, reference and prediction by region, and what the judge found.

    judgements: by region; of a region that the reference does not mention none is shown. The words that the
        judge's findings name are marked and labelled in the texts, as far as they can be found there.
    judge_label, note: shown as they come, such as "phantom"; beside: markup to stand next to the views
    """
    wrote, predicted = mentioned(dict(reference)), mentioned(dict(prediction))
    judged = {name: judgements[name] for name in wrote if name in judgements}
    rows = []
    for name in REGIONS:
        judgement = judged.get(name)
        wanted = _evidence(wrote.get(name, ""), judgement, "b") or quiet("not mentioned")
        given = _evidence(predicted.get(name, ""), judgement, "acde") or quiet("nothing written")
        rows.append((tag(name, name), wanted, given, _score(judgement, name in wrote)))
    compared = table(("region", "reference", "prediction", "score"), rows)
    verdicts = "".join(_verdict(name, judgement) for name, judgement in judged.items())
    side = f'<div class="side">{views(images)}{beside}</div>'
    below = f'{compared}<div class="side verdicts">{verdicts}</div>'
    return HTML(html(f"{labels(note, judge_label)}{side}{below}"))


def _evidence(text: str, judgement: Judgement | None, letters: str) -> str:
    """`text` as markup; what matched, and the errors of the types `letters`, are marked.

    The words of a finding where the sentence has them, else the sentence that says it in other words.
    """
    if judgement is None:
        return escape(text)
    wrong = [sentence for letter in letters for sentence in judgement.sentences.get(letter, ())]
    named = {"matched": judgement.matched_findings, "wrong": wrong}
    meant = {name: _meaning(". ".join(findings)) for name, findings in named.items()}
    names = {"matched": "✓ matched", "wrong": "✗ missing" if letters == "b" else "✗ wrong"}
    parts = []
    for sentence in sentences(text, semicolons=True):
        part, meaning = _marked(sentence, named, names), _meaning(sentence)
        verdict = next((name for name in ("wrong", "matched") if meant[name] & meaning), "")
        parts.append(_mark(sentence, verdict, names[verdict]) if verdict and "<mark" not in part else part)
    return " ".join(parts)


def _meaning(text: str) -> set[tuple[str, bool]]:
    """The findings that a text names, each with whether it says that they are there."""
    plain = (finding for finding in read_findings(text) if not finding.words)
    return {(name, finding.present) for finding in plain for name in finding.names}


def _score(judgement: Judgement | None, is_mentioned: bool) -> str:
    if judgement is None:
        return quiet("not judged" if is_mentioned else "not scored")
    if judgement.score is None:
        return quiet("no verdict")
    bar = f'<span class="bar"><i style="width:{judgement.score:.0%}"></i></span>'
    return f"<b>{judgement.score:.2f}</b>{bar}"


def _verdict(region: str, judgement: Judgement) -> str:
    """What the judge said of one region: matches, errors, and its answer whole."""
    minor = "minor, lowers no score: "
    lines = [f"✓ {finding}" for finding in judgement.matched_findings] + [
        f"✗ {weight}{ERRORS['abcdef'.index(letter)]}: {detail}"
        for weight, errors in (("", judgement.sentences), (minor, judgement.insignificant_sentences))
        for letter, details in errors.items()
        for detail in details
    ]
    listed = "".join(f"<li>{escape(line)}</li>" for line in lines or ["no matches and no errors listed"])
    answer = f"<summary>the judge's complete answer</summary><pre>{escape(judgement.completion)}</pre>"
    return f'<div>{tag(region, region)}<ul class="plain">{listed}</ul><details>{answer}</details></div>'
