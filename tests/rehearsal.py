"""The dress rehearsal: the four notebooks at the T4's preset, offline, on models in published form.

    make rehearsal

A Hugging Face cache is filled with small random models under the real names: the base model, its copy in
4 bits, and the judge. The studies are phantoms in IU X-Ray's layout. Settings are those of preset `t4`;
only precision and optimizer, which need a GPU, and the number of steps are others. What the models write
and judge is nonsense, and the pages say so: this shows that everything loads, runs and is labelled, and
that reports are written after the plans of a findings probe.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "runs" / "rehearsal"
WITHOUT_A_GPU = {"precision": "fp32", "optimizer": "adamw_torch", "max_steps": 2}
# Train, val, test. Of the 60, ten or more each have four findings: enough to teach the probe.
STUDIES = (60, 4, 6)


def main() -> int:
    """Run the notebooks one after another, with a line each; 1 where one fails."""
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(
            HF_HOME=home, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", PYDEVD_DISABLE_FILE_VALIDATION="1"
        )
        import published_models

        published_models.fill_cache(Path(home), published_models.folder())
        return _run()


def _run() -> int:
    import shutil

    import papermill

    from tools.demo import run_notebook
    from utils.data import phantoms
    from utils.findings.plans import NORMAL
    from utils.run.workspace import STEPS

    shutil.rmtree(RUN, ignore_errors=True)
    data = phantoms.write(RUN / "as_downloaded", *STUDIES, seed=5)
    given = {"regions": {"DATA": str(data)}, "training": {"SETTINGS": WITHOUT_A_GPU}}
    for step, name in STEPS.items():
        start, html = time.monotonic(), RUN / f"{name}.html"
        parameters = {"PRESET": "t4", **given.get(step, {})}
        print(name, end=" ", flush=True)
        try:
            run_notebook(name, RUN, html, parameters)
        except papermill.PapermillExecutionError as error:
            print(f"failed: {error.ename}: {error.evalue}\nSee the page up to the failing cell: {html}")
            return 1
        print(f"{time.monotonic() - start:.0f} s")
    labels = [line for line in (RUN / "evaluation/default/table.md").read_text().splitlines() if "**" in line]
    print(*labels, sep="\n")
    if not ("phantom" in labels[0] and "not GREEN" in labels[0]):
        return 1
    written = (RUN / "evaluation/default/generations.jsonl").read_text().splitlines()
    plans = [json.loads(line)["plan"] for line in written]
    planned = sum(any(set(words) - {NORMAL} for words in plan.values()) for plan in plans)
    print(f"{planned} of {len(plans)} reports had findings to name")
    return 0 if planned else 1


if __name__ == "__main__":
    sys.exit(main())
