"""What a phantom shows, and how its report says it, in the project's own words of ordinary radiology.

A finding is only named where it is drawn, and only denied where it is not. Sides are the patient's.
"""

import re
from dataclasses import dataclass, fields

import numpy as np

from utils.regions import ALL, REGIONS

SIDES = ("left", "right")
PLACES = ("left upper", "left lower", "right upper", "right lower")
# Every attribute with its values, the normal one first.
VALUES = {
    "heart": ("normal", "mildly enlarged", "markedly enlarged"),
    "effusion": ("none", "left", "right", "bilateral"),
    "opacity": ("none", *PLACES),
    "nodule": ("none", *PLACES),
    "pneumothorax": ("none", *SIDES),
    "mediastinum": ("normal", "widened"),
    "aorta": ("normal", "tortuous"),
    "fracture": ("none", *SIDES),
    "scoliosis": ("none", *SIDES),  # the side of the convexity
    "spine": ("normal", "degenerative"),
    "clips": ("none", "right"),
}
OF_REGION = {
    "lung": ("effusion", "opacity", "nodule", "pneumothorax"),
    "heart": ("heart",),
    "mediastinal": ("mediastinum", "aorta"),
    "bone": ("fracture", "scoliosis", "spine"),
    "others": ("clips",),
}

# Of each region, and of these with a second finding: so that neither a report of nothing but normal
# findings nor that of a study that looks alike is right for long.
ABNORMAL, SECOND = 0.50, 0.40
CLIPS = 0.10
# How often IU X-Ray's 2,069 training studies leave a region out; others is this demo's own choice.
LEFT_OUT = {"lung": 2 / 2069, "heart": 47 / 2069, "mediastinal": 452 / 2069, "bone": 894 / 2069}
OTHERS_LEFT_OUT = 0.85  # unless there are clips to name


@dataclass(frozen=True)
class Attributes:
    """What is drawn, each field one of `VALUES`; the default is a normal study."""

    heart: str = "normal"
    effusion: str = "none"
    opacity: str = "none"
    nodule: str = "none"
    pneumothorax: str = "none"
    mediastinum: str = "normal"
    aorta: str = "normal"
    fracture: str = "none"
    scoliosis: str = "none"
    spine: str = "normal"
    clips: str = "none"

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if value not in VALUES[field.name]:
                raise ValueError(f"{field.name} is one of {', '.join(VALUES[field.name])}, not {value!r}")

    def found(self, name: str) -> bool:
        """Whether the attribute `name` is anything but normal."""
        return getattr(self, name) != VALUES[name][0]

    def abnormal(self, region: str) -> bool:
        """Whether any attribute of `region` is anything but normal."""
        return any(self.found(name) for name in OF_REGION[region])


def sample(rng: np.random.Generator) -> Attributes:
    """Attributes by chance. What would hide another is drawn anew, which leaves 0.46 for the lung."""
    while True:
        drawn: dict[str, str] = {}
        for region in REGIONS:
            if rng.random() < ABNORMAL:
                names = OF_REGION[region]
                count = 2 if region in ("lung", "bone") and rng.random() < SECOND else 1
                for name in rng.choice(names, size=count, replace=False):
                    drawn[str(name)] = str(rng.choice(VALUES[name][1:]))
        if rng.random() < CLIPS:
            drawn["clips"] = "right"
        attributes = Attributes(**drawn)
        if not _hidden(attributes):
            return attributes


def _hidden(attributes: Attributes) -> bool:
    """Whether one lung finding would hide another: two in one place, or any beside a pneumothorax."""
    fluid = SIDES if attributes.effusion == "bilateral" else (attributes.effusion,)
    places = [p for p in (attributes.opacity, attributes.nodule) if p != "none"]
    places += [f"{side} lower" for side in fluid if side != "none"]
    sides = [spot.split()[0] for spot in places]
    return len(set(places)) < len(places) or attributes.pneumothorax in sides


# What reports say, the wordings of one finding with / between them.
NORMAL = {
    "lung": """The lungs are clear. / Both lungs are clear. / The lungs are clear bilaterally.
        / Lungs are clear and well expanded.""",
    "heart": """Heart size is normal. / The heart is normal in size. / The heart is not enlarged.
        / Normal heart size. / Heart size is within normal limits. / No cardiomegaly.""",
    "mediastinal": """The mediastinum is unremarkable. / Normal mediastinal contour.
        / Mediastinal contours are within normal limits. / The mediastinum is normal.""",
    "bone": """No acute bony abnormality. / The bones are intact. / Osseous structures are unremarkable.
        / No acute osseous abnormality. / The bony thorax is intact.""",
    "others": "No free air under the diaphragm. / The upper abdomen is unremarkable.",
}
PLEURA = ("effusion", "pneumothorax")
# What a report denies where it is not there: the pleura always, the rest beside other findings only.
DENIES = {"lung": ("opacity", *PLEURA), "mediastinal": ("mediastinum", "aorta"), "bone": ("fracture",)}
DENIED = {
    "opacity": "No focal airspace opacity. / No focal consolidation. / There is no focal airspace disease.",
    "effusion": "No pleural effusion. / There is no pleural effusion. / No pleural effusion is seen.",
    "pneumothorax": "No pneumothorax. / There is no pneumothorax. / No pneumothorax is seen.",
    PLEURA: """No pleural effusion or pneumothorax. / There is no pneumothorax or pleural effusion.
        / Negative for pneumothorax or pleural effusion. / No pleural effusion. No pneumothorax.
        / No pneumothorax. Costophrenic angles are sharp.""",
    "mediastinum": "The mediastinum is not widened. / Mediastinal width is normal.",
    "aorta": "The aorta is normal in caliber. / The aortic contour is normal.",
    "fracture": "No rib fracture. / No displaced rib fracture is seen.",
}
SAID = {
    ("heart", "mildly enlarged"): """The heart is mildly enlarged. / Mild cardiomegaly.
        / Heart size is mildly enlarged. / There is mild cardiomegaly.""",
    ("heart", "markedly enlarged"): """The heart is markedly enlarged. / Marked cardiomegaly.
        / There is severe cardiomegaly. / Heart size is severely enlarged.""",
    "effusion": """There is a {side} pleural effusion. / {Side} pleural effusion.
        / {Side} pleural effusion with blunting of the costophrenic angle.
        / The {side} costophrenic angle is blunted by a pleural effusion.""",
    ("effusion", "bilateral"): """There are bilateral pleural effusions. / Bilateral pleural effusions.
        / Bilateral pleural effusions with blunting of both costophrenic angles.""",
    "opacity": """There is an airspace opacity in the {side} {zone} lung zone.
        / {Side} {zone} lobe consolidation. / {Side} {zone} lobe airspace opacity.
        / There is focal consolidation in the {side} {zone} lobe.""",
    "nodule": """There is a nodule in the {side} {zone} lobe. / {Side} {zone} lobe pulmonary nodule.
        / A rounded nodule is seen in the {side} {zone} lung zone.""",
    "pneumothorax": """There is a {side} pneumothorax. / {Side} pneumothorax.
        / {Side}-sided pneumothorax with a visible pleural line.""",
    "mediastinum": """The mediastinum is widened. / Widened superior mediastinum.
        / There is widening of the mediastinum.""",
    "aorta": "The aorta is tortuous. / Tortuous thoracic aorta. / There is a tortuous aorta.",
    "fracture": """There is a displaced {side} rib fracture. / Displaced {side} rib fracture.
        / A {side} rib is fractured. / {Side} rib fracture with a step-off.""",
    "scoliosis": """There is scoliosis of the thoracic spine, convex to the {side}.
        / Thoracic scoliosis convex to the {side}. / {Side}-convex thoracic scoliosis.""",
    "spine": """There are degenerative changes of the spine.
        / Degenerative changes of the thoracic spine with osteophytes.
        / Thoracic spondylosis with osteophytes. / Multilevel osteophytes of the spine.""",
    "clips": """Surgical clips in the right upper abdomen.
        / There are surgical clips in the right upper quadrant.""",
}
# One sentence for two regions, as the original reports have them; true where both are normal.
SHARED = (
    "The heart and mediastinum are normal.",
    "Heart size and mediastinal contour are within normal limits.",
    "The heart and mediastinal contours are unremarkable.",
)


def report(attributes: Attributes, rng: np.random.Generator) -> dict[str, str]:
    """What a report says by region, keys `regions.ALL`; a region that is left out has an empty text."""
    left_out = {**LEFT_OUT, "others": 0.0 if attributes.abnormal("others") else OTHERS_LEFT_OUT}
    texts = {region: " ".join(_sentences(attributes, region, rng)) for region in ALL}
    return {region: "" if rng.random() < left_out[region] else texts[region] for region in ALL}


def original(attributes: Attributes, texts: dict[str, str], rng: np.random.Generator) -> str:
    """`texts` by region as one: regions in any order, heart and mediastinum at times in one sentence."""
    texts = {region: text for region, text in texts.items() if text}
    normal = not attributes.abnormal("heart") and not attributes.abnormal("mediastinal")
    if normal and {"heart", "mediastinal"} <= set(texts) and rng.random() < 0.5:
        del texts["mediastinal"]
        texts["heart"] = SHARED[rng.integers(len(SHARED))]
    return " ".join(texts[region] for region in rng.permutation(list(texts)))


def concise(text: str) -> str:
    """`text` as a split by region has it, the quiz's own too: no sentence begins with "The" or "There is"."""
    leading = r"(?:^|(?<=\. ))(?:The|There (?:is|are)) (\w)"
    return re.sub(leading, lambda match: match[1].upper(), text)


def _sentences(attributes: Attributes, region: str, rng: np.random.Generator) -> list[str]:
    """What there is in `region`, or that it is normal, then what is not; chance only picks the words."""
    abnormal = [name for name in OF_REGION[region] if attributes.found(name)]
    present = [wordings(name, getattr(attributes, name)) for name in abnormal]
    absent = [
        name for name in DENIES.get(region, ()) if name not in abnormal and (abnormal or name in PLEURA)
    ]
    if set(PLEURA) <= set(absent):
        absent = [name for name in absent if name not in PLEURA] + [PLEURA]
    choices = [*(present or [_parts(NORMAL[region])]), *(_parts(DENIED[name]) for name in absent)]
    return [sentences[rng.integers(len(sentences))] for sentences in choices]


def wordings(name: str, value: str) -> list[str]:
    """All sentences that say that the attribute `name` is `value`, its side and zone put in."""
    side, _, zone = value.partition(" ")
    text = SAID.get((name, value)) or SAID[name]
    return _parts(text.format(side=side, Side=side.capitalize(), zone=zone))


def _parts(text: str) -> list[str]:
    return re.split(r"\s*/\s*", text)
