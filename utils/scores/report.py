"""The report of a run, `report.md` and `report.html`: what was done, what came out, what it cannot show.

Every sentence about results is written from the numbers given.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape, unescape
from pathlib import Path
from urllib.parse import quote, unquote

import mistune
import pandas as pd

from utils.regions import NOT_FOR_CLINICAL_USE, REGIONS, tidy
from utils.settings import explained
from utils.workspace import write_text

from . import findings as seen
from .baselines import BASELINES
from .means import SPLITS, cell, compare, diversity, error_counts, is_green, one_judge, one_split, scored
from .tables import FEW, beside, comparison, grid, markdown, p_text, quiz_tables, table_markdown

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

SEEN = "Findings"  # the figure that stands with the findings
BEST = """\
### All and abnormal studies, beside the best baseline

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
table{border-collapse:collapse;font-size:.88em}.wide{overflow-x:auto}
th,td{text-align:left;vertical-align:top;padding:.35em .9em .35em 0;border-bottom:1px solid #d9dce0}
img{max-width:100%;height:auto}code{font-size:.92em}
pre{background:#f4f5f6;padding:.8em 1em;border-radius:6px;overflow-x:auto}
@media print{body{max-width:none;margin:0}h2,h3{break-after:avoid}tr,img{break-inside:avoid}}
"""


def write_report(
    folder: str | Path,
    *,
    summary: pd.DataFrame,
    judgements: pd.DataFrame,
    figures: Mapping[str, tuple[str | Path, str]],
    settings: Mapping,
    versions: Mapping[str, str],
    data_label: str,
    commands: Sequence[str],
    samples: Sequence[str],
    best: tuple[str, pd.DataFrame] | None = None,
    findings: pd.DataFrame | None = None,
    tables: Mapping[str, tuple[str, pd.DataFrame]] | None = None,
    left: Sequence[str] = (),
    iu_xray: bool = False,
) -> Path:
    """Write `folder/report.md` and `folder/report.html`, each whole or not at all; give the first's path.

    `judgements` hold one or more systems, the first being the model and the
    others what it is set against; `summary` is theirs, from `scores.summary`.
    `figures` maps a title to (path, alt text), the path under `folder`, and
    `tables` a title to (what it shows, rows), for results beside the scores;
    `best` is what tells normal from abnormal studies, as `scores.normality` says
    it, and the table of `baselines.beside_best`; `findings` are those of
    `findings.count`, which come first, with the figure `SEEN`;
    `left` names systems that the time limit left unjudged; `samples` are study
    ids, as `pick_samples` gives them; `iu_xray` as in `tables.table_markdown`.
    Raises ValueError where a figure or a sample is missing, or the summary is of
    more than one judge.
    """
    folder, judge = Path(folder), one_judge(summary)
    systems = list(judgements["system"].unique())
    left = [f"Not judged yet, as the time limit came first: {', '.join(left)}."] if left else []
    figures, short, found = dict(figures), [], []
    if findings is not None:
        short = seen.sentences(findings)
        found = [f"### Does it see?\n\n{seen.tables(findings, data_label=data_label).strip()}"]
        found += [_figure(folder, SEEN, *figures.pop(SEEN))] if SEEN in figures else []
        found += filter(None, [seen.others(findings).strip()])
    parts = [
        f"# Chest X-ray findings by region: {systems[0]}",
        f"**{NOT_FOR_CLINICAL_USE}** Data: {data_label}. Judge: {judge}.",
        "## In short",
        _bullets([*short, *_plain_words(summary, judgements, best), *limits(summary, data_label)[:1], *left]),
        "## Method",
        f"{METHOD.format(regions=', '.join(REGIONS), judge=judge)} {COMPARED}",
        "## Results",
        *found,
        *([f"{BEST}\n\n{best[0]}", markdown(beside(best[1])).strip()] if best else []),
        table_markdown(summary, data_label=data_label, iu_xray=iu_xray).strip(),
        f"### The quiz's tables\n\n{quiz_tables(summary).strip()}",
        *_comparisons(judgements, systems),
        "### Different reports and empty regions",
        _written(judgements),
        *(
            f"### {title}\n\n{said}\n\n{grid(rows.columns, _shown(rows))}"
            for title, (said, rows) in (tables or {}).items()
        ),
        *(_figure(folder, title, path, alt) for title, (path, alt) in figures.items()),
        "## Sample reports",
        f"Reports by the {systems[0]}, of studies evenly spread from its lowest to its highest mean score. "
        "That score covers the regions that the reference mentions.",
        *(_sample(judgements, systems[0], study) for study in samples),
        "## Limits",
        _bullets(limits(summary, data_label)),
        "## Settings",
        grid(["setting", "value", "meaning"], [(f"`{name}`", *rest) for name, *rest in explained(settings)]),
        "## Versions",
        grid(["package", "version"], versions.items()),
        "## Commands",
        "```\n" + "\n".join(commands) + "\n```",
    ]
    text = "\n\n".join(parts) + "\n"
    write_text(folder / "report.html", html(text, folder))
    return write_text(folder / "report.md", text)


def html(text: str, folder: Path) -> str:
    """`text`, Markdown, as one page that needs no other file: the pictures under `folder` are inside it."""
    markdown = mistune.create_markdown(renderer=_Page(folder), plugins=["table"])
    title = escape(text.partition("\n")[0].lstrip("# "))
    return _PAGE.format(title=title, style=_STYLE, body=markdown(text))


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
        return f'<div class="wide"><table>{text}</table></div>'


def pick_samples(judgements: pd.DataFrame, count: int = 3) -> list[str]:
    """Study ids of the first system, evenly spread from its lowest to its highest mean score.

    From the test split where there is one. Chosen by rule, so that a report
    does not show only what went well.
    """
    rows = scored(judgements)
    rows = rows[rows["system"] == rows["system"].iloc[0]]
    means = one_split(rows).groupby("id")["value"].mean().sort_index().sort_values(kind="stable")
    count = min(count, len(means))
    places = [round(i * (len(means) - 1) / max(1, count - 1)) for i in range(count)]
    return [means.index[place] for place in places]


def _plain_words(
    summary: pd.DataFrame, judgements: pd.DataFrame, best: tuple[str, pd.DataFrame] | None
) -> Iterator[str]:
    """The results on the test split as sentences; on the first split where there is no test."""
    model, *others = judgements["system"].unique()
    own = one_split(summary[summary["system"] == model])
    split, means = own["split"].iloc[0], own.set_index("region")
    rows, errors, written = (
        table[table["split"] == split] for table in (summary, error_counts(judgements), diversity(judgements))
    )
    name = SPLITS.get(split, split).capitalize()
    scores = ", ".join(f"{region} {cell(own, region)}" for region in means.index)
    yield f"{name}: the mean scores of the {model} are {scores}."
    if best:
        yield from _beside_best(name, best[1][best[1]["split"] == split], model)
    for other in others:
        if not best or other not in BASELINES:
            theirs = rows[rows["system"] == other].set_index("region")
            yield from _set_against(name, means, theirs, model, other)
    found = written[written["system"] == model].iloc[0]
    yield (
        f"{name}: the {model} wrote {found['reports']:,} different reports for {found['studies']:,} "
        f"studies and left {found['empty']:,} of the {found['described']:,} regions empty that the "
        "references describe."
    )
    types = errors[errors["system"] == model].groupby("error", sort=False)["significant"].sum()
    if types.sum():
        yield (
            f'{name}: the most frequent significant error of the {model} is "{types.idxmax()}", '
            f"{types.max():,} of {types.sum():,}."
        )


def _beside_best(name: str, best: pd.DataFrame, model: str) -> Iterator[str]:
    for studies, rows in best.groupby("studies", sort=False):
        parts = [
            f"{row.region} {row.difference:+.2f} [{row.difference_low:+.2f}, {row.difference_high:+.2f}]"
            f" ({row.baseline})"
            for row in rows.itertuples()
        ]
        yield f"{name}, {studies} studies: the {model} minus the best baseline is {', '.join(parts)}."


def _set_against(
    name: str, means: pd.DataFrame, theirs: pd.DataFrame, model: str, other: str
) -> Iterator[str]:
    """Where the intervals of the model and one other system do not overlap."""
    both = [region for region in REGIONS if region in means.index and region in theirs.index]
    if not both:
        return
    above = [region for region in both if means.loc[region, "low"] > theirs.loc[region, "high"]]
    below = [region for region in both if means.loc[region, "high"] < theirs.loc[region, "low"]]
    where = [
        f"the {model} {word} in {', '.join(regions)}"
        for word, regions in (("higher", above), ("lower", below))
        if regions
    ]
    yield (
        f"{name}: the intervals of the {model} and of *{other}* do not overlap in {len(above) + len(below)} "
        f"of {len(both)} regions{': ' if where else ''}{'; '.join(where)}."
    )


def limits(summary: pd.DataFrame, data_label: str) -> list[str]:
    """What the scores of `summary` cannot show, a sentence each; those of judge and data come first."""
    judge, own = one_judge(summary), []
    if not is_green(judge):
        own.append(f"The judge is the {judge}. Do not compare its scores with GREEN scores.")
    if "phantom" in data_label.lower():
        own.append("Phantom radiographs are drawings: results on them say nothing about patients.")
    few, many = summary["n"].min(), summary["n"].max()
    return [
        *own,
        f"Each mean of a split is over {few:,} to {many:,} studies, those of normal or abnormal studies "
        "alone over fewer. Intervals cover the choice of studies, not another training run or another judge.",
        "What a report says of a region that the reference leaves out is not scored: an invented finding "
        "there costs nothing.",
        "Overlapping intervals do not show that two systems are equal.",
        "The judge is a program and makes errors. No radiologist has read these reports.",
    ]


def _comparisons(judgements: pd.DataFrame, systems: list[str]) -> Iterator[str]:
    for other in systems[1:]:
        pairs = compare(*(judgements[judgements["system"] == name] for name in (systems[0], other)))
        rows = comparison(pairs, (systems[0], other)).drop(columns=[systems[0], other])
        yield f"### {systems[0]} minus {other}"
        yield markdown(rows).strip()


def _written(judgements: pd.DataFrame) -> str:
    rows = [
        (
            row.system,
            SPLITS.get(row.split, row.split),
            f"{row.studies:,}",
            f"{row.reports:,}",
            f"{row.empty:,} of {row.described:,}",
        )
        for row in diversity(judgements).itertuples()
    ]
    return grid(["system", "split", "studies", "different reports", "described regions left empty"], rows)


def _figure(folder: Path, title: str, path: str | Path, alt: str) -> str:
    path = Path(path).resolve()
    if not path.is_file():
        raise ValueError(f"the figure {path.name} is missing: save it before the report")
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(
            f"the figure {path.name} is not in the report's folder, so a link cannot reach it: save it there"
        )
    link = quote(path.relative_to(folder.resolve()).as_posix())
    alt = tidy(alt).replace("[", "(").replace("]", ")")
    return f"### {title}\n\n![{alt}]({link})"


def _sample(judgements: pd.DataFrame, system: str, study: str) -> str:
    rows = judgements[(judgements["system"] == system) & (judgements["id"] == study)]
    if rows.empty:
        raise ValueError(f"the sample {study} has no judgement of {system}")
    rows = one_split(rows).fillna({"reference": "", "prediction": ""}).set_index("region")
    rows = rows[(rows["reference"] + rows["prediction"]).str.strip() != ""]
    counted = scored(rows.reset_index()).set_index("region")
    cells = []
    for region in (region for region in REGIONS if region in rows.index):
        row = rows.loc[region]
        score = ""
        if region in counted.index:
            score = "no verdict" if pd.isna(row["score"]) else f"{row['score']:.2f}"
        cells.append((region, row["reference"] or "not mentioned", row["prediction"] or "left empty", score))
    mean = f"mean score {counted['value'].mean():.2f}" if len(counted) else "nothing to score"
    head = f"### {study} ({SPLITS.get(rows['split'].iloc[0], rows['split'].iloc[0])}, {mean})"
    return head + "\n\n" + grid(["region", "reference", "written by the model", "score"], cells)


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _shown(rows: pd.DataFrame) -> Iterator[list[str]]:
    for row in rows.itertuples(index=False):
        cells = zip(rows.columns, row, strict=True)
        yield [
            p_text(value) if name == "p" else f"{value:.3f}" if isinstance(value, float) else str(value)
            for name, value in cells
        ]
