"""The report of a run, `report.md` and `report.html`: what came out, how, and what it cannot show.

It opens with what most readers want: the chart of findings, the quiz's tables, three sentences. In the page
settings and long tables are folded. Every sentence about results is written from the numbers given.
"""

import base64
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from html import escape, unescape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import mistune
import pandas as pd

from utils.regions import NOT_FOR_CLINICAL_USE, REGIONS, tidy
from utils.run.disk import write_text
from utils.settings import explained

from . import findings as seen
from .in_short import further, in_short
from .statistics import diversity, is_green, one_judge, one_split, scored, split_name
from .tables import FEW, beside, comparisons, grid, markdown, quiz_tables, rounded

if TYPE_CHECKING:
    from .stages import Results

METHOD = f"""\
The model sees the views of a study and writes the findings of each region: {{regions}}. \
The judge, {{judge}}, compares each region's text with the reference. It lists matched findings and \
clinically significant errors of six types. A score is matched / (matched + significant errors), \
from 0 to 1. A region that the reference does not mention is not scored. A region that the reference \
describes scores 0 if the report leaves it empty, and so does a pair without a verdict. Intervals are \
95 % percentile bootstrap intervals over studies; where n is under {FEW}, they are too narrow."""
COMPARED = """\
Systems are compared study by study. The tables show the interval of the paired difference, and the p-value \
of a two-sided sign-flip test, not corrected for the number of comparisons."""

SAMPLES = """\
Reports by the {model}, of studies evenly spread from its lowest to its highest mean score. That score \
covers the regions that the reference mentions."""
SEEN = "Findings"  # the figure that opens the report
BESIDE = "All and abnormal studies, beside the best baseline"
BEST = """\
One normal report for everyone scores well wherever a study is normal; abnormal studies test whether the \
model sees. A study is abnormal if any of its regions is. The best baseline has the highest mean on these \
very studies; the difference is the model's mean minus that, paired by study."""

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style></head>
<body>
{body}</body></html>
"""
_STYLE = """
body{font:16px/1.55 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:60rem;margin:2rem auto;
padding:0 1rem}
h1,h2,h3{line-height:1.25;margin:1.8em 0 .5em}h1{margin-top:0}
h2{border-bottom:1px solid #d9dce0;padding-bottom:.2em}
table{border-collapse:collapse;font-size:.88em}.wide{overflow-x:auto;margin:.8em 0}
th,td{text-align:left;vertical-align:top;padding:.35em .9em .35em 0;border-bottom:1px solid #d9dce0}
img{max-width:100%;height:auto}code{font-size:.92em}
summary{cursor:pointer;margin:.6em 0}summary h2,summary h3{display:inline;font-size:1.1em;border:0}
pre{background:#f4f5f6;padding:.8em 1em;border-radius:6px;overflow-x:auto}
@media print{details::details-content{content-visibility:visible}
body{max-width:none;margin:0}h2,h3{break-after:avoid}tr,img{break-inside:avoid}}
"""


def write_report(
    results: "Results", figures: Mapping[str, tuple], tables: Mapping[str, tuple], samples: Sequence, **last
) -> Path:
    """Write `report.md` and `report.html` in the results' folder, each whole or not at all; the first's path.

    figures: (path in that folder, alt text) by title, of which `SEEN` comes first
    tables: (what it shows, rows) by title; samples: see `pick_samples`
    last: `settings` and `versions`, by name, and the `commands` that make this run
    Raises ValueError where the summary is of more than one judge.
    """
    folder, label = results.folder, results.data_label
    judgements, summary = results.judgements, results.summary
    judge, (model, *others) = one_judge(summary), judgements["system"].unique()
    figures, cautions = dict(figures), _cautions(judge, label)
    left = [f"Not judged yet, as the time limit came first: {', '.join(results.left)}."] * bool(results.left)
    long = dict(_long_tables(results))
    long |= {title: f"{text}\n\n{markdown(rounded(rows))}" for title, (text, rows) in tables.items()}
    meanings = ((f"`{name}`", *rest) for name, *rest in explained(last["settings"]))
    ends = {
        "Settings": grid(["setting", "value", "meaning"], meanings),
        "Versions": grid(["package", "version"], last["versions"].items()),
        "Commands": "\n".join(["```", *last["commands"], "```"]),
    }
    parts = [
        f"# Chest X-ray findings by region: {model}",
        " ".join([f"**{NOT_FOR_CLINICAL_USE}** Data: {label}. Judge: {judge}.", *cautions]),
        *([_picture(folder, *figures.pop(SEEN))] if SEEN in figures else []),
        quiz_tables(summary).strip(),
        "## What it can and cannot do",
        _bullets([*in_short(summary, judgements, results.best, results.counted), *left]),
        "## Results",
        *(f"### {title}\n\n{_picture(folder, path, alt)}" for title, (path, alt) in figures.items()),
        _bullets(further(summary)),
        *(f"### {title}\n\n{text}" for title, text in long.items()),
        "## Sample reports",
        SAMPLES.format(model=model),
        *(_sample(judgements, model, study) for study in samples),
        "## Method",
        f"{METHOD.format(regions=', '.join(REGIONS), judge=judge)}{f' {COMPARED}' if others else ''}",
        "## Limits",
        _bullets(limits(summary, label)),
        *(f"## {title}\n\n{text}" for title, text in ends.items()),
    ]
    text = "\n\n".join(filter(None, parts)) + "\n"
    write_text(folder / "report.html", html(text, folder, {*long, *ends}))
    return write_text(folder / "report.md", text)


def _long_tables(results: "Results") -> Iterator[tuple[str, str]]:
    """The tables of every run, each with its title."""
    judgements = results.judgements
    named = f"{results.named}\n{seen.others(results.counted)}"
    yield "Findings, by system and one by one", named.strip()
    yield "Mean scores of all systems", results.means.strip()
    if len(results.best):
        yield BESIDE, f"{BEST}\n\n{results.told_by}\n\n{markdown(beside(results.best))}"
    if judgements["system"].nunique() > 1:
        yield "The model minus each other system", markdown(comparisons(judgements))
    rows = [
        (row.system, split_name(row.split), f"{row.studies:,}", f"{row.reports:,}")
        + (f"{row.empty:,} of {row.described:,}",)
        for row in diversity(judgements).itertuples()
    ]
    head = ["system", "split", "studies", "different reports", "described regions left empty"]
    yield "Different reports and empty regions", grid(head, rows)


def html(text: str, folder: Path, folded: Collection[str]) -> str:
    """`text`, Markdown, as one page, with the pictures in `folder`; what `folded` headings head unfolds."""
    markdown = mistune.create_markdown(renderer=_Page(folder), plugins=["table"])
    title = escape(text.partition("\n")[0].lstrip("# "))
    closed = {escape(name, quote=False) for name in folded}

    def fold(section: re.Match) -> str:
        heading, end, rest = section[0].partition("\n")
        if re.sub("<.*?>", "", heading) not in closed:
            return section[0]
        return f"<details><summary>{heading}</summary>{end}{rest}</details>\n"

    body = re.sub(r"<h[123]>.*?(?=<h[123]>|\Z)", fold, markdown(text), flags=re.DOTALL)
    return _PAGE.format(title=title, style=_STYLE, body=body)


class _Page(mistune.HTMLRenderer):
    """What a model wrote stays text: raw markup is shown, not taken."""

    def __init__(self, folder: Path):
        super().__init__(escape=True)
        self._folder = folder

    def text(self, text: str) -> str:
        return escape(unescape(text), quote=False)  # entities are characters, in Markdown too

    def image(self, text: str, url: str, title: str | None = None) -> str:
        data = base64.b64encode((self._folder / unquote(url)).read_bytes()).decode()
        return f'<img alt="{escape(text)}" src="data:image/png;base64,{data}">'

    def table(self, text: str) -> str:
        return f'<div class="wide"><table>{text}</table></div>\n'


def pick_samples(judgements: pd.DataFrame, count: int = 3) -> list[str]:
    """Study ids of the first system, evenly spread by rule from its lowest to its highest mean score."""
    rows = scored(judgements)
    rows = rows[rows["system"] == rows["system"].iloc[0]]
    means = one_split(rows).groupby("id")["value"].mean().sort_index().sort_values(kind="stable")
    count = min(count, len(means))
    return [means.index[round(i * (len(means) - 1) / max(1, count - 1))] for i in range(count)]


def _cautions(judge: str, data_label: str) -> list[str]:
    """What keeps the scores from being read as others are."""
    cautions = []
    if not is_green(judge):
        cautions.append("The judge is not GREEN. Do not compare its scores with GREEN scores.")
    if "phantom" in data_label.lower():
        cautions.append("Phantom radiographs are drawings: results on them say nothing about patients.")
    return cautions


def limits(summary: pd.DataFrame, data_label: str) -> list[str]:
    """What the scores of `summary` cannot show, a sentence each; those of judge and data come first."""
    few, many = summary["n"].min(), summary["n"].max()
    return [
        *_cautions(one_judge(summary), data_label),
        f"Each mean of a split is over {few:,} to {many:,} studies, those of normal or abnormal studies "
        "alone over fewer. Intervals cover the choice of studies, not another training run or another judge.",
        "What a report says of a region that the reference leaves out is not scored: an invented finding "
        "there costs nothing.",
        "Overlapping intervals do not show that two systems are equal.",
        "The judge is a program and makes errors. No radiologist has read these reports.",
    ]


def _picture(folder: Path, path: Path, alt: str) -> str:
    if not path.is_file():
        raise ValueError(f"the figure {path.name} is missing: save it before the report")
    if not path.is_relative_to(folder):
        raise ValueError(
            f"the figure {path.name} is not in the report's folder, so a link cannot reach it: save it there"
        )
    alt = tidy(alt).replace("[", "(").replace("]", ")")
    return f"![{alt}]({quote(path.relative_to(folder).as_posix())})"


def _sample(judgements: pd.DataFrame, system: str, study: str) -> str:
    rows = judgements[(judgements["system"] == system) & (judgements["id"] == study)]
    if rows.empty:
        raise ValueError(f"the sample {study} has no judgement of {system}")
    rows = one_split(rows).fillna({"reference": "", "prediction": ""})
    rows = rows[(rows["reference"] + rows["prediction"]).str.strip() != ""]
    counted, cells = scored(rows), []
    for row in rows.itertuples():
        score = "no verdict" if pd.isna(row.score) else f"{row.score:.2f}"
        score = score if row.Index in counted.index else ""
        cells.append((row.region, row.reference or "not mentioned", row.prediction or "left empty", score))
    mean = f"mean score {counted['value'].mean():.2f}" if len(counted) else "nothing to score"
    head = f"### {study} ({split_name(rows['split'].iloc[0])}, {mean})"
    return head + "\n\n" + grid(["region", "reference", "written by the model", "score"], cells)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
