"""Step 4 planned and kept to: who is judged in which order, what it costs, and when time is up.

Nothing here was measured on a GPU. As it runs, the measured rate takes the place of the plan's. `python -m
utils.scores.plan` prints the tables in docs; `--card L4 --gpus 2` asks for other cards.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pandas as pd

from utils.judge import Engine, open_questions
from utils.judge.green import ANSWER_TOKENS
from utils.models.bases import Shape, find
from utils.models.decoding.decoder import CACHE_SHARE, MOST_PROPOSED, MOST_ROWS, PREFILL_TOKENS, STEP
from utils.models.systems import BASE, MODEL, SHUFFLED
from utils.regions import tidy
from utils.run.machine import CARDS, T4, Card, asked_cards, cards_in_words
from utils.run.progress import counter, duration
from utils.run.workspace import StepError
from utils.settings import GenerationSettings, JudgeSettings, TrainingSettings
from utils.training import plan as training
from utils.training import sizes, speeds
from utils.training.speeds import Hours

from .judging import Tables, judged
from .tables import grid

# Shares of a card's peak, fast, likely, slow (a T4's is 65e12); and tokens kept a pass.
PEAK_SHARES = (27 / 65, 16 / 65, 10 / 65)
KEPT = (5.5, 5.5, 4.5)
QUESTION, LONGEST, START, ANSWER = 590, 652, 283, 250  # tokens, see `judge_seconds`
REPORT = 62  # tokens of a training report of IU X-Ray; its longest 5 % have more than 101
LOOK = "look at the test radiographs once"
_TEXT = {"layers": 32, "hidden": 4096, "intermediate": 11008, "heads": 32, "kv_heads": 32, "head_dim": 128}
_NO_TOWER = dict.fromkeys(("vision_layers", "vision_hidden", "vision_intermediate", "patches"), 0)
JUDGE = Shape(**_TEXT, vocabulary=32000, **_NO_TOWER)  # LLaMA 2 7B


@dataclass(frozen=True)
class Item:
    """One line of the plan: what is done, how often, and how many hours that takes."""

    name: str
    count: int
    hours: Hours


def _weights(shape: Shape) -> int:
    """Weights that a token meets: the linear maps of all layers, and the output head."""
    return shape.layers * sum(i * o for i, o in shape.linears) + shape.hidden * shape.vocabulary


def rows_at_once(shape: Shape, slots: int, card: Card = T4) -> int:
    """Texts of `slots` tokens in all whose keys and values fit beside the 4-bit model on `card`."""
    embedded = shape.hidden * shape.vocabulary
    model = (_weights(shape) - embedded) * speeds.NF4_BYTES
    model += 2 * (2 * embedded + speeds.vision_weights(shape))
    free = (card.memory - sizes.HEADROOM) * sizes.GIB - model
    text = 2 * 2 * shape.layers * shape.kv_heads * shape.head_dim * slots
    return max(int(CACHE_SHARE * free / text), 1)


def _slots(tokens: int) -> int:
    """The tokens that are made room for: those, a draft, and what rounds it up."""
    return -(-(tokens + MOST_PROPOSED + 1) // STEP) * STEP


def _seconds(shape: Shape, read: int, written: int, rows: int, rate: float, kept: float, card: Card) -> float:
    """Seconds a text: reading `read` tokens, writing `written`, with `rows` texts in each pass.

    A pass unpacks the weights once, and computes 2 operations a weight for the last token and the
    draft of each row. Attention's own operations are under 3 % of that at these lengths.
    """
    a_token, unpacking = 2 * _weights(shape) / rate, speeds.unpacking(_weights(shape), "fp16", card)
    a_pass = unpacking + rows * (1 + MOST_PROPOSED) * a_token
    return read * (a_token + unpacking / PREFILL_TOKENS) + written / kept * a_pass / rows


def judge_seconds(card: Card = T4) -> Hours:
    """Seconds a question of the 7B judge in 4 bits on `card`, of known speed: fast, likely, slow.

    Where the figures come from:

    - tokens of a question (mean 590, longest 652, of them 283 that all questions start with) and of an answer
      (250; 95 % have at most 372): 916 recorded questions and answers of GREEN, by the tokenizer of Mistral,
      which is nearly LLaMA's;
    - tokens kept a pass, 8 proposed: 5.5 when those answers are replayed (`benchmarks/decoding.py replay`);
      verdicts on other models' reports, which are not published with this project, kept 0.81 times as many in
      an earlier replay, hence 4.5;
    - rates: 27e12 is what the product of two half-precision matrices of 8,192 x 8,192 was timed at on a T4
      (0.04 s, ILGPU.Algorithms, pull request 90), 10e12 the likely rate of training (`training.plan`), where
      more than products is done; 16e12 lies between, a quarter of the peak;
    - bandwidth, and the same shares of other cards' peaks: as in `training.plan`.
    """
    rows = min(rows_at_once(JUDGE, _slots(LONGEST + ANSWER_TOKENS), card), MOST_ROWS)
    how = [(share * card.peak_16, kept) for share, kept in zip(PEAK_SHARES, KEPT, strict=True)]
    return tuple(_seconds(JUDGE, QUESTION - START, ANSWER, rows, rate, kept, card) for rate, kept in how)


def report_seconds(reading: dict, prompt: int, at_once: int, card: Card = T4, untaught: int = 0) -> Hours:
    """Seconds a report on `card`, of known speed: fast, likely, slow.

    reading: how the adapter reads a study, as `loading.how_to_read` gives it
    prompt: tokens of a study's views and its question
    at_once: studies written together at most; 0: as many as fit
    untaught: the most tokens of a report, where the model was taught none, as the base model: it may use
        them all, and no draft from training reports holds; 0: the model was taught

    Counted are the prompt, the vision tower and the passes; reports are taken to be as long as training's.
    What share of a draft holds is known only once a model is trained: 2 tokens a pass are taken for fast and
    likely, none for slow.
    """
    shape = find(reading["base"]).shape
    rates = [share * card.peak_16 for share in PEAK_SHARES]
    if reading["precision"] == "fp32":
        rates = speeds.rates(card, "fp32")[::-1]
    slots, kept = _slots(prompt + (untaught or 2 * REPORT)), (1, 1, 1) if untaught else (2, 2, 1)
    rows = min(rows_at_once(shape, slots, card), at_once or MOST_ROWS)
    tower = 2 * speeds.vision_weights(shape) * shape.patches * reading["views"]
    how, passes = (shape, prompt, untaught or REPORT, rows), zip(rates, kept, strict=True)
    return tuple(_seconds(*how, rate, tokens, card) + tower / rate for rate, tokens in passes)


def questions(systems: Tables, engine: Engine, **how) -> dict[str, int]:
    """How many questions each of `systems` adds, in their order, beyond those before it and those answered.

    systems: by name, the rows to judge; how: `cache`, `identical_without_asking` as `judge_pairs` takes them
    """
    pairs = {}
    for name, rows in systems.items():
        rows = rows[rows["reference"] != ""]
        pairs[name] = list(zip(rows["reference"].map(tidy), rows["prediction"].map(tidy), strict=True))
    left, counts = set(open_questions(chain.from_iterable(pairs.values()), engine, **how)), {}
    for name, asked in pairs.items():
        counts[name] = len(left.intersection(asked))
        left.difference_update(asked)
    return counts


def looked_at(reading: dict, studies: int, card: Card = T4, gpus: int = 1) -> Item:
    """The vision tower's look at the test studies before reports are written, shared by `gpus` cards."""
    how = (reading[name] for name in ("precision", "views"))
    hours = speeds.looking_hours(find(reading["base"]).shape, *how, studies, card)
    return Item(LOOK, studies, tuple(each / gpus for each in hours))


def planned(name: str, count: int, each: Hours, gpus: int = 1) -> Item:
    """The plan of work of `count` pieces that take `each` seconds, shared by `gpus`."""
    return Item(name, count, tuple(count * seconds / 3600 / gpus for seconds in each))


def total(items: list[Item]) -> Item:
    """All items as one."""
    hours = tuple(sum(parts) for parts in zip(*(item.hours for item in items), strict=True))
    return Item("all", sum(item.count for item in items), hours or (0, 0, 0))


def chosen(systems: Tables, choice: str) -> Tables:
    """Those of `systems` that the setting `systems` of the judge names."""
    names = {"model": [MODEL], "model and shuffled": [MODEL, SHUFFLED], "all": list(systems)}[choice]
    return {name: rows for name, rows in systems.items() if name in names}


class TimeUp(Exception):
    """The time limit came in the middle of a system's questions."""


def in_turn(
    engine: Engine, settings: JudgeSettings, cache: Path, *, say: Callable = print, bar: Callable = counter
) -> Callable[[Tables], Tables]:
    """What judges one system after another, and gives the judged rows of those that were finished, by name.

    Every answer is kept in `cache`, and the next call goes on. The hours of `settings` begin now; when they
    are over no answer more is waited for. It says, after each system, how long it took and, when time is up,
    what is left.
    """
    until = time.monotonic() + 3600 * settings.hours if settings.hours else math.inf
    how = {"engine": engine, "cache": cache, "identical_without_asking": settings.identical_without_asking}

    def judge(systems: Tables) -> Tables:
        done: Tables = {}
        for name, rows in systems.items():
            began, show, asked = time.monotonic(), bar(f"judging: {name}"), [0, 0]

            def count(answered: int, total: int, show=show, asked=asked) -> None:
                show(answered, total)
                asked[:] = answered, total
                if time.monotonic() > until and answered < total:  # not after the last one
                    raise TimeUp

            try:
                done[name] = judged(rows, progress=count, **how)
            except TimeUp:
                left = ", ".join(other for other in systems if other not in done)
                so_far = f"{asked[0]:,} of {asked[1]:,} questions into {name}"
                mend = f"Run all cells again to judge what is left: {left}."
                say(f"Time is up, {so_far}. Every answer is saved. {mend}")
                break
            seconds = time.monotonic() - began
            if asked[1] and seconds > 2:
                each = seconds / asked[1]
                say(f"{name}: {asked[1]:,} questions in {duration(seconds)}, {each:.2f} s each.")
        return done

    return judge


def all_or_stop(done: Tables, name: str) -> pd.DataFrame:
    """The judged rows of the system `name`. Raises StepError if the time limit came first."""
    if name not in done:
        raise StepError(f"The time limit came before the {name} was judged: run all cells again to go on.")
    return done[name]


def iu_xray(card: Card = T4, gpus: int = 1) -> list[Item]:
    """The plan of step 4 on IU X-Ray with the preset `t4`.

    The counts of questions are those of one run's reports; a run's own are shown in notebook 04. That of
    the probe's sentences, which stand where it names a finding, is of a run of the preset `small`: elsewhere
    the constant stands, which is asked already. Of the base model every region that the references of its
    studies mention counts as a question. A prompt is taken as two views at the default budget and 78 tokens
    of text, as in `training.plan`.
    """
    reading = {"base": "llava-v1.6-mistral-7b", "precision": "fp16", "views": 2}
    counts = {
        "fine-tuned model": 1424,
        BASE: 494,
        "images shuffled": 470,
        "best constant report": 1281,
        "most frequent sentences": 1281,
        "nearest training study": 2268,
        "probe's own sentences": 298,
    }
    default = GenerationSettings()
    image = training.IU_XRAY_VIEWS[TrainingSettings().image_tokens]
    how, written = (reading, image + 78, default.batch_size, card), 296 + 590 + default.shuffled
    untaught = report_seconds(*how, untaught=default.max_new_tokens)
    return [
        looked_at(reading, 590, card, gpus),
        planned("write reports", written, report_seconds(*how), gpus),
        planned(f"write reports: {BASE}", default.shuffled, untaught, gpus),
        *(planned(f"judge: {name}", count, judge_seconds(card), gpus) for name, count in counts.items()),
    ]


def table(card: Card = T4, gpus: int = 1) -> str:
    """The table of docs/evaluation.md: what step 4 costs on IU X-Ray, by the plan."""
    items = iu_xray(card, gpus)
    head = ["step 4 on IU X-Ray", "studies, reports or questions", f"hours on {cards_in_words(card, gpus)}"]
    rows = [(item.name, f"{item.count:,}", speeds.between(item.hours)) for item in items]
    return grid(head, [*rows, ("all", "", speeds.between(total(items).hours))])


def cards_table() -> str:
    """The table of docs/training.md: IU X-Ray on other cards, by the plans of steps 3 and 4."""
    trained = ["train, `pooled`: hours", "train, `tiles`: batch x accumulation, memory, hours"]
    rows = []
    for card, gpus in [(T4, 1), (T4, 2), *((card, 1) for card in CARDS[1:])]:
        *_, pooled = training.iu_xray("pooled", card, gpus)
        settings, _, size, tiles = training.iu_xray("tiles", card, gpus)
        batch = f"{settings.batch_size} x {settings.accumulation}, {size:.1f} GiB"
        hours = speeds.between(pooled), f"{batch}, {speeds.between(tiles)}"
        step_4 = speeds.between(total(iu_xray(card, gpus)).hours)
        rows.append((f"{gpus} x {card.name}", settings.precision, *hours, step_4))
    return grid(["GPUs", "precision", *trained, "step 4: hours"], rows)


if __name__ == "__main__":
    print(table(*asked_cards(__doc__)), cards_table(), sep="\n\n")
