"""The words of chest radiography that the offline judge knows.

General clinical vocabulary (after the Fleischner Society's glossary of terms for thoracic imaging, Hansell et
al., Radiology 2008), not sentences of any collection. Each pattern is a regular expression over lower-case
text, matched from the start of a word; of two that match there, the one listed first counts.
"""

import re

from .sentences import STOPWORDS, words


def _table(text: str) -> dict[str, str]:
    """Patterns by name: each has a line `name: pattern`, and its indented lines continue it."""
    entries = (entry.split(":", 1) for entry in re.sub(r"\n +", "", text.strip()).split("\n"))
    return {name: pattern.strip() for name, pattern in entries}


# Words that decide how others are meant, looked for before the findings, and those looked for after them.
FIRST = _table(r"""
break: but\b|however|although|though|except\w*|with\b(?! no\b)|there (?:is|are)|while|whereas
    |,(?= (?:and )?(?:the )?(?:heart|cardi\w+|lungs?|mediastin\w+|aorta|bones?)(?: \w+){0,2} (?:is|are)\b)
stable: stable|unchanged|no (?:significant |interval )*change\w*|similar
not excluded: (?:can ?not|not)(?: be)?(?: \w+)? exclude\w*
negation: no(?:ne)?\b|without|negative for|free (?:of|from)|clear of|absence of|lack of|not\b(?! remarkable)
    |nor\b|neither|resolution of|rather than
denied before: absent|(?:has |have )?(?:resolved|cleared)|excluded|ruled out
upper limit: (?:the )?upper (?:limits? )?(?:of )?normal(?: limits)?|upper limits?|borderline
""")
NEXT = _table(r"""
hedge: represent\w*|(?:consistent|compatible|in keeping) with|suggest\w*|may be|could be|versus|vs\b|likely
    |related to|due to|secondary to|reflect\w*|indicat\w+|possibl\w+|probabl\w+|or\b
normal: normal\w*|within (?:\w+ ){0,2}limits(?: of normal)?|limits of normal|unremarkable|clear\b|intact
    |midline|(?:well[ -]?|fully )?(?:expanded|aerated|inflated|ventilated)|preserved|sharp\w*|regular\b
    |in alignment|maintained|negative\b|straight|(?<=not )remarkable
""")

# Words that name an abnormality: present unless negated.
FINDINGS = _table(r"""
pericardial effusion: pericardial (?:effusions?|fluid)
effusion: (?:pleural )?(?:effusions?|fluid|collections?)|(?:hydro|ha?emo)thorax
    |blunt\w*(?: \w+){0,4} (?:costophrenic \w+|sulc\w+|angles?)|costophrenic(?: \w+){0,3} blunt\w*
pneumothorax: (?:hydro)?pneumothora\w+|pleural air(?: collections?)?
pneumomediastinum: pneumomediastinum
pneumoperitoneum: pneumoperitoneum|free (?:\w+ )?air|subdiaphragmatic air
consolidation: consolidat\w+|infiltrat\w+|(?:broncho)?pneumonia\w*
    |(?:air ?space|alveolar)(?: \w+)? (?:diseases?|opaci\w+|process\w*|infiltrat\w+|consolidat\w+|densit\w+)
granuloma: (?:calcified )?(?:\w+ )?granulom\w+|calcified (?:\w+ ){0,2}(?:nodul\w+|nodes?|densit\w+)
    |histoplasm\w+
bone lesion: (?:lytic|blastic|sclerotic|destructive|bone|bony|osseous)(?: \w+)? (?:lesions?|destruction)
    |sclerosis|erosions?
nodule: (?:micro)?nodul\w+(?: (?:densit\w+|opaci\w+))?|mass(?:es)?\b|lesions?|tumou?rs?|neoplas\w+|metasta\w+
    |cavit\w+
pleural thickening: pleural (?:\w+ )?(?:thicken\w+|plaques?|calcif\w+)|apical (?:cap\w*|thickening)
atelectasis: (?:sub)?atelecta\w+|(?:lobar |lung )?collaps\w+|volume loss|loss of volume
scarring: scar(?:s|red|ring)?\b|fibro\w+|bronchiectas\w+
opacity: opaci\w+|densit\w+|shadow(?:s|ing)?\b|haz(?:e|y|iness)\b
hyperinflation: hyper-?(?:inflat|expan|lucen|aerat)\w*|emphysem\w+|copd|chronic obstructive(?: \w+){0,3}
    |air trapping|bull(?:a|ae|ous)\b|flatten\w+ (?:of )?(?:the )?(?:hemi)?diaphragm\w*
    |(?:hemi)?diaphragm\w* (?:\w+ )?flatten\w+
hypoinflation: hypo-?(?:inflat|ventilat|aerat|expan)\w*
    |(?:low|lower|small|decreased|reduced|diminished|shallow) (?:lung volumes?|inspirat\w+|inflation)
    |lung volumes? (?:\w+ ){0,3}(?:low|small|decreased|reduced|diminished)
interstitial markings: interstiti\w+(?: \w+)?|reticul\w+|peribronchial \w+|bronch\w+ (?:wall )?thickening
    |bronchitic\w*|kerley\w*
vascular crowding: (?:broncho)?(?:vascular )?crowd\w+
edema: o?edema\w*|(?:vascular |venous |pulmonary )*congest\w+|cephali[sz]ation|(?:vascular )?engorge\w+
    |heart failure|chf\b|(?:pulmonary |venous )+hypertension
cardiomegaly: cardiomegaly|cardiac enlargement|enlargement of the (?:heart|cardi\w+)|heart enlargement
    |(?:ventricular|atrial) (?:enlarge\w+|hypertrophy)
adenopathy: (?:lymph)?adenopath\w+|enlarged (?:lymph )?nodes?
hiatal hernia: (?:hiatal |hiatus |diaphragmatic )?hernia\w*
aneurysm: aneurysm\w*
sternotomy: (?:median )?sternotom\w+(?: wires?)?|sternal wires?|cabg|bypass
surgical material: (?:surgical |metallic )?clips?\b|sutur\w+|surgical \w+
    |post ?-?(?:operative|surgical)(?: \w+)?|\w*ectomy|fusion|vertebroplasty
pacemaker: pacemakers?|pacer|defibrillator|icd\b|(?:pacing |ventricular )?leads?\b|pulse generator
    |\w*stimulator
line: (?:central |venous |picc |dialysis )*catheters?|(?<!pleural )(?<!clavicular )lines?\b
    |(?:central |venous |picc |dialysis )+lines?\b|picc|port ?-?a ?-?cath|(?:chest )?ports?\b|mediports?
tube: (?:endotracheal |nasogastric |chest |tracheostomy |enteric )*tubes?|tracheostomy|drains?\b
implant: prosthe\w+|valves?(?: replacement)?\b|stents?|screws?|hardware|arthroplasty|plates?\b|rods?\b
    |fixation|anchors?\b|foreign bod\w+|bullet|shrapnel
vertebral deformity: (?:compression|wedge|vertebral)(?: \w+)? (?:deformit\w+|fractur\w+)|wedging
    |loss of (?:\w+ )?height|height loss|compression|vertebra\w* (?:\w+ ){0,2}collapse
fracture: fractur\w+|broken|(?:sub|dis)?luxat\w+|dislocat\w+
bone deformity: deform\w+|cortical (?:\w+ )?(?:irregularit\w+|disruption|defect)
degenerative change:
    (?:osteo)?degenerat\w+(?: (?:(?:disc|disk|joint)(?: space)? (?:disease|narrow\w+)|change\w*))?
    |(?:syndesm|oste)ophyt\w+|spondyl\w+|spur\w*
    |(?:disc|disk|joint) (?:space )?(?:disease|narrow\w+|loss|height)|(?:osteo)?arthr(?:iti|osi|opath)\w+
    |hypertrophic(?: \w+)?|dish\b|senescent(?: \w+)?
    |end ?-?plate (?:\w+ )?(?:change\w*|sclero\w+|irregular\w+)
scoliosis: (?:kypho|dextro|levo)?-?(?:scolio\w+|curv\w+|convex\w+)|(?:spinal |abnormal )curv\w+
kyphosis: (?:hyper)?kypho\w+
osteopenia: osteop(?:eni|oro)\w+|demineral\w+|bone loss
subcutaneous air: subcutaneous (?:emphysema|air|gas)
calcification: calcif\w+|atheroscl\w+
""")

# Words that name a structure, which the words around it call normal or not.
STRUCTURES = _table(r"""
heart and mediastinum: cardio ?-?(?:mediastin\w+|pulmonary silhouette)|(?:heart|cardiac) and mediastin\w+
heart: heart\w*|cardiac|cardio(?!pulm)\w*
mediastinum: (?:superior )?mediastin\w+
aorta: aort\w+|great vessels?|arch\b
hila: (?:bi)?hil(?:a|ar|um|us)\b|infrahilar|suprahilar|paratracheal|subcarinal
vasculature: (?:pulmonary )?(?:vascul\w+|vessels?|arter\w+)|bronchovascular
trachea: trache\w+|airways?
diaphragm: (?:hemi)?diaphragm\w*
costophrenic angles: costophrenic(?: \w+)?|cp angles?|sulc\w+
pleura: pleura\w*(?: spaces?)?
spine: (?:\w-)?spin(?:e|al)\b|vertebra\w*|thoracolumbar
bones: bon(?:e|es|y)\b|osseo?us|skelet\w+|ribs?\b|clavic\w+|humer\w+|shoulders?|acromioclavicular|scapula\w*
    |sternum
soft tissues: soft tissues?
lungs: lungs?\b|pulmonary|cardiopulmonary|parenchym\w+|lobes?\b
""")

# Words that describe a structure as abnormal, and the finding that makes of it.
DESCRIBED = _table(r"""
large: enlarg\w*|large\w*|increase\w*|big\b|dilat\w+|promin\w+|widen\w*|wide\b|full(?:ness)?\b|accentuat\w+
tortuous: tortuo\w+|ectati\w+|ectasia|unfold\w+|uncoil\w+|elongat\w+
raised: elevat\w+|eventrat\w+|raised
displaced: deviat\w+|shift\w*|displac\w+
""")
BECOMES = {
    ("heart", "large"): "cardiomegaly",
    ("heart and mediastinum", "large"): "cardiomegaly",
    ("mediastinum", "large"): "wide mediastinum",
    ("aorta", "large"): "aneurysm",
    ("hila", "large"): "enlarged hila",
    ("vasculature", "large"): "edema",
    ("aorta", "tortuous"): "tortuous aorta",
    ("diaphragm", "raised"): "raised diaphragm",
    ("trachea", "displaced"): "shifted mediastinum",
    ("mediastinum", "displaced"): "shifted mediastinum",
    ("aorta", "calcification"): "aortic calcification",
    ("spine", "fracture"): "vertebral deformity",
}

# Denying one of these is the same statement as calling the structure normal.
OPPOSITE = {"cardiomegaly": "heart", "wide mediastinum": "mediastinum", "enlarged hila": "hila"}

# A normal reference statement on the left is also met by a candidate's denial on the right.
SAID_AS = {
    "heart and mediastinum": {"heart", "mediastinum"},
    "heart": {"heart and mediastinum"},
    "mediastinum": {"heart and mediastinum"},
    "lungs": {"consolidation", "opacity"},
    "pleura": {"effusion", "pneumothorax", "costophrenic angles"},
    "costophrenic angles": {"effusion", "pleura"},
    "effusion": {"costophrenic angles", "pleura"},
    "consolidation": {"opacity"},
    "opacity": {"consolidation"},
    "bones": {"fracture", "spine"},
    "fracture": {"bones"},
    "spine": {"bones", "scoliosis"},
    "scoliosis": {"bones", "spine"},
    "bone lesion": {"bones"},
    "bone deformity": {"bones"},
    "degenerative change": {"bones", "spine"},
}
# What "no acute bony abnormality" does not rule out.
SEEN_LONG_AFTER = frozenset({"fracture", "scoliosis", "degenerative change"})

# Findings that readers use for one another.
KIN = {
    "opacity": {"consolidation", "atelectasis", "scarring", "nodule"},
    "atelectasis": {"scarring"},
    "granuloma": {"nodule", "calcification"},
    "edema": {"interstitial markings"},
    "fracture": {"bone deformity", "vertebral deformity"},
    "vertebral deformity": {"bone deformity"},
    "sternotomy": {"surgical material"},
    "aneurysm": {"tortuous aorta"},
}

ABNORMALITY = r"abnormal\w*|findings?|disease\w*|process\w*|injur\w+|patholog\w+|change\w*|trauma\w*"
ACUTE = r"acute|injur\w+|trauma\w*"
# "The remaining lung is clear" does not call the lungs clear.
REST = r"remain(?:der|ing)|otherwise|elsewhere|rest of"
OVERALL = r"normal\w*|within (?:\w+ ){0,2}limits|negative"
COMPARISON = (
    r"(?:un)?changed|stable|interval\w*|prior|previous\w*|comparison|compared|persist\w+|new(?:ly)?\b"
    r"|improv\w+|worse\w*|progress\w+|again|remains?\b|recurren\w+|resol(?:v|u)\w+"
)
# Without a structure, these normal words still say of which they speak; the second of whatever the region is.
# GREEN takes "Normal." so, but does not let a bare "Unremarkable." meet anything.
MEANT = {
    "lungs": r"clear\b|(?:well[ -]?|fully )?(?:expanded|aerated|inflated|ventilated)",
    "bones": r"intact",
}

SIDES = {
    "both": r"bilateral\w*|both\b|biapical|bibas\w+",
    "left": r"left\b|lingul\w+|levo\w+",
    "right": r"right\b|middle lobe|dextro\w+",
}
PLACES = {
    "upper": r"upper|ap(?:ex|ical|ices)\b|biapical|suprahilar",
    "middle": r"mid(?:dle)?\b|lingul\w+|perihilar",
    "lower": r"lower|bas(?:e|es|al|ilar)\b|bibas\w+|retrocardiac|infrahilar",
    "thoracic": r"(?:mid ?)?thoracic|t-spine|dorsal",
    "lumbar": r"lumbar|l-spine",
    "cervical": r"cervical|c-spine",
    "shoulder": r"shoulders?|acromioclavicular|glenohumeral",
    "spine": r"spin(?:e|al)\b",
}
# What a report names of a structure that it calls normal: two together are more than one.
TOGETHER = "together"
ATTRIBUTES = {
    frozenset({"size", "contour", TOGETHER}): r"size and contours?\b|contours? and size",
    frozenset({"size"}): r"size",
    frozenset({"contour"}): r"contours?\b",
    frozenset({"intact"}): r"intact",
}
# Places that exclude one another.
SCALES = ({"upper", "middle", "lower"}, {"shoulder", "thoracic", "lumbar", "cervical"}, {"shoulder", "spine"})
# Places that go without saying on a chest radiograph, of its spine and its aorta.
IMPLIED = frozenset({"spine", "thoracic"})
SEVERITIES = {
    "mild": r"mild\w*|minim\w+|small|tiny|trace|slight\w*|subtle|borderline|minor|early|few",
    "moderate": r"moderate\w*|medium",
    "severe": r"severe\w*|large|marked\w*|massive\w*|extensive|gross\b|advanced|substantial\w*",
}
GRADES = ("", *SEVERITIES)

# Words by which two statements of which the reader knows nothing else are not compared.
_LITTLE = """appear appearance appearing appears demonstrated evidence identified noted seen shown visualized
which within"""
SAY_LITTLE = STOPWORDS.union(words(_LITTLE))
