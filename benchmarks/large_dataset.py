"""Step 2 on a large collection: two processes against one, and the peak memory against a small collection's.

    python benchmarks/large_dataset.py [--studies 20000] [--few 1000] [--timed 4000] [--repeats 3]
        [--distinct 500] [--keep FOLDER]

`--distinct` phantoms of 224 pixels are drawn; the other studies are hard links to their images under names
of their own, with their findings. Steps 3 and 4 then read the datasets as they do: the tokens of all training
studies, the columns of texts, and the radiographs of a few hundred. Memory is anonymous memory, of the
process and of those that it starts, all together: the pages of a mapped file belong to the system.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # one core per process
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from process_memory import SPAWN, peak_of  # noqa: E402

from utils.data import phantoms  # noqa: E402
from utils.run.disk import write_json  # noqa: E402

SIDE = 224
READ = 300  # studies whose radiographs are read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=20_000)
    parser.add_argument("--few", type=int, default=1_000, help="studies of the small collection")
    parser.add_argument("--timed", type=int, default=4_000, help="studies by which the ratio is measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--distinct", type=int, default=500, help="phantoms that are drawn")
    parser.add_argument("--keep", type=Path, help="folder for the phantoms, used again in the next run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="large_dataset_", dir=options.keep) as temporary:
        folder = Path(temporary)
        os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
        drawn = (options.keep or folder) / f"drawn_{options.distinct}"
        phantoms.write(drawn, options.distinct, 0, 0, seed=1, size=SIDE)
        for count in {options.few, options.studies, options.timed}:
            linked(drawn, folder / str(count), count)
        print(f"{options.distinct:,} distinct studies of {SIDE} px, the others are links to them")
        best: dict[int, float] = {}
        for processes in (1, 2) * options.repeats:
            _, took = built(folder, options.timed, processes)
            best[processes] = min(took, best.get(processes, took))
        print(
            f"two processes are {best[1] / best[2]:.2f} times as fast as one "
            f"({options.timed:,} studies, the fastest of {options.repeats} times each)"
        )
        peaks = {("step 2", count): built(folder, count, 2)[0] for count in (options.few, options.studies)}
        reading = "reading in steps 3 and 4"
        for count in (options.few, options.studies):
            peak, took = watched(read, folder, count, 2)
            peaks[reading, count] = peak
            shown = f"{took:6.1f} s, peak {peak / 2**20:,.0f} MiB"
            print(f"steps 3 and 4 read {count:6,} studies: {shown}", flush=True)
        for label in ("step 2", reading):
            more = (peaks[label, options.studies] - peaks[label, options.few]) / 2**20
            print(f"peak of {label}, {options.studies:,} studies less {options.few:,}: {more:+,.0f} MiB")


def built(folder: Path, count: int, processes: int) -> tuple[int, float]:
    """The peak and the seconds of one build, which is printed."""
    shutil.rmtree(folder / f"{count}_{processes}", ignore_errors=True)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    peak, took = watched(build, folder, count, processes)
    print(
        f"step 2, {count:6,} studies, processes: {processes}: {took:6.1f} s, "
        f"{count / took / processes:5.1f} studies per second and core, "
        f"peak {peak / 2**20:,.0f} MiB, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return peak, took


def linked(drawn: Path, folder: Path, count: int) -> None:
    """`count` studies in `folder` that share the images of `drawn`."""
    entries = json.loads((drawn / "annotation.json").read_bytes())["train"]
    train = []
    for n in range(count):
        entry = entries[n % len(entries)]
        train.append({**entry, "id": f"STUDY{n:06}"})
        (folder / "images" / f"STUDY{n:06}").mkdir(parents=True)
        for image in sorted((drawn / "images" / entry["id"]).iterdir()):
            (folder / "images" / f"STUDY{n:06}" / image.name).hardlink_to(image)
    write_json(folder / "annotation.json", {"train": train, "val": [], "test": []})


def watched(work, folder: Path, count: int, processes: int) -> tuple[int, float]:
    """The peak of anonymous memory and the seconds of `work` in a process of its own."""
    seconds = SPAWN.Value("d", 0)
    return peak_of(work, folder, count, processes, seconds), seconds.value


def build(folder: Path, count: int, processes: int, seconds) -> None:
    """What notebook 02 does."""
    from utils.data import hf_dataset, studies
    from utils.pages import dataset_browser
    from utils.settings import DatasetSettings

    splits = studies.load_studies(folder / str(count))
    target = folder / f"{count}_{processes}"
    start = time.perf_counter()
    dataset, skipped = hf_dataset.build(
        splits, DatasetSettings(), target, data_label=phantoms.WHAT, processes=processes, show=lambda *_: None
    )
    seconds.value = time.perf_counter() - start
    assert len(dataset["train"]) == count and skipped.empty
    hf_dataset.statistics(dataset)
    dataset_browser.DatasetBrowser(dataset, phantoms.WHAT)


def read(folder: Path, count: int, processes: int, seconds) -> None:
    """What notebooks 03 and 04 read of a dataset, without the model."""
    from utils.data import hf_dataset
    from utils.findings.plans import Words
    from utils.models.loading import load_processor
    from utils.scores import references
    from utils.settings import preset
    from utils.training import trainer

    settings = preset("demo").training
    start = time.perf_counter()
    dataset = hf_dataset.load(folder / f"{count}_{processes}")
    processor = load_processor(settings.base, settings.image_tokens)
    rows = trainer._columns(dataset["train"], settings, processor, Words((), {}))
    sampled = trainer.sample(dataset["train"], settings)
    references(dataset["train"])
    for number in range(min(READ, count)):
        assert rows[number]["images"][0].size == (SIDE, SIDE)
    assert sum(len(views) for views in sampled["images"]) >= len(sampled)
    seconds.value = time.perf_counter() - start


if __name__ == "__main__":
    main()
