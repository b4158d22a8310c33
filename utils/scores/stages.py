"""Step 4 as notebook 04 calls it: all reports, then what the verdicts on them come to, then the files.

Reports and answers are kept as they come: a call that was stopped goes on from there.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from datasets import DatasetDict

from utils.findings import groups
from utils.judge import Engine
from utils.models.systems import BASE, MODEL, SHUFFLED
from utils.models.writer import Writer, write_reports
from utils.run.answers import files_of
from utils.run.disk import replacing_file, write_text
from utils.run.workspace import COMMANDS, Workspace, versions
from utils.settings import GenerationSettings, JudgeSettings

from . import baselines, findings, parallel, plan, report, tables
from .judging import Tables, all_systems, normality, references
from .statistics import PUBLISHED_DATA, summary

OVERLAP = "BLEU-4 and mean ROUGE-L; tokens: lower-case runs of letters and digits. BLEU-4 has no interval."
JUDGED, PAIRS, TABLE = "judgements.parquet", "pairs.jsonl", "table.md"


@dataclass(frozen=True)
class Reports:
    """What `write_all` has made.

    writer: closed; asked for a report, it loads the model again
    written: the model's reports by split, lines of `generations.jsonl`
    systems: by system, the rows to judge; the model comes first
    candidates: what the constant report was chosen from, see `baselines.rank_constants`
    """

    workspace: Workspace
    dataset: DatasetDict
    settings: GenerationSettings
    writer: Writer
    written: dict[str, list[dict]]
    systems: Tables
    candidates: pd.DataFrame

    def others(self, choice: str, engine: Engine) -> Tables:
        """The rows to judge of those whom `choice` names beside the model, see `plan.chosen`.

        With "all" the base model writes first. If reports of it are missing, `engine` gives its memory back.
        """
        rows, path = plan.chosen(self.systems, choice), _path(self.workspace)
        del rows[MODEL]
        if choice != "all":
            return rows
        if parallel.base_so_far(self.workspace, self.dataset, self.settings)[1]:
            parallel.let_go(engine)
            parallel.write_on_all(self.workspace, self.settings, [BASE])
        written = write_reports(self.writer, self.dataset["test"], "test", path, self.settings, BASE)
        self.writer.close()
        return all_systems(self.dataset, {BASE: {"test": written}}, {}) | rows


def write_all(workspace: Workspace, dataset: DatasetDict, settings: GenerationSettings) -> Reports:
    """Reports by the model, by the model with shuffled images, and by the baselines; all GPUs share the work.

    The base model's come later, see `Reports.others`: it is loaded anew for them.
    """
    parallel.write_on_all(workspace, settings, [MODEL, SHUFFLED])
    writer, path = parallel.writer_of(workspace, settings), _path(workspace)
    writer.learn(study[0]["content"] for study in dataset["train"]["completion"])
    splits = [name for name in ("val", "test") if name in dataset]
    written = {name: write_reports(writer, dataset[name], name, path, settings) for name in splits}
    shuffled = write_reports(writer, dataset["test"], "test", path, settings, SHUFFLED)
    given, candidates = baselines.make(writer, dataset)
    writer.close()
    systems = all_systems(dataset, {MODEL: written, SHUFFLED: {"test": shuffled}}, given)
    return Reports(workspace, dataset, settings, writer, written, systems, candidates)


def _path(workspace: Workspace) -> Path:
    return workspace.folder("evaluation") / parallel.REPORTS


@dataclass(frozen=True)
class Results:
    """What `gather` has found. Each table is made when it is first asked for.

    judgements: of all judged systems, the model's first; left: systems that the time limit left unjudged
    kinds: by study, normal or abnormal; told_by: a sentence that says by what
    counted: as `findings.count` gives it; data_label: what the radiographs are
    """

    reports: Reports
    judging: JudgeSettings
    judgements: pd.DataFrame
    left: list[str]
    kinds: dict[str, str]
    told_by: str
    counted: pd.DataFrame
    data_label: str

    @property
    def folder(self) -> Path:
        """The folder of step 4."""
        return self.reports.workspace.folder("evaluation")

    @property
    def iu_xray(self) -> bool:
        """Whether the studies are IU X-Ray's own splits, whole: only then published scores stand beside."""
        return self.data_label == PUBLISHED_DATA and not self.reports.settings.studies

    @property
    def test(self) -> pd.DataFrame:
        """The judgements on the test studies."""
        return self.judgements[self.judgements["split"] == "test"]

    def of(self, *systems: str) -> pd.DataFrame:
        """The judgements on the test studies of those of `systems` that were judged."""
        return self.test[self.test["system"].isin(systems)]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """The means, see `statistics.summary`."""
        return summary(self.judgements)

    @property
    def means(self) -> str:
        """The table of all means, as Markdown."""
        return tables.table_markdown(self.summary, data_label=self.data_label, iu_xray=self.iu_xray)

    @cached_property
    def named(self) -> str:
        """The tables of findings that reports name, as Markdown."""
        return findings.tables(self.counted, data_label=self.data_label)

    @property
    def named_in_words(self) -> str:
        """What the reports name, a sentence a line, as Markdown."""
        return "\n".join(f"- {sentence}" for sentence in findings.sentences(self.counted))

    @cached_property
    def best(self) -> pd.DataFrame:
        """The model beside the best baseline, see `baselines.beside_best`."""
        return baselines.beside_best(self.judgements, self.kinds)

    @cached_property
    def words(self) -> pd.DataFrame:
        """The scores beside shared words on the test studies, and RadEval's if it is installed."""
        return tables.text_metrics(self.test, radeval=tables.RADEVAL)

    def finish(self, figures: Mapping[str, tuple[Path, str]]) -> Path:
        """Write the report, see `report.write_report`, and the manifest of step 4; the report's path."""
        workspace, folder = self.reports.workspace, self.folder
        settings = {"generation": self.reports.settings.model_dump(), "judge": self.judging.model_dump()}
        studies = {name: len(rows) for name, rows in self.reports.dataset.items()}
        before = {"studies": studies, "training": workspace.manifest("training")["settings"]}
        kinds = tables.by_kind(self.test, self.kinds)
        more = {"Normal and abnormal studies": (self.told_by, kinds), "Shared words": (OVERLAP, self.words)}
        last = {"settings": before | settings, "versions": versions()}
        last["commands"] = [COMMANDS.get(workspace.size, "the four notebooks, Run all")]
        samples = report.pick_samples(self.judgements)
        written = report.write_report(self, figures, more, samples, **last)
        kept = [folder / name for name in (JUDGED, PAIRS, TABLE, "report.md", "report.html")]
        pictures = [picture for picture, _ in figures.values()]
        inputs = [workspace.folder("dataset") / "data", workspace.folder("training") / "adapter"]
        outputs = [*files_of(_path(workspace)), *kept, *pictures]
        facts = {"settings": settings, "data_label": self.data_label, "not_judged": self.left}
        workspace.finish("evaluation", inputs=inputs, outputs=outputs, **facts)
        return written


def gather(
    reports: Reports, judging: JudgeSettings, done: Tables, asked: Collection, metadata: Path | None = None
) -> Results:
    """What the judgements come to; they, the pairs for other judges, and the tables are kept.

    done: by system, the judged rows; asked: the systems that were to be judged beside the model
    metadata: as `scores.normality` takes it
    """
    known = {name: references(rows) for name, rows in reports.dataset.items()}
    training = list(known.pop("train").values())
    described = {study: texts for name in reports.written for study, texts in known[name].items()}
    kinds, told_by = normality(described, metadata)
    judgements = pd.concat(done.values(), ignore_index=True)
    counted = findings.count([judgements], groups.frequent(training))
    left = [name for name in asked if name not in done]
    label = reports.workspace.manifest("training")["data_label"]
    results = Results(reports, judging, judgements, left, kinds, told_by, counted, label)
    with replacing_file(results.folder / JUDGED) as temporary:
        judgements.to_parquet(temporary, index=False)
    tables.write_pairs(judgements, results.folder / PAIRS)
    whole = [results.named, results.means, findings.others(results.counted)]
    write_text(results.folder / TABLE, "\n".join(whole))
    return results
