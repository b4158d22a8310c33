"""The four notebooks: their form, the demo as `make demo` runs it, and the same notebooks on real data."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import nbformat
import pandas as pd
import pytest
from conftest import ROOT

from tools import demo as demo_run
from tools.demo import as_page, run_notebook
from utils import scores
from utils.models.systems import BASE, MODEL, SHUFFLED
from utils.pages.opening import ABOUT
from utils.run.workspace import STEPS
from utils.scores.baselines import CONSTANT, FREQUENT, NEAREST
from utils.settings import DatasetSettings, JudgeSettings, Preset, SplitSettings, TrainingSettings

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
NOTEBOOKS = [ROOT / "notebooks" / f"{name}.ipynb" for name in STEPS.values()]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_is_valid_and_committed_without_outputs(notebook):
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in code(notebook))


def test_opens_on_a_t4(notebook):
    assert notebook.metadata["accelerator"] == "GPU"
    assert notebook.metadata["colab"]["gpuType"] == "T4"


def test_the_first_words_are_those_of_the_map():
    for (step, about), path in zip(ABOUT.items(), NOTEBOOKS, strict=True):
        title = nbformat.read(path, as_version=4).cells[0].source
        assert f"at full size on a T4: {about.t4}" in title
        assert about.needs in title and about.leaves in title, step


def test_cells_that_the_notebooks_share_are_the_same_in_all_four():
    opened, values = [], []
    for step, path in zip(STEPS, NOTEBOOKS, strict=True):
        why, form, what, set_up = nbformat.read(path, as_version=4).cells[1:5]
        assert f'.begin("{step}", WORKSPACE, PRESET, RUN)' in set_up.source
        opened.append((why.source, what.source, set_up.source.replace(f'"{step}"', "")))
        values.append(dict(re.findall(r"^(\w+) = (.*)$", form.source, re.M)))
    assert len(set(opened)) == 1
    for name in {name for found in values for name in found} - {"SETTINGS", "DATA"}:  # what they say differs
        assert len({found[name] for found in values if name in found}) == 1, name


@pytest.mark.parametrize(
    ("number", "cells", "words"), [("01", 30, 560), ("02", 24, 330), ("03", 24, 420), ("04", 39, 780)]
)
def test_a_notebook_is_read_in_a_few_minutes(number, cells, words):
    (path,) = (path for path in NOTEBOOKS if path.stem.startswith(number))
    shown = nbformat.read(path, as_version=4).cells
    prose = [len(cell.source.split()) for cell in shown if cell.cell_type == "markdown"]
    assert len(shown) <= cells and sum(prose) <= words


def test_says_why_before_every_cell(notebook):
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", cell.source


def test_cells_are_short_and_define_nothing(notebook):
    for cell in code(notebook):
        assert len(cell.source.splitlines()) <= 15, cell.source
        kinds = {type(node) for node in ast.walk(ast.parse(cell.source))}
        assert not kinds & {ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef}, cell.source


def test_the_parameters_come_first_and_each_is_used(notebook):
    cell, *others = code(notebook)
    names = set(re.findall(r"^(\w+) = ", cell.source, re.M))
    assert "parameters" in cell.metadata["tags"] and {"PRESET", "WORKSPACE", "RUN", "SETTINGS"} <= names
    read = {
        node.id for cell in others for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)
    }
    assert names <= read


# The knobs that a field of Colab's form sets, by the notebook's number and the field's name.
FIELDS = {
    "01": (SplitSettings, {"ENGINE": "engine", "MODEL": "model", "BASE_URL": "base_url"}),
    "02": (DatasetSettings, {"VIEWS": "views", "LONGEST_SIDE": "longest_side"}),
    "03": (
        TrainingSettings,
        {name.upper(): name for name in ("base", "image_tokens", "epochs", "learning_rate", "lora_rank")},
    ),
    "04": (JudgeSettings, {"JUDGE": "engine"}),
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_parameters_are_a_form_in_colab_with_the_choices_of_the_settings(path):
    cell = nbformat.read(path, as_version=4).cells[2]
    title, *lines = cell.source.splitlines()
    assert title.startswith("# @title ") and cell.metadata["cellView"] == "form"
    settings, names = FIELDS[path.stem[:2]]
    knobs = {"PRESET": Preset.model_fields["name"]}
    knobs |= {name: settings.model_fields[knob] for name, knob in names.items()}
    for line in lines:
        if line.startswith("# @markdown "):
            continue
        field = re.fullmatch(r"([A-Z_]+) = (\S+)  # @param ?(\[.*\])? ?(\{.*\})?", line)
        name, value, choices, options = field.groups()
        choices, options = json.loads(choices or "[]"), json.loads(options or "{}")
        if knob := knobs.pop(name, None):
            assert value == '""'  # any other would be over the preset
            offered = get_args(knob.annotation) or knob.examples
            assert choices == (["", *offered] if offered else [])
            assert options.get("allow-input", False) == bool(knob.examples)
        if not choices:
            assert options["type"] == ("raw" if name == "SETTINGS" else "string")
    assert not knobs


def test_a_page_folds_the_code_and_shows_what_came_out():
    shown = nbformat.v4.new_output("stream", text="what came out")
    cell = nbformat.v4.new_code_cell("what = 'was run'", outputs=[shown])
    page = as_page(nbformat.v4.new_notebook(cells=[cell]))
    body = page[page.index("<main") :]
    folded = "".join(re.findall(r"<details.*?</details>", body, re.DOTALL))
    assert "was run" in folded and "what came out" not in folded and "what came out" in body


def test_a_notebook_is_run_in_a_folder_of_any_name(tmp_path, monkeypatch):
    home, cell = tmp_path / "{x} [v2] 50%", nbformat.v4.new_code_cell("print('in', WORKSPACE)")
    (home / "notebooks").mkdir(parents=True)
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": KERNEL})
    nbformat.write(notebook, home / "notebooks" / "one.ipynb")
    monkeypatch.setattr(demo_run, "ROOT", home)
    run_notebook("one", home, home / "one.html", {})
    assert f"in {home}" in (home / "one.html").read_text() and len(list(home.iterdir())) == 2


def run_demo(workspace: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tools.demo", "--workspace", str(workspace), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("demo")
    done = run_demo(workspace)
    assert done.returncode == 0, done.stdout + done.stderr
    line = r"^\[\d/4\] \w+ \(estimate: \d+ s\) took \d+ s$"
    assert len(re.findall(line, done.stdout, re.MULTILINE)) == 4, done.stdout
    return workspace


@pytest.mark.slow
@pytest.mark.notebooks
class TestDemo:
    def test_leaves_everything_that_the_readme_promises(self, demo):
        expected = [
            *(f"{name}.html" for name in STEPS.values()),
            "regions/annotation_with_val.json",
            "regions/audit.csv",
            "regions/manifest.json",
            "dataset/README.md",
            "dataset/manifest.json",
            "training/default/adapter/adapter_model.safetensors",
            "training/default/loss.png",
            "training/default/manifest.json",
            *(
                f"evaluation/default/{name}"
                for name in (
                    "generations.jsonl",
                    "judgements.parquet",
                    "table.md",
                    "report.md",
                    "report.html",
                    "scores.png",
                    "pairs.jsonl",
                    "manifest.json",
                )
            ),
        ]
        assert [name for name in expected if not (demo / name).is_file()] == []

    def test_the_model_reads_its_pictures(self, demo):
        judgements = pd.read_parquet(demo / "evaluation/default/judgements.parquet")
        summary = scores.summary(judgements[judgements["split"] == "test"]).set_index(["system", "region"])
        model, constant, shuffled, base = (summary.loc[name] for name in (MODEL, CONSTANT, SHUFFLED, BASE))
        assert {FREQUENT, NEAREST} <= set(judgements["system"])
        assert (model["low"] > constant["high"]).sum() >= 3
        assert ((shuffled["mean"] - constant["mean"]) < 0.1).all()
        assert (model["low"] > base["high"]).all() and (base["n"] == shuffled["n"]).all()
        assert (model["empty"] <= 0.02 * model["n"]).all()

    def test_a_few_studies_and_the_model_alone_make_a_whole_report(self, demo, tmp_path):
        copy = shutil.copytree(demo, tmp_path / "run", ignore=shutil.ignore_patterns("data", "*.html"))
        shutil.copytree(demo / "dataset", copy / "dataset", dirs_exist_ok=True)  # whose shards lie in `data`
        name = STEPS["evaluation"]
        settings = {"judge": {"systems": "model"}, "generation": {"studies": 20, "shuffled": 0}}
        run_notebook(name, copy, copy / f"{name}.html", {"PRESET": "demo", "SETTINGS": settings})
        judgements = pd.read_parquet(copy / "evaluation/default/judgements.parquet")
        assert set(judgements["system"]) == {MODEL} and judgements["id"].nunique() == 40
        report = (copy / "evaluation/default/report.md").read_text()
        assert "n=20" in report and "best baseline" not in report

    def test_everything_is_labelled(self, demo):
        table = (demo / "evaluation/default/table.md").read_text()
        report = (demo / "evaluation/default/report.md").read_text()
        card = (demo / "dataset/README.md").read_text()
        assert "phantom" in table and "not GREEN" in table
        assert "phantom" in report and "not GREEN" in report and "ot for clinical use" in report
        assert "phantom" in card
        assert set(pd.read_parquet(demo / "evaluation/default/judgements.parquet")["judge"]) == {
            "offline judge (stand-in, not GREEN)"
        }

    def test_pages_show_no_error_and_no_warning(self, demo):
        for name in STEPS.values():
            page = (demo / f"{name}.html").read_text(encoding="utf-8")
            assert "Traceback" not in page, name
            assert "Warning" not in page, name
            assert "No description has been provided for this image" not in page, name

    def test_what_is_done_is_not_done_again(self, demo):
        before = {path: path.stat().st_mtime_ns for path in demo.rglob("*") if path.is_file()}
        done = run_demo(demo)
        assert done.stdout.count("was done already") == 4
        assert {path: path.stat().st_mtime_ns for path in demo.rglob("*") if path.is_file()} == before

    def test_a_changed_file_is_noticed(self, demo, tmp_path):
        copy = tmp_path / "demo"
        shutil.copytree(demo, copy)
        (copy / "regions" / "annotation_with_val.json").write_text("{}")
        failed = run_page("02_build_hf_dataset", copy)
        assert "has changed since" in failed.stdout + failed.stderr

    def test_the_lines_of_the_docs_compare_runs_and_read_recorded_judgements(
        self, demo, shared, tmp_path, monkeypatch, capsys
    ):
        text = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
        two_runs, recorded = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)[:2]
        for run in ("default", "longer"):  # a run is no better than itself
            shutil.copytree(demo / "evaluation/default", tmp_path / "runs/t4/evaluation" / run)
        shutil.copy(shared / "recorded/green_test.jsonl.gz", tmp_path)
        monkeypatch.chdir(tmp_path)
        exec(two_runs, {})
        shown = capsys.readouterr().out
        assert shown.count("| +0.00 [+0.00, +0.00] | 1.000 |") == 8 and "| longer |" in shown
        assert (tmp_path / "two_runs.png").stat().st_size > 10_000
        exec(recorded, {})
        shown = capsys.readouterr().out
        for number in ("0.704", "0.887", "0.657", "0.315", "590", "582", "461", "312"):
            assert number in shown


def run_page(
    name: str, workspace: Path, out: Path | None = None, **parameters
) -> subprocess.CompletedProcess:
    """Run one notebook with papermill, as its user would from a shell."""
    values = {"PRESET": "demo", "WORKSPACE": str(workspace), **parameters}
    flags = [
        part for key, value in values.items() for part in ("-r", key, value) if not isinstance(value, dict)
    ]
    flags += [
        part
        for key, value in values.items()
        if isinstance(value, dict)
        for part in ("-y", json.dumps({key: value}))
    ]
    command = [
        sys.executable,
        "-m",
        "papermill",
        "--no-progress-bar",
        str(ROOT / "notebooks" / f"{name}.ipynb"),
    ]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*command, str(out or os.devnull), *flags],
        cwd=ROOT / "notebooks",
        env=offline,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
class TestRealData:
    @pytest.fixture(scope="class")
    def real(self, shared, tmp_path_factory):  # without the real data these tests skip
        return {"workspace": tmp_path_factory.mktemp("real")}

    def test_01_splits_all_validation_findings(self, real, shared):
        done = run_page("01_region_split", DATA=str(shared / "iu_xray"), **real)
        assert done.returncode == 0, done.stderr
        annotation = json.loads((real["workspace"] / "regions/annotation_with_val.json").read_text())
        assert len(annotation["val"]) == 296
        assert all(any(study["report"].values()) for study in annotation["val"])
        audit = pd.read_csv(real["workspace"] / "regions/audit.csv")
        assert audit["ok"].all() and audit["id"].nunique() == 296

    def test_02_builds_the_studies_that_have_images_and_counts_the_others(self, real, tmp_path):
        page = tmp_path / "out.ipynb"
        done = run_page("02_build_hf_dataset", out=page, **real)
        assert done.returncode == 0, done.stderr
        assert "2,953 of 2,955 studies have no image" in page.read_text()

    def test_03_takes_real_steps_at_336_pixels(self, real, tmp_path):
        from tools import base_model

        base = tmp_path / "base"
        processor = base_model.new_processor(["lung: clear. heart: normal."], side=336)
        processor.save_pretrained(base)
        base_model.new_model(processor).save_pretrained(base)
        few = {"base": str(base), "max_steps": 2, "batch_size": 2, "evaluate_every": 8}
        done = run_page("03_qlora_finetune_T4", SETTINGS=few, **real)
        assert done.returncode == 0, done.stderr
        log = pd.read_csv(real["workspace"] / "training/default/log.csv")
        assert log["step"].max() == 2 and log["loss"].notna().any()


@pytest.mark.slow
def test_a_wrong_folder_is_one_clear_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    done = run_page("01_region_split", tmp_path / "run", DATA=str(tmp_path / "empty"))
    assert done.returncode != 0
    assert "has no annotation.json" in done.stderr
