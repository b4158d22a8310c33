"""Where studies come from: a folder or an archive of one's own, or IU X-Ray from the places that publish it.

Each step is announced in a sentence. Only the quiz's archive has findings by region; the images of the others
serve where the annotation is given. Many small files never lie on Drive: one archive is kept there, and
unpacked to the local disk.
"""

import re
import shutil
import tempfile
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain, islice, product
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from utils.run.disk import file_hash, read_note, replacing_file, write_json
from utils.run.machine import DRIVE, secret
from utils.run.progress import counter
from utils.run.workspace import Workspace

from . import layouts, own, phantoms
from .downloads import drive_address, extract, fetch
from .own import ORIGIN
from .studies import ANNOTATIONS, DAMAGED, IU_XRAY_STUDIES, SPLITS, DataError, find_annotation, load_studies

PROJECT = Path(__file__).resolve().parents[2]
ON_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
KEPT = "archives"  # in the run's folder, where that is on Drive
MOST_WITHOUT_VIEWS = 0.01  # share of the studies; a source that lacks more is not taken
NO_CHECKSUM = "no checksum is published: sha256 is that of the first download, and tells later changes only"


class Source(NamedTuple):
    """A place that publishes IU X-Ray; `lacks` says what it has not, where it cannot serve alone."""

    name: str
    url: str
    archive: str
    lacks: str = ""


SOURCES = (  # in the order in which they are asked
    Source("the quiz's archive", drive_address("1cdcsyJtW8G2YYptlujzDAU-fMXOpew5K"), "iu_xray_quiz.archive"),
    Source(
        "R2Gen's archive",
        drive_address("1c0BXEuDy8Cmm2jfN0YYGkQxFZd2ZIoLg"),
        "iu_xray_r2gen.archive",
        "findings by region, and views beyond two a study",
    ),
    # By the collection's list of projections the first of a study's files is frontal in 2,618 of 2,955.
    Source(
        "Open-i's archive",
        "https://openi.nlm.nih.gov/imgs/collections/NLMCXR_png.tgz",
        "iu_xray_openi.archive",
        "findings by region, splits, and the order of views (the first is frontal in 89 % of studies)",
    ),
)


def open_data(named: str | Path, kind: str, workspace: Workspace) -> Path:
    """The folder of studies, in the layout that `studies` describes, brought there where it is not yet.

    named: what the field `DATA` holds: a folder or an archive of one's own, a table (see `layouts`) or a
        folder with one, a dataset on the Hub, or an annotation (.json), the quiz's or R2Gen's, to which only
        the images are fetched; a relative path is looked for in the working folder, then in the project's
    kind: what is used without it: "iu_xray", which is downloaded, or "phantoms", which are drawn

    Raises DataError, with what to do, where no source has the studies.
    """
    named, path = _path_of(named)
    if not named and kind == "phantoms":
        return phantoms.write(workspace.data, **phantoms.DEMO_SET, progress=counter("drawing phantoms"))
    if not named:
        return _iu_xray(workspace)
    if layout := layouts.recognise(path):
        if path.suffix == ".json" and (content := layouts.in_the_quizs_form(layout)):
            print(*layout.notes, sep="\n")
            target = workspace.data.parent / "own" / "R2Gen" / ANNOTATIONS[0]
            return _iu_xray(workspace, write_json(target, content))
        return _own_table(layout, workspace, sha256=file_hash(layout.table))
    if path.is_dir():
        find_annotation(path)
        print(f"Studies from your own folder {path}.")
        return path
    if not path.exists() and ON_HUB.fullmatch(named):
        return _from_hub(named, workspace)
    if not path.is_file():
        choice = "a folder, table, archive, annotation or dataset of the Hub"
        raise DataError(f"{path} is not there: name {choice} in DATA.")
    return _iu_xray(workspace, path) if path.suffix == ".json" else _own_archive(path, workspace)


def _path_of(named: str | Path) -> tuple[str, Path]:
    """What `DATA` names, and its path."""
    path = Path(named).expanduser()
    return str(named), PROJECT / path if not path.exists() and (PROJECT / path).exists() else path


def beside(named: str, workspace: Workspace, name: str) -> Path | None:
    """The file `name` beside what is named, in its unpacked archive, or among the downloads; else None."""
    named, path = _path_of(given(named, workspace))
    folders = [path if path.is_dir() else path.parent, _unpacked(path, workspace)] if named else []
    return next((folder / name for folder in (*folders, workspace.data) if (folder / name).is_file()), None)


def given(named: str, workspace: Workspace) -> str:
    """What a later notebook's field `DATA` holds, or where it is empty what that of step 1 held."""
    return named or (workspace.manifest("regions") or {}).get("data", "")


def origin(folder: Path) -> dict:
    """Where the studies of `folder` came from, for a manifest: the source, its archive and what was found."""
    return read_note(folder / ORIGIN) or {"source": f"the folder {folder.name}"}


def _own_table(layout: layouts.Layout, workspace: Workspace, **source: object) -> Path:
    """The studies of the user's table; a table that changed is read anew, its images stay where they are."""
    print(*layout.notes, sep="\n")
    target = workspace.data.parent / "own" / layout.name
    return own.write(layout, target, {"source": layout.name, **source})


def _from_hub(name: str, workspace: Workspace) -> Path:
    """The studies of a dataset on the Hub, brought to the local disk once."""
    from . import hub  # here, as datasets takes seconds to import

    data = workspace.data.parent / "own" / name.replace("/", "--")
    if (data / ORIGIN).is_file():
        print(f"Studies of {name}, brought from the Hub earlier to {data}: delete that folder to read anew.")
        return data
    layout, revision = hub.recognise(name, workspace.data.parent / "hub", secret("HF_TOKEN"))
    return _own_table(layout, workspace, revision=revision)


def _unpacked(archive: Path, workspace: Workspace) -> Path:
    return workspace.data.parent / "unpacked" / archive.name.split(".")[0]


def _own_archive(archive: Path, workspace: Workspace) -> Path:
    """The studies of the user's archive, unpacked to the local disk once."""
    target = _unpacked(archive, workspace)
    if not _occupied(target):
        print(f"Unpacking your archive {archive} to {target}.")
        unpack(archive, target, {"source": "an archive of one's own", **_identity(archive)})
    elif origin(target).get("bytes") != archive.stat().st_size:
        other = f"other studies than {archive}"
        raise DataError(f"{target} holds {other}: delete that folder, or rename the archive.")
    else:
        print(f"Studies from your archive {archive}, unpacked earlier to {target}.")
    if layout := layouts.recognise(target):
        return _own_table(layout, workspace, **{**origin(target), "source": layout.name})
    return target


def _iu_xray(workspace: Workspace, annotation: Path | None = None) -> Path:
    """IU X-Ray: what an earlier call brought, else from the first source that has it."""
    target, keep = workspace.data, workspace.root / KEPT if workspace.root.is_relative_to(DRIVE) else None
    if annotation:
        load_studies(annotation.parent, annotation)  # its faults show before the download
    if _occupied(target):
        if annotation and find_annotation(target).read_bytes() != annotation.read_bytes():
            other = f"studies with another annotation than {annotation}"
            raise DataError(f"{target} holds {other}: delete that folder.")
        _check(target, target, annotation, iu_xray=True)
        print(f"Studies that are here already, in {target}.")
        return target
    kept = [source for source in SOURCES if keep and (keep / source.archive).is_file()]
    for bring, source in (*product([_from_kept], kept), *product([_from_web], SOURCES)):
        try:
            if source.lacks and not annotation:
                serves = "it serves where DATA names the quiz's annotation"
                raise DataError(f"{source.name} lacks {source.lacks}: {serves}.")
            return bring(source, target, keep, annotation)
        except DataError as error:
            print(error)
    raise DataError(
        "No source gave IU X-Ray; what each said stands above. Run this cell again later, or download "
        f"{SOURCES[0].name} in a browser from {SOURCES[0].url} and name the file in DATA."
    )


def _from_kept(source: Source, target: Path, keep: Path, annotation: Path | None) -> Path:
    """The studies from an archive that an earlier session kept."""
    archive = keep / source.archive
    print(f"Unpacking {source.name}, kept in {archive}, to {target}.")
    facts = read_note(Path(f"{archive}.json"))
    if facts.get("sha256") != file_hash(archive):
        raise DataError(f"{archive} has changed since it was saved; skipping it.")
    return unpack(archive, target, facts, annotation, iu_xray=True)


def _from_web(source: Source, target: Path, keep: Path | None, annotation: Path | None) -> Path:
    """The studies from an archive that is downloaded, and kept where there is a place for it."""
    print(f"Downloading {source.name}{f', which lacks {source.lacks}' if source.lacks else ''}.")
    archive = fetch(source.url, target.with_name(source.archive), source.name)
    try:
        facts = {"source": source.name, "url": source.url, **_identity(archive), "checksum": NO_CHECKSUM}
        unpack(archive, target, facts, annotation, iu_xray=True)
        if keep:
            _keep(archive, keep, facts)
    finally:
        archive.unlink()  # unpacked, or of no use
    return target


def _keep(archive: Path, keep: Path, facts: dict) -> None:
    """A copy of an archive for later sessions, with a note of its hash."""
    copy = keep / archive.name
    try:
        with replacing_file(copy) as part:
            shutil.copyfile(archive, part)
        write_json(Path(f"{copy}.json"), facts)
        print(f"The archive is kept in {copy}: the next session unpacks it from there.")
    except OSError as error:  # such as a Drive that is full
        print(f"The archive could not be kept in {keep} ({error}): the next session downloads it again.")


def unpack(
    archive: Path, target: Path, facts: dict, annotation: Path | None = None, *, iu_xray: bool = False
) -> Path:
    """Unpack an archive of studies so that `target` becomes their folder, with `facts` noted in it.

    `annotation` takes the place of the archive's own. Raises DataError, and leaves nothing, where there are
    no studies, `target` is not empty or, with `iu_xray`, studies or views are missing.
    """
    if _occupied(target):
        danger = "is already there and would be overwritten"
        raise DataError(f"{target} {danger}: move it or name another folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
        inside = Path(temporary, "archive")
        extract(archive, inside)
        try:
            folder = _with_annotation(inside, annotation) if annotation else _folder_of_annotation(inside)
            known = not iu_xray and layouts.recognise(folder)  # what it holds is counted when it is read
            counts = {} if known else _check(folder, archive, annotation, iu_xray)
        except DataError as error:  # name what is there to stay
            raise DataError(str(error).replace(str(inside), str(archive))) from None
        for terms in islice(inside.rglob(layouts.INDIANA[0]), 1):  # the studies' MeSH terms stay beside them
            terms.replace(folder / terms.name)
        write_json(folder / ORIGIN, {**facts, **counts})
        folder.replace(target)
    return target


def _folder_of_annotation(inside: Path) -> Path:
    annotations = [path for name in ANNOTATIONS for path in inside.rglob(name)]
    if not (annotations := annotations or list(inside.rglob(layouts.INDIANA[0]))):
        raise DataError(f"{inside} holds no {' or '.join(ANNOTATIONS)}: it is no archive of studies.")
    return min(annotations, key=lambda path: len(path.parts)).parent


def _with_annotation(inside: Path, annotation: Path) -> Path:
    """A folder of `annotation` with the images of an unpacked archive, in either of the two layouts."""
    folder = inside / "with_annotation"
    folder.mkdir()
    shutil.copyfile(annotation, folder / ANNOTATIONS[0])
    if by_study := [path for path in inside.rglob("images") if path.is_dir()]:
        min(by_study, key=lambda path: len(path.parts)).replace(folder / "images")
        return folder
    views = defaultdict(list)  # by the collection's number of an examination: CXR<number>_IM-<nnnn>-<view>
    for path in sorted(inside.rglob("CXR*_IM-*.png")):
        views[path.stem.partition("_IM-")[0]].append(path)
    for study in chain(*load_studies(folder).values()):
        (folder / "images" / study.id).mkdir(parents=True)
        for number, path in enumerate(views[study.id.partition("_IM-")[0]]):
            path.replace(folder / "images" / study.id / f"{number}.png")
    return folder


def _check(folder: Path, where: Path, annotation: Path | None, iu_xray: bool) -> dict:
    """Counts studies, views and studies without a view, and says so; raises DataError as `unpack` says."""
    studies = load_studies(folder)
    counts = {split: len(group) for split, group in studies.items()}
    if iu_xray and not annotation and counts != IU_XRAY_STUDIES:
        numbers = ("/".join(f"{number[split]:,}" for split in SPLITS) for number in (counts, IU_XRAY_STUDIES))
        counted = " where IU X-Ray has ".join(numbers)
        raise DataError(f"{where} has {counted} studies ({'/'.join(SPLITS)}): move it away.")
    readable = {study.id: sum(map(_is_readable, study.images)) for study in chain(*studies.values())}
    views, without = sum(readable.values()), [study for study, number in readable.items() if not number]
    if not views:
        raise DataError(f"{where} has no images/<id>/0.png beside its annotation that can be read.")
    missing = f"{len(without):,} of {len(readable):,} studies"
    if iu_xray and len(without) > MOST_WITHOUT_VIEWS * len(readable):
        raise DataError(f"{where} has no view that can be read of {missing}, such as {without[0]}.")
    gaps = f"{missing}, such as {without[0]}, have none" if without else "every study has one or more"
    print(f"{views:,} views can be opened; {gaps}.")
    return {"studies": counts, "views": views, "studies_without_view": len(without)}


def _is_readable(view: Path) -> bool:
    """Whether the head of an image can be read; its pixels are read when the dataset is built."""
    with suppress(*DAMAGED), Image.open(view):
        return True
    return False


def _identity(archive: Path) -> dict:
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    size = archive.stat().st_size
    return {"archive": archive.name, "bytes": size, "sha256": file_hash(archive), "first_seen": moment}


def _occupied(target: Path) -> bool:
    return any(target.iterdir()) if target.is_dir() else target.exists()
