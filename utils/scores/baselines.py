"""Baselines, made of training studies alone: two reports that everyone gets, and one copied by looks.

The best constant and the most frequent sentences read no picture. The third
gives each study the findings of the training study that looks most like it:
how alike two studies look is the cosine of their image features, as the
fine-tuned model's own vision tower sees them. A model that scores no better
than this copies.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from math import isqrt

import numpy as np
import torch
from datasets import Dataset

from utils.models.writer import Writer
from utils.regions import REGIONS, mentioned
from utils.workspace import progress

from .means import SEED

CONSTANT = "best constant report"
FREQUENT = "most frequent sentences"
NEAREST = "nearest training study"
BATCH = 16  # studies at once


@torch.inference_mode()
def image_features(
    writer: Writer, studies: Dataset, name: str, show: Callable[..., Iterable] = progress
) -> np.ndarray:
    """The features of `studies`, called `name`: (studies, hidden), float32.

    Each is the mean over the patches of a view, then over the study's views,
    of the tower's layer before the last, which LLaVA reads, without a class token.
    """
    model = writer.model.get_base_model().model
    tower = model.vision_tower
    rows = []
    for start in show(range(0, len(studies), BATCH), f"{name}: image features"):
        views = studies[start : start + BATCH]["images"]
        flat = [view for study in views for view in study]
        pixels = writer.processor.image_processor(flat, return_tensors="pt")["pixel_values"]
        whole = pixels[:, 0] if pixels.ndim == 5 else pixels  # of a view's tiles the whole comes first
        whole = whole.to(writer.model.device, writer.model.dtype)
        patches = tower(whole, output_hidden_states=True).hidden_states[-2]
        patches = patches[:, patches.shape[1] - isqrt(patches.shape[1]) ** 2 :]  # without a class token
        means = patches.mean(dim=1).float().cpu().numpy()
        ends = np.cumsum([len(study) for study in views])
        rows += [part.mean(axis=0) for part in np.split(means, ends[:-1])]
    return np.array(rows)


def nearest_reports(
    features: np.ndarray, known: np.ndarray, findings: list[dict[str, str]]
) -> list[dict[str, str]]:
    """For each row of `features` a report by region, copied from the training studies.

    known: (training studies, hidden), features of the studies with `findings`,
        the regions that each mentions
    A region comes from the nearest training study that mentions it, so that a
    report may have several sources; a region that none mentions is left out.
    """
    centre = known.mean(axis=0)  # without it every pair of radiographs is alike
    alike = _unit(features - centre) @ _unit(known - centre).T
    reports: list[dict[str, str]] = [{} for _ in features]
    for region in REGIONS:
        mention = [i for i, study in enumerate(findings) if region in study]
        if mention:
            for report, best in zip(reports, alike[:, mention].argmax(axis=1), strict=True):
                report[region] = findings[mention[best]][region]
    return reports


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def most_frequent(train_findings: list[dict[str, str]], count: int = 1) -> dict[str, list[str]]:
    """The `count` most frequent training texts of each region, the most frequent first.

    Texts are the same when they differ only in case and white space; the most
    frequent spelling stands for them. A region that no study mentions is left out.
    """
    texts: dict[str, dict[str, Counter]] = {region: {} for region in REGIONS}
    for findings in train_findings:
        for region, text in mentioned(findings).items():
            texts[region].setdefault(text.casefold(), Counter())[text] += 1
    ranked = {r: sorted(same.values(), key=Counter.total, reverse=True)[:count] for r, same in texts.items()}
    return {r: [spellings.most_common(1)[0][0] for spellings in best] for r, best in ranked.items() if best}


def best_constant(
    train_findings: list[dict[str, str]],
    judge: Callable[[list[tuple[str, str]]], list],
    candidates: int = 20,
    sample: int = 200,
    seed: int = SEED,
) -> dict[str, str]:
    """For each region, the one text that scores best when given to every training study.

    `judge` takes (reference, prediction) pairs and gives objects with `.score`;
    it is asked once for each distinct pair, at most `candidates * sample` pairs
    a region. Candidates are the most frequent training texts; the references
    are a random `sample` of the training studies that mention the region. Of
    equal candidates the more frequent wins. Pass training findings only.
    """
    best = {}
    for region, texts in most_frequent(train_findings, candidates).items():
        references = [known[region] for known in map(mentioned, train_findings) if region in known]
        rng = np.random.default_rng(seed)
        drawn = Counter(rng.permutation(np.array(references, dtype=object))[:sample])
        verdicts = judge([(reference, text) for text in texts for reference in drawn])
        scores = np.array([verdict.score or 0.0 for verdict in verdicts]).reshape(len(texts), len(drawn))
        best[region] = texts[int(np.argmax(scores @ np.array(list(drawn.values()))))]
    return best
