"""`python -m utils.models ADAPTER IMAGE...`: the report of a trained adapter on a study of your own.

`python -m utils.models merge ADAPTER FOLDER`: see `anywhere.merge`.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from utils.data.studies import DataError
from utils.regions import NOT_FOR_CLINICAL_USE, REGIONS
from utils.run.workspace import StepError

UNSURE = 0.5  # words below this probability are listed under their region


def main(arguments: list[str] | None = None) -> None:
    """Print the report on the study whose views are named, or merge an adapter into its base model."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments[:1] == ["merge"]:
            merge(arguments[1:])
        else:
            read(arguments)
    except (DataError, StepError) as error:
        raise SystemExit(str(error)) from None


def merge(arguments: list[str]) -> None:
    """Merge an adapter into 16-bit weights."""
    parser = argparse.ArgumentParser(prog="python -m utils.models merge", description=merge.__doc__)
    parser.add_argument("adapter", type=Path, help="folder with the adapter of step 3")
    parser.add_argument("folder", type=Path, help="new folder for the merged weights")
    options = parser.parse_args(arguments)
    from . import anywhere

    anywhere.merge(options.adapter, options.folder)
    print(f"{options.folder} has the merged weights. AutoModelForImageTextToText loads them.")


def read(arguments: list[str]) -> None:
    """Print the report on one study. Nothing leaves the machine."""
    parser = argparse.ArgumentParser(prog="python -m utils.models", description=read.__doc__)
    parser.add_argument(
        "adapter", type=Path, help="folder of the adapter: <workspace>/training/<run>/adapter"
    )
    views = "views of one study, the frontal one first: DICOM, PNG or JPEG"
    parser.add_argument("image", type=Path, nargs="+", help=views)
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    options = parser.parse_args(arguments)
    # After the help, as torch takes seconds; and what is quickly seen to be wrong is said before it loads.
    from .loading import how_to_read
    from .study import open_views, open_writer, read_study, side_of

    views = open_views(options.image, side_of(how_to_read(options.adapter)))
    study = read_study(open_writer(options.adapter), views)
    print(as_json(study) if options.json else as_text(study, len(views)))


def as_json(study) -> str:
    """A `StudyReport` as JSON: report, additions, words, plan and findings; probabilities to four digits."""
    values = asdict(study)
    answer = {name: values[name] for name in ("report", "added", "plan", "views")}
    answer["findings"] = {name: round(seen, 4) for name, seen in study.findings.items()}
    answer["threshold"] = round(study.threshold, 4)
    answer["words"] = {
        region: [{"word": word.text, "probability": round(word.probability, 4)} for word in words]
        for region, words in study.words.items()
    }
    return json.dumps({**answer, "note": NOT_FOR_CLINICAL_USE}, indent=1, ensure_ascii=False)


def as_text(study, given: int) -> str:
    """A `StudyReport` as a page of plain text; `given` is how many views there were to read."""
    lines = []
    if given > study.views:
        lines += [f"Read: the first {study.views} of {given} views, as the adapter was taught.", ""]
    for region in REGIONS:
        texts = filter(None, (study.added.get(region), study.report.get(region)))
        lines.append(f"{region + ':':13}{' '.join(texts) or '(nothing written)'}")
        if region in study.added:
            lines.append(f"{'':13}added, as the probe sees it: {study.added[region]}")
        unsure = [word for word in study.words.get(region, ()) if word.probability < UNSURE]
        if unsure:
            listed = ", ".join(f"{word.text} {word.probability:.2f}" for word in unsure)
            lines.append(f"{'':13}least sure of: {listed}")
    if study.findings:
        lines += ["", f"findings that the probe sees (named from {study.threshold:.2f} on):"]
        named = {name for names in study.plan.values() for name in names}
        for name, seen in study.findings.items():
            bar = "#" * round(20 * seen)
            lines.append(f"  {name:28} {seen:.2f} {bar:20} {'named' if name in named else ''}".rstrip())
    return "\n".join([*lines, "", f"Words of less than {UNSURE:.0%} are listed. {NOT_FOR_CLINICAL_USE}"])


if __name__ == "__main__":
    main()
