"""What asking once, in full batches with a shared start, saves over green-score's own loop, drafts apart.

    python benchmarks/judge_calls.py recorded.jsonl.gz [--rows N] [--new-tokens N]

The file holds judged regions, a line each with reference and prediction. Both
loops ask the same random LLaMA on one CPU thread: its answers mean nothing,
what is counted is what they cost. Both loops get the same number of new
tokens; a real judge ends most answers earlier than its limit.

green-score 0.0.12 (`GREEN.infer`, `GREEN.get_response`), written anew from its
behaviour: every row is asked, also rows with an empty side or seen before, in
the order given, eight at a time, padded to the longest of the eight, cut at
2,048 tokens. Changed, so that it runs on today's transformers:
`batch_encode_plus` became a call of the tokenizer; the limit on new tokens
stands in for that on the whole text (2,048); one process in place of one a GPU.
"""

import argparse
import gzip
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils.decoding.drafts import Width  # noqa: E402
from utils.judge import judge_pairs  # noqa: E402
from utils.judge.green import GreenEngine, chat, prompt  # noqa: E402

GREEN_BATCH, GREEN_MAX_TOKENS = 8, 2048
VOCABULARY = 1800  # a question then has about 560 tokens, near what LLaMA's own vocabulary gives


@dataclass
class Cost:
    """What one loop used. `tokens_in` are all that passes read, padding too; `seconds` are wall time,
    `cpu` the processor's."""

    questions: int = 0
    passes: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    started: tuple[float, float] = field(default_factory=lambda: (time.perf_counter(), time.process_time()))

    def of(self, forward):
        """A model's `forward` with its use counted."""

        def counted(**inputs):
            self.passes, self.tokens_in = self.passes + 1, self.tokens_in + inputs["input_ids"].numel()
            return forward(**inputs)

        return counted

    def stop(self) -> "Cost":
        self.seconds, self.cpu = time.perf_counter() - self.started[0], time.process_time() - self.started[1]
        return self


def byte_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer trained on `texts`, with the special tokens of LLaMA."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def small_llama(folder: Path, texts: list[str]) -> Path:
    """A random LLaMA of two layers of 64 with a byte-level tokenizer, saved to `folder`."""
    tokenizer = byte_tokenizer(texts)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def green_score_loop(model, tokenizer, pairs: list[tuple[str, str]], new_tokens: int) -> tuple[int, int]:
    """Ask every pair as green-score 0.0.12 does; the number of questions and of tokens written."""
    written = 0
    inputs = [tokenizer.bos_token + chat(*pair) for pair in pairs]
    for start in range(0, len(inputs), GREEN_BATCH):
        batch = tokenizer(
            inputs[start : start + GREEN_BATCH],
            add_special_tokens=False,
            padding=True,
            truncation=True,
            max_length=GREEN_MAX_TOKENS,
            return_tensors="pt",
        )
        with torch.inference_mode():
            output = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=new_tokens,
                do_sample=False,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        tokenizer.batch_decode(output, skip_special_tokens=True)
        written += output[:, batch["input_ids"].shape[1] :].numel()
    return len(inputs), written


def compare(pairs: list[tuple[str, str]], new_tokens: int) -> tuple[Cost, Cost]:
    """The cost of green-score's loop and of ours on `pairs`, (reference, prediction) each."""
    with tempfile.TemporaryDirectory() as folder:
        texts = [prompt("", ""), *(text for pair in dict.fromkeys(pairs) for text in pair)]
        engine = GreenEngine(small_llama(Path(folder), texts), "fp16", max_new_tokens=new_tokens)
        model, tokenizer = engine.load()
        model.float()  # a CPU has no fast half precision
        engine.decoder.width = Width(0)  # what drafts save is measured with answers that mean something
        list(engine.ask([("warm", "up")]))
        forward, theirs = model.forward, Cost()
        model.forward = theirs.of(forward)
        theirs.questions, theirs.tokens_out = green_score_loop(model, tokenizer, pairs, new_tokens)
        theirs.stop()
        ours, learn = Cost(), engine.decoder.drafts.learn
        model.forward = ours.of(forward)

        def counted(tokens):  # each answer once, as it ends
            ours.questions, ours.tokens_out = ours.questions + 1, ours.tokens_out + len(tokens)
            learn(tokens)

        engine.decoder.drafts.learn = counted
        cache = Path(folder) / "answers.jsonl"
        judge_pairs([pair for pair in pairs if pair[0].strip()], engine, cache=cache)
        return theirs, ours.stop()


def report(theirs: Cost, ours: Cost, rows: int, all_rows: int, new_tokens: int) -> str:
    """The two costs side by side, with their ratios."""
    part = "all" if rows == all_rows else f"the first {rows:,} of"
    lines = [f"{part} {all_rows:,} rows, {new_tokens} new tokens at most, one CPU thread"]
    lines += [f"{'':28}{'green-score':>14}{'ours':>14}{'ratio':>9}"]
    for name, attribute in (
        ("questions to the judge", "questions"),
        ("forward passes", "passes"),
        ("tokens in, with padding", "tokens_in"),
        ("tokens out", "tokens_out"),
        ("seconds", "seconds"),
        ("seconds of the processor", "cpu"),
    ):
        one, two = getattr(theirs, attribute), getattr(ours, attribute)
        form = "14,.1f" if isinstance(one, float) else "14,"
        lines.append(f"{name:28}{one:{form}}{two:{form}}{one / max(two, 1e-9):8.2f}x")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recorded", type=Path, help="JSON lines, gzipped, with reference and prediction")
    parser.add_argument("--rows", type=int, help="only the first rows: a quick look, not the measurement")
    parser.add_argument("--new-tokens", type=int, default=128, help="of an answer, in both loops")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with gzip.open(chosen.recorded, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    pairs = [(row["reference"], row["prediction"]) for row in rows][: chosen.rows]
    theirs, ours = compare(pairs, chosen.new_tokens)
    print(report(theirs, ours, len(pairs), len(rows), chosen.new_tokens))


if __name__ == "__main__":
    main()
