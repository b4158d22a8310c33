"""What full batches and verified drafts save over plain greedy decoding, and that they change no text.

    python benchmarks/drafts.py recorded.jsonl.gz [--steps N] [--questions N]
    python benchmarks/drafts.py --replay FILE

The file holds judged regions, a line each with reference, prediction and
completion, gzipped or not. The first way trains a small LLaMA on recorded
answers for about a minute, so that it writes GREEN's form, and has it answer
questions none of whose texts it has seen: with `generate` in batches of 8 and
of 16, and with the decoder in as many rows, its table knowing GREEN's bare form
alone. A question is the two reports: the judge's instruction before them is
read once and kept in both ways, so it is left out of both. Then the same in
half precision, where a near tie may fall either way with a batch's shape. One
CPU thread.

The second way asks no model: it replays recorded answers, from GREEN's bare
form on and learning each as it ends, and counts the tokens a pass would keep.
Tokens are those of a tokenizer trained on the texts, or of --tokenizer.
"""

import argparse
import gzip
import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from judge_calls import byte_tokenizer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils.decoding.decoder import Decoder, Request  # noqa: E402
from utils.decoding.drafts import Drafts  # noqa: E402
from utils.judge import write_completion  # noqa: E402

Pair = tuple[str, str]
BATCHES, TRAINED_AT_ONCE, MOST_NEW = (8, 16), 8, 512
HELD_OUT = 0.2  # of the references and of the predictions: no question of the measurement holds another
STEPS = 300  # of training: about a minute
FORM = write_completion("", {}, {}, [])


@dataclass
class Way:
    """One way of answering: its texts by question, its forward passes, prompts included, and its seconds."""

    texts: list[list[int]]
    passes: int
    seconds: float


def read(path: Path) -> dict[Pair, str]:
    """The completion of each distinct pair that has text on both sides."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return {
        (row["reference"], row["prediction"]): row["completion"]
        for row in rows
        if row["reference"].strip() and row["prediction"].strip()
    }


def replay(answers: dict[Pair, str], tokenizer: PreTrainedTokenizerBase, most: int) -> tuple[int, int]:
    """Tokens and passes of all answers, with up to `most` tokens proposed a pass."""
    drafts, tokens, passes = Drafts(), 0, 0
    drafts.learn(_ids(tokenizer, FORM))
    for pair, completion in answers.items():
        answer, place = [*_ids(tokenizer, completion), tokenizer.eos_token_id], 0
        own = drafts.of_prompt(_ids(tokenizer, "\n".join(pair)))
        while place < len(answer):
            proposed = drafts.propose(answer[:place], own, most)
            alike = zip(proposed, answer[place:-1], strict=False)
            right = next((i for i, (one, two) in enumerate(alike) if one != two), len(proposed))
            place, passes = min(place + right + 1, len(answer)), passes + 1
        tokens += len(answer)
        drafts.learn(answer)
    return tokens, passes


def split(answers: dict[Pair, str], questions: int) -> tuple[dict[Pair, str], list[Pair]]:
    """Recorded answers to train on, and questions none of whose two texts is in them."""
    draw = random.Random(0)
    sides = [sorted({pair[side] for pair in answers}) for side in (0, 1)]
    kept = [set(draw.sample(texts, round(HELD_OUT * len(texts)))) for texts in sides]
    seen = {pair: text for pair, text in answers.items() if pair[0] not in kept[0] and pair[1] not in kept[1]}
    unseen = [(reference, prediction) for reference in sorted(kept[0]) for prediction in sorted(kept[1])]
    return seen, draw.sample(unseen, min(questions, len(unseen)))


def question(tokenizer: PreTrainedTokenizerBase, pair: Pair) -> list[int]:
    """The prompt of the small model for one pair."""
    return [tokenizer.bos_token_id, *_ids(tokenizer, f"{pair[0]}\n{pair[1]}\n[Explanation]:")]


def train(tokenizer: PreTrainedTokenizerBase, answers: dict[Pair, str], steps: int) -> LlamaForCausalLM:
    """A LLaMA of four layers of 96 that has learnt to answer as recorded."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    rows = []
    for pair, text in answers.items():
        asked, answer = question(tokenizer, pair), [*_ids(tokenizer, text), tokenizer.eos_token_id]
        rows.append((asked + answer, [-100] * len(asked) + answer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    draw = random.Random(0)
    for _ in range(steps):
        batch = draw.sample(rows, TRAINED_AT_ONCE)
        longest = max(len(ids) for ids, _ in batch)
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in batch])
        labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in batch])
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


def plain(model: LlamaForCausalLM, prompts: list[list[int]], size: int) -> Way:
    """`generate` in batches of `size`, the longest prompts first, padded on the left."""
    end, texts, passes, began = model.config.eos_token_id, {}, 0, time.perf_counter()
    for start in range(0, len(prompts), size):
        batch = prompts[start : start + size]
        longest = max(map(len, batch))
        gaps = [longest - len(ids) for ids in batch]
        output = model.generate(
            torch.tensor([[end] * gap + ids for gap, ids in zip(gaps, batch, strict=True)]),
            attention_mask=torch.tensor([[0] * gap + [1] * (longest - gap) for gap in gaps]),
            max_new_tokens=MOST_NEW,
            do_sample=False,
            pad_token_id=end,
        )[:, longest:]
        passes += output.shape[1]
        for index, row in enumerate(output.tolist(), start):
            texts[index] = row[: row.index(end) + 1] if end in row else row
    return Way([texts[index] for index in range(len(prompts))], passes, time.perf_counter() - began)


def drafted(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], size: int
) -> Way:
    """The decoder in `size` rows, its table knowing GREEN's bare form."""
    decoder = Decoder(model, {model.config.eos_token_id}, MOST_NEW, most_rows=size)
    began = time.perf_counter()
    decoder.drafts.learn(_ids(tokenizer, FORM))
    texts = dict(decoder.write([Request(ids) for ids in prompts]))
    seconds = time.perf_counter() - began
    return Way([texts[index] for index in range(len(prompts))], decoder.passes + decoder.prefills, seconds)


def same(one: Way, two: Way) -> str:
    """How many texts are equal, in words."""
    equal = sum(a == b for a, b in zip(one.texts, two.texts, strict=True))
    return f"{equal} of {len(one.texts)} texts equal"


def measure(answers: dict[Pair, str], steps: int, questions: int) -> None:
    """Train, answer in both ways, and print the two side by side."""
    tokenizer = byte_tokenizer([text for pair, answer in answers.items() for text in (*pair, answer)])
    seen, unseen = split(answers, questions)
    began = time.perf_counter()
    model = train(tokenizer, seen, steps)
    print(f"trained on {len(seen)} answers, {steps} steps, {time.perf_counter() - began:.0f} s")
    prompts = sorted((question(tokenizer, pair) for pair in unseen), key=len, reverse=True)
    for kind in (torch.float32, torch.float16):
        model = model.to(kind)
        ways = {}
        for size in BATCHES:
            one, two = ways[size] = plain(model, prompts, size), drafted(model, tokenizer, prompts, size)
            print(
                f"{str(kind).removeprefix('torch.')}, batches of {size}: {same(one, two)}; "
                f"passes {one.passes:,} and {two.passes:,}, {one.passes / two.passes:.1f} times fewer; "
                f"seconds {one.seconds:.1f} and {two.seconds:.1f}, {one.seconds / two.seconds:.1f} times less"
            )
        print(f"  plain decoding in batches of 8 and of 16 with itself: {same(ways[8][0], ways[16][0])}")
    lengths = [len(text) for text in ways[8][0].texts]
    print(f"answers of {sum(lengths) / len(lengths):.0f} tokens on average; the last one in half precision:")
    print(tokenizer.decode(ways[8][1].texts[-1]))


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recorded", type=Path, help="JSON lines with reference, prediction, completion")
    parser.add_argument("--replay", action="store_true", help="replay the recorded answers: no model")
    parser.add_argument("--tokenizer", help="for --replay: the folder of a saved tokenizer")
    parser.add_argument("--steps", type=int, default=STEPS, help="of training")
    parser.add_argument("--questions", type=int, default=200)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    answers = read(chosen.recorded)
    if not chosen.replay:
        measure(answers, chosen.steps, chosen.questions)
        return
    texts = [text for pair, answer in answers.items() for text in (*pair, answer)]
    tokenizer = AutoTokenizer.from_pretrained(chosen.tokenizer) if chosen.tokenizer else byte_tokenizer(texts)
    for most in BATCHES:
        tokens, passes = replay(answers, tokenizer, most)
        print(
            f"up to {most} proposed: {tokens / passes:.2f} tokens a pass "
            f"(n={len(answers)} answers, {tokens / len(answers):.0f} tokens on average)"
        )


if __name__ == "__main__":
    main()
