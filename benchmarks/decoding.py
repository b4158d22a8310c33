"""Our decoder against the library's `generate`: seconds, forward passes, and whether the texts are equal.

    python benchmarks/decoding.py judge RECORDED
    python benchmarks/decoding.py reports runs/demo
    python benchmarks/decoding.py replay RECORDED [--tokenizer FOLDER]

Three ways, in turn and several times over, on one CPU thread and in the same number of rows: `generate` in
batches sorted by length, the decoder without drafts, and the decoder with them. Medians are printed with
the least and the most.

`judge`: SmolLM2-135M, a LLaMA, answers GREEN's questions as GREEN did. It computes every pass, and then the
recorded answer's next token is written in place of its own choice, so that lengths and drafts are those of
real answers. Its own choices are compared between the ways, token by token. The drafts have learnt half of
the recorded answers, of which none is asked, as in the middle of a long run.

`reports`: the demo's model and adapter write the reports on the validation and test studies, headings and
plans as in step 4; then the base model without the adapter, where drafts from training reports do not hold.

`replay`: no model. All recorded answers, each learnt as it ends, and the tokens that a pass would keep.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from os.path import commonprefix
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from judge_calls import Recorded, Row, answer, distinct, question, read, small_file, small_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, PreTrainedTokenizerBase

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils.data import hf_dataset  # noqa: E402
from utils.judge import write_completion  # noqa: E402
from utils.judge.green import MAX_NEW_TOKENS  # noqa: E402
from utils.models import writer as writing  # noqa: E402
from utils.models.decoding import Decoder, Drafts, Request  # noqa: E402
from utils.models.decoding.decoder import MOST_PROPOSED  # noqa: E402
from utils.models.headings import EveryRegion  # noqa: E402
from utils.models.systems import BASE, MODEL  # noqa: E402
from utils.settings import GenerationSettings  # noqa: E402

FORM = Row("", "", write_completion("", {}, {}, []))
Written = tuple[list[list[int]], int]  # texts by question, and forward passes, those over prompts included


class Run(NamedTuple):
    """One run of one way."""

    texts: list[list[int]]
    passes: int
    seconds: float


class Forced(LogitsProcessor):
    """One rule per row, as the decoder takes them, in the library's `generate`."""

    def __init__(self, rules: list, start: int, end: int):
        self.rules, self.start, self.end = rules, start, end

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        written, best = input_ids[:, self.start :].tolist(), scores.argmax(-1).tolist()
        chosen = [
            self.end if self.end in before else rule.choose(own)
            for before, rule, own in zip(written, self.rules, best, strict=True)
        ]
        return torch.full_like(scores, -torch.inf).scatter(1, torch.tensor(chosen)[:, None], 0.0)


def replay(rows: list[Row], tokenizer: PreTrainedTokenizerBase, most: int) -> tuple[int, int]:
    """Tokens and passes of all answers, with up to `most` tokens proposed a pass."""
    drafts, tokens, passes = Drafts(), 0, 0
    drafts.learn(answer(FORM, tokenizer))
    for row in rows:
        written, place = answer(row, tokenizer), 0
        while place < len(written):
            proposed = drafts.propose(written[:place], most)
            alike = zip(proposed, written[place:-1], strict=False)
            right = next((i for i, (one, two) in enumerate(alike) if one != two), len(proposed))
            place, passes = min(place + right + 1, len(written)), passes + 1
        tokens += len(written)
        drafts.learn(written)
    return tokens, passes


def in_batches(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def measure(name: str, ways: dict[str, Callable[[], Written]], runs: int) -> None:
    """Run `ways` in turn, `runs` times, and print each beside the first."""
    done: dict[str, list[Run]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, write in ways.items():
            began = time.perf_counter()
            with torch.inference_mode():
                texts, passes = write()
            done[way].append(Run(texts, passes, time.perf_counter() - began))
    first, *_ = done.values()
    print(f"{name}: {len(first[0].texts)} texts, {runs} runs")
    for way, results in done.items():
        seconds = [run.seconds for run in results]
        ratios = [plain.seconds / run.seconds for plain, run in zip(first, results, strict=True)]
        equal = min(sum(map(list.__eq__, first[0].texts, run.texts)) for run in results)
        print(
            f"  {way:14} {statistics.median(seconds):6.1f} s ({min(seconds):.1f} to {max(seconds):.1f}), "
            f"{statistics.median(ratios):.2f} times less ({min(ratios):.2f} to {max(ratios):.2f}); "
            f"{results[0].passes:,} passes, {first[0].passes / results[0].passes:.2f} times fewer; "
            f"{equal} of {len(first[0].texts)} texts equal",
            flush=True,
        )


def judge(path: Path, count: int, size: int, runs: int) -> None:
    """GREEN's questions, answered by the small LLaMA as GREEN did."""
    file, tokenizer = small_file(), small_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    rows, end = distinct(read(path)), tokenizer.eos_token_id
    learnt, others = rows[::2], rows[1::2]
    asked = others[:: len(others) // count][:count]
    asked.sort(key=lambda row: -len(question(row, tokenizer)))
    questions, answers = ([each(row, tokenizer) for row in asked] for each in (question, answer))
    start = commonprefix([question(Row(text, text, ""), tokenizer) for text in ("a", "B")])  # noqa: RUF071

    def generate() -> Written:
        own, passes = [], 0
        for batch in in_batches(count, size):
            longest = len(questions[batch[0]])
            gaps = [longest - len(questions[i]) for i in batch]
            rules = [Recorded(answers[i]) for i in batch]
            output = model.generate(
                torch.tensor([[end] * gap + questions[i] for gap, i in zip(gaps, batch, strict=True)]),
                attention_mask=torch.tensor([[0] * gap + [1] * (longest - gap) for gap in gaps]),
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                eos_token_id=end,
                pad_token_id=end,
                logits_processor=[Forced(rules, longest, end)],
            )
            passes += output.shape[1] - longest
            own += [rule.own for rule in rules]
        return own, passes

    def ours(most_proposed: int) -> Written:
        rules = [Recorded(tokens) for tokens in answers]
        decoder = Decoder(
            model, {end}, MAX_NEW_TOKENS, most_rows=size, start=start, most_proposed=most_proposed
        )
        for row in (FORM, *learnt) if most_proposed else ():
            decoder.drafts.learn(answer(row, tokenizer))
        pairs = zip(questions, rules, strict=True)
        dict(decoder.write([Request(prompt, rule=lambda rule=rule: rule) for prompt, rule in pairs]))
        return [rule.own for rule in rules], decoder.passes + decoder.prefills

    measure("judge", three_ways(generate, ours), runs)


def reports(run: Path, size: int, runs: int) -> None:
    """The reports of the demo's model, and those of its base model without the adapter."""
    dataset = hf_dataset.load(run / "dataset")
    writer = writing.Writer(run / "training" / "default" / "adapter")
    processor, most = writer.processor, GenerationSettings().max_new_tokens
    end, form = processor.tokenizer.eos_token_id, EveryRegion(processor)
    for name, system in (("val", MODEL), ("test", MODEL), ("test", BASE)):
        split = dataset[name].sort("views")
        studies = [views[: writer.reading["views"]] for views in split["images"]]
        plans = writer.plans(writer.features(split, name)) if system == MODEL else [{}] * len(studies)

        def generate(studies=studies, plans=plans) -> Written:
            texts, passes = [], 0
            for batch in in_batches(len(studies), size):
                asked = [writing._question(processor, len(studies[i])) for i in batch]
                how = {"padding": True, "padding_side": "left", "add_special_tokens": False}
                images = [studies[i] for i in batch]
                inputs = processor(images=images, text=asked, return_tensors="pt", **how)
                longest = inputs["input_ids"].shape[1]
                output = writer.model.generate(
                    **inputs,
                    max_new_tokens=most,
                    do_sample=False,
                    eos_token_id=end,
                    pad_token_id=processor.tokenizer.pad_token_id,
                    logits_processor=[Forced([form(plans[i]) for i in batch], longest, end)],
                )[:, longest:]
                passes += output.shape[1]
                texts += [row[: row.index(end) + 1] if end in row else row for row in output.tolist()]
            return texts, passes

        def ours(most_proposed: int, studies=studies, plans=plans) -> Written:
            writer.drafts, made = Drafts(), []
            if most_proposed:
                writer.learn(study[0]["content"] for study in dataset["train"]["completion"])

            def counted(*arguments, **options) -> Decoder:
                made.append(Decoder(*arguments, **options, most_proposed=most_proposed))
                return made[0]

            with mock.patch.object(writing, "Decoder", counted):
                tokens = writing.stream(writer.model, processor, studies, most, size, writer.drafts, plans)
                texts = dict(tokens)
            return [texts[i] for i in range(len(studies))], made[0].passes + made[0].prefills

        with writer.writing(system):
            measure(f"{name}, {system}", three_ways(generate, ours), runs)


def three_ways(generate: Callable[[], Written], ours: Callable[[int], Written]) -> dict:
    """The ways by name; `ours` takes how many tokens to propose at most."""
    return {"generate": generate, "without drafts": partial(ours, 0), "ours": partial(ours, MOST_PROPOSED)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["judge", "reports", "replay"])
    parser.add_argument("path", type=Path, help="recorded judgements, JSON lines, gzipped; or a run's folder")
    parser.add_argument("--questions", type=int, default=16, help="to the judge")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tokenizer", type=Path, help="for replay: a folder; SmolLM2's without it")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.what == "judge":
        judge(chosen.path, chosen.questions, chosen.at_once, chosen.runs)
    elif chosen.what == "reports":
        reports(chosen.path, chosen.at_once, chosen.runs)
    else:
        rows = distinct(read(chosen.path))
        tokenizer = AutoTokenizer.from_pretrained(chosen.tokenizer) if chosen.tokenizer else small_tokenizer()
        for most in (4, 8, 16):
            tokens, passes = replay(rows, tokenizer, most)
            print(f"up to {most} proposed: {tokens / passes:.2f} tokens per pass (n={len(rows)} answers)")


if __name__ == "__main__":
    main()
