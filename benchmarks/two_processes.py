"""What a second process saves in step 4, writing and judging, and that it changes no report and no verdict.

    python benchmarks/two_processes.py [--studies N] [--repeats N]

The same phantoms by one process and by two that accelerate starts, in turn, one CPU thread each. The writer
is the demo's base model with an adapter that changes nothing. The judge is a small random LLaMA in the form
of the published one (made in `.venv-published`), so its verdicts mean nothing. Printed are seconds with
their ratios: of all, which starting Python and loading the model are part of; of the work alone, from the
first model that is loaded to the end of the last process; and of the busier process's CPU for that.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

COUNTS = (1, 2)
TRAINING = 40  # studies, of no weight here


def prepare(root: Path, studies: int):
    """A workspace whose steps 1 to 3 are done, with so many studies to test."""
    from peft import get_peft_model

    from utils import split
    from utils.data import hf_dataset, phantoms
    from utils.data.studies import load_studies, write_annotation
    from utils.models import loading
    from utils.run.disk import write_json
    from utils.run.workspace import open_workspace
    from utils.settings import DatasetSettings, preset
    from utils.training import run_probe

    workspace, training = open_workspace(root, "demo"), preset("demo").training
    data = phantoms.write(root / "data", TRAINING, 8, studies, seed=3)
    texts = {study.id: study.original_report for study in load_studies(data)["val"]}
    findings = dict(zip(texts, split.split_findings(list(texts.values())), strict=True))
    annotation = write_annotation(data / "annotation_with_val.json", data, findings)
    everyone, folder = load_studies(data, annotation), workspace.folder("dataset")
    dataset, _ = hf_dataset.build(everyone, DatasetSettings(), folder, data_label="phantoms")
    adapter = workspace.folder("training") / "adapter"
    model = loading.load_model(training.base, training.image_tokens, training.precision)
    get_peft_model(model, loading.lora_config(training)).save_pretrained(adapter)
    reading = {name: getattr(training, name) for name in ("base", "image_tokens", "precision", "views")}
    write_json(adapter / loading.READING, reading)
    run_probe(training, dataset, workspace.folder("training")).save(adapter / loading.PROBE)
    workspace.finish("training", settings={}, outputs=[adapter], data_label="phantoms")
    return workspace


def note(folder: Path, studies: int) -> None:
    """Settings: reports on so many studies of each split (0: all), judged are the model's alone."""
    from utils.run.disk import write_json
    from utils.scores import parallel
    from utils.settings import GenerationSettings, JudgeSettings

    generation = GenerationSettings(studies=studies, shuffled=0)
    settings = {"generation": generation, "judge": JudgeSettings(precision="fp16", systems="model")}
    write_json(folder / parallel.NOTED, {name: part.model_dump() for name, part in settings.items()})


def process(task: str, folder: Path, times: Path) -> None:
    """One of the processes, or the only one; notes in `times` when its model was loaded and when it ended."""
    from utils.judge.green import GreenEngine
    from utils.models import writer
    from utils.run import processes
    from utils.scores import parallel

    loaded = []

    def noting(load):
        def noted(*arguments):
            model = load(*arguments)
            loaded.append((time.time(), time.process_time()))
            return model

        return noted

    writer.load_adapter, GreenEngine.load = noting(writer.load_adapter), noting(GreenEngine.load)
    processes.join()
    getattr(parallel, task)(processes.workspace_of(folder, "evaluation"))
    wall, cpu = loaded[0]
    found = {"loaded": wall, "ended": time.time(), "cpu": time.process_time() - cpu}
    (times / f"{processes.rank()}.json").write_text(json.dumps(found))


def run(task: str, folder: Path, count: int) -> dict[str, float]:
    """Seconds of `task` on `count` processes."""
    from utils.run.processes import Processes

    with tempfile.TemporaryDirectory() as times:
        began = time.time()
        arguments = ["--process", task, folder, times]
        if count == 1:
            command = [sys.executable, "-m", "benchmarks.two_processes", *map(str, arguments)]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        else:
            with Processes(count, "benchmarks.two_processes", *arguments) as team:
                while team.running():
                    time.sleep(0.01)
        whole = time.time() - began
        found = [json.loads(path.read_text()) for path in Path(times).iterdir()]
    work = max(one["ended"] for one in found) - min(one["loaded"] for one in found)
    return {"in all": whole, "the work": work, "its CPU time": max(one["cpu"] for one in found)}


def files(task: str, folder: Path) -> list[Path]:
    """What the processes keep reports or verdicts in."""
    from utils.run.answers import files_of
    from utils.scores import parallel

    return files_of(folder / (parallel.REPORTS if task == "write" else parallel.ANSWERS))


def features(folder: Path) -> list[Path]:
    """The image features that the run has kept since training."""
    from utils.models.features import FOLDER

    return [*(folder.parents[1] / "training" / folder.name / FOLDER).iterdir()]


def kept(task: str, folder: Path) -> dict[tuple, str]:
    """The reports by study, or the judge's answers by question."""
    *key, text = ("split", "id", "text") if task == "write" else ("reference", "prediction", "completion")
    lines = [json.loads(line) for file in files(task, folder) for line in file.open(encoding="utf-8")]
    return {tuple(line[name] for name in key): line[text] for line in lines if text in line}


def compare(task: str, folder: Path, repeats: int) -> str:
    """`task` on one process and on two, in turn; a table of medians."""
    seconds, found, equal = {count: [] for count in COUNTS}, {}, []
    for _ in range(repeats):
        for count in COUNTS:
            for path in [*files(task, folder), *features(folder)]:
                path.unlink()
            seconds[count].append(run(task, folder, count))
            now = kept(task, folder)
            found = found or now
            equal.append(sum(now.get(key) == text for key, text in found.items()))
    lines = [f"{task}: {len(found):,}, of them the same on two processes {min(equal):,}; median of {repeats}"]
    for name in seconds[1][0]:
        one, two = (statistics.median(each[name] for each in seconds[count]) for count in COUNTS)
        lines.append(f"  seconds, {name:<14}{one:8.1f} and{two:7.1f}: ratio {two / one:.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000, help="to write reports on")
    parser.add_argument("--judged", type=int, default=64, help="of each split, whose reports are judged")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--process", nargs=3, type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.process:
        task, folder, times = chosen.process
        process(str(task), folder, times)
        return
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    with tempfile.TemporaryDirectory() as home:
        os.environ["HF_HOME"] = home
        import published_models

        published_models.fill_cache(Path(home), published_models.folder())
        folder = prepare(Path(home) / "run", chosen.studies).folder("evaluation")
        print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        for task, studies in (("write", 0), ("judge", chosen.judged)):
            note(folder, studies)
            print(compare(task, folder, chosen.repeats), flush=True)


if __name__ == "__main__":
    main()
