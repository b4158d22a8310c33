"""Plans: what the heading of a region says that its text is to name.

A plan names the findings of the text, `lung (opacity): ...`. Where the text calls the region normal
without reserve, it says `normal`: "No acute bony abnormality" leaves open what is old, "Heart size is
normal" what shape it has, and "The lungs are clear" whether there is fluid, so none is a whole statement.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from utils.regions import REGIONS

from .groups import FREQUENT, GROUPS, Group, named
from .reader import STRUCTURES, names_present, read_findings

NORMAL = "normal"
ORGANS = {"lung": "lungs", "heart": "heart", "mediastinal": "mediastinum", "bone": "bones"}
MOSTLY = 0.5  # of a region's normal texts deny a finding, or a whole normal statement need not
Plan = dict[str, tuple[str, ...]]  # by region, the findings to name, or `normal`
SENTENCES = {group.name: group.sentence for group in GROUPS}


@dataclass(frozen=True)
class Words:
    """What headings may say."""

    groups: tuple[Group, ...]  # the findings
    denied: dict[str, frozenset[str]]  # by region in which they may say `normal`, what such a text denies

    def plan(self, study: dict[str, str]) -> Plan:
        """The plan that a study's own text follows, by region that it mentions."""
        return {region: self._of(text, region) for region, text in study.items()}

    def _of(self, text: str, region: str) -> tuple[str, ...]:
        known = named(text, region)
        names = tuple(group.name for group in self.groups if group.name in known)
        is_normal = not names and region in self.denied and is_whole(text, region, self.denied[region])
        return (NORMAL,) if is_normal else names


def words_of(studies: Sequence[dict[str, str]], groups: Iterable[Group]) -> Words:
    """What the headings of training studies may say; `studies` are their findings by region. A region's
    headings say `normal` where at least `groups.FREQUENT` of the studies have a text that does."""
    denied = {}
    for region in REGIONS:
        texts = [study[region] for study in studies if study.get(region)]
        normal = [text for text in texts if not names_present(text)]
        counts = Counter(name for text in normal for name in _denied(text))
        usual = frozenset(name for name, count in counts.items() if count >= MOSTLY * len(normal))
        if sum(is_whole(text, region, usual) for text in normal) >= max(1, FREQUENT * len(studies)):
            denied[region] = usual
    return Words(tuple(groups), denied)


def left_out(report: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """By region, a sentence for each finding that `plan` names and the text of `report` does not."""
    named_in = {region: {NORMAL, *named(report.get(region, ""), region)} for region in plan}
    missing = {region: [name for name in plan[region] if name not in named_in[region]] for region in plan}
    return {region: " ".join(SENTENCES[name] for name in names) for region, names in missing.items() if names}


def complete(report: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """`report` by region, with what it leaves out of `plan` put first: see `left_out`."""
    added = left_out(report, plan).items()
    return {**report, **{region: f"{text} {report.get(region, '')}".strip() for region, text in added}}


def is_whole(text: str, region: str, denied: frozenset[str]) -> bool:
    """Whether `text` calls its region's organ normal without reserve, and denies the findings `denied`."""
    organ, stated = ORGANS[region], read_findings(text)
    reserved = any(each.present or each.acute_only or each.unchanged_only or each.partly for each in stated)
    whole = any(organ in finding.names and not finding.attributes for finding in stated)
    return whole and not reserved and denied <= _denied(text)


def _denied(text: str) -> frozenset[str]:
    """The findings, not structures, that a text says are absent."""
    absent = (finding.names for finding in read_findings(text) if not finding.present)
    return frozenset().union(*absent) - STRUCTURES
