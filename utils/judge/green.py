"""GREEN-radllama2-7b as an engine of `judge_pairs`: on this machine's GPU, or behind a server.

Prompt, chat format and end of input are those of green-score 0.0.12, with which the model was published:
other wordings give other verdicts.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Literal

from utils.run.answers import MAX_RETRIES, TIMEOUT
from utils.run.machine import NF4

from . import green_score
from .verdicts import JudgeError, Pair, write_completion

GREEN_MODEL = "StanfordAIMI/GREEN-radllama2-7b"
GREEN_LABEL = "GREEN-radllama2-7b"
GREEN_SIZE = (32, 4096)  # layers and width of LLaMA 2 7B
MAX_NEW_TOKENS = 1024  # of one completion
MAX_WORDS = 300  # of each report, as green-score cuts them
MOST_AT_ONCE = 64  # pairs in a batch that is sized by free memory
ANSWER_TOKENS = 372  # that 95 % of 916 recorded answers need at most; 250 on average

_PROMPT = Path(__file__).with_name("green_prompt.txt").read_text(encoding="utf-8")
# green-score adds an empty turn of the assistant, and its tokenizer (add_eos_token) ends the input with </s>.
_CHAT = "<|user|>\n{prompt}</s>\n<|assistant|>\n</s>\n<|assistant|>\n</s>"


def prompt(reference: str, prediction: str) -> str:
    """The question that GREEN was trained on, for one pair."""
    package = green_score.taken()
    return package.prompt(reference, prediction) if package else our_prompt(reference, prediction)


def our_prompt(reference: str, prediction: str) -> str:
    """The same question in our own words."""
    texts = {"reference": reference, "prediction": prediction}
    return _PROMPT.format(**{name: " ".join(text.split()[:MAX_WORDS]) for name, text in texts.items()})


def chat(reference: str, prediction: str) -> str:
    """The model's whole input for one pair, without the `<s>` that starts it."""
    return _CHAT.format(prompt=prompt(reference, prediction))


def answer(text: str) -> str:
    """A generated text as a completion: what follows the model's own `[Explanation]:` heading, if any."""
    return text.split("<|assistant|>")[-1].split("[Explanation]:")[-1]


def judge_label(model: str | Path, how: str) -> str:
    """What this judge may be called: GREEN only for the published model."""
    name = Path(model).name
    return f"{name} {how}" if name == GREEN_LABEL else f"{name} {how} (not GREEN)"


def _fingerprint(max_new_tokens: int) -> str:
    asked = prompt("{reference}", "{prediction}")
    return hashlib.sha256(f"{asked}{_CHAT}{max_new_tokens}".encode()).hexdigest()


class GreenEngine:
    """The judge loaded by transformers; the model is loaded at the first question and kept.

    model: name on the Hugging Face Hub, or a folder
    precision: "nf4" (4-bit, about 4 GB), "int8" (7 GB) or "fp16" (13.5 GB)
    batch_size: pairs at once, at most; 0: as many as the free memory holds
    """

    def __init__(
        self,
        model: str | Path = GREEN_MODEL,
        precision: Literal["nf4", "int8", "fp16"] = "nf4",
        batch_size: int = 0,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ):
        if precision not in ("nf4", "int8", "fp16"):
            raise JudgeError(f"no such precision: {precision!r}; choose nf4, int8 or fp16")
        self.model_name, self.precision = str(model), precision
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        self.fingerprint = _fingerprint(max_new_tokens)
        self._loaded = None
        # What answers are drafted after: GREEN's bare form at first.
        self._to_learn, self._learnt = [write_completion("", {}, {}, [])], set()

    @cached_property
    def label(self) -> str:
        """What its judgements are called; a model of another size under the published name is no GREEN."""
        label = judge_label(self.model_name, self.precision)
        if Path(self.model_name).name == GREEN_LABEL:
            from transformers import AutoConfig

            with suppress(OSError):  # of a model that cannot be read no label will be needed
                config = AutoConfig.from_pretrained(self.model_name)
                if (config.num_hidden_layers, config.hidden_size) != GREEN_SIZE:
                    return f"small stand-in for {label} (not GREEN)"
        return label

    def load(self):
        """The model and its tokenizer, kept once loaded. Raises JudgeError where they do not fit."""
        import torch
        from accelerate import PartialState
        from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

        if self._loaded:
            return self._loaded
        on_gpu = torch.cuda.is_available()
        dtype = torch.float16 if on_gpu else torch.float32  # a CPU is slow in half precision
        quantization = {
            "nf4": BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=dtype),
            "int8": BitsAndBytesConfig(load_in_8bit=True),
            "fp16": None,
        }[self.precision]
        tokenizer = AutoTokenizer.from_pretrained(self.model_name, padding_side="left")
        tokenizer.pad_token = tokenizer.eos_token
        where = {"": PartialState().local_process_index if on_gpu else "cpu"}
        how = {"dtype": dtype, "quantization_config": quantization, "device_map": where}
        try:
            model = AutoModelForCausalLM.from_pretrained(self.model_name, **how).eval()
        except torch.OutOfMemoryError:
            raise JudgeError(
                f"{self.label} does not fit in the free GPU memory: choose precision nf4, or restart "
                "the runtime and run this notebook alone"
            ) from None
        self._loaded = model, tokenizer
        return self._loaded

    def close(self) -> None:
        """Let go of the model; the next question loads it again."""
        self._loaded, self._to_learn, self._learnt = None, [*self._to_learn, *self._learnt], set()
        vars(self).pop("decoder", None)

    def ask(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, str]]:
        """Answers as they are done, the longest questions first; out of memory, half of the pairs wait.
        Raises JudgeError where not even one pair fits."""
        import torch

        from utils.models.decoding import Request

        _, tokenizer = self.load()
        inputs = [tokenizer.bos_token + chat(*pair) for pair in pairs]
        questions = tokenizer(inputs, add_special_tokens=False)["input_ids"] if inputs else []
        order = sorted(range(len(pairs)), key=lambda index: -len(questions[index]))
        decoder = self.decoder
        decoder.most_rows = self.batch_size or MOST_AT_ONCE
        self._teach()
        try:
            for number, tokens in decoder.write([Request(questions[index]) for index in order]):
                text = answer(tokenizer.decode(tokens, skip_special_tokens=True))
                self._learnt.add(text)
                yield order[number], text
        except torch.OutOfMemoryError:
            problem = f"{self.label}: one pair alone does not fit in GPU memory; try precision nf4"
            raise JudgeError(problem) from None

    def learn(self, completions: Sequence[str]) -> None:
        """Draft the next answers after these, of an earlier run, too."""
        self._to_learn += completions

    def _teach(self) -> None:
        _, tokenizer = self.load()
        for completion in self._to_learn:
            if completion not in self._learnt:
                tokens = tokenizer(f"[Explanation]:{completion}", add_special_tokens=False)["input_ids"]
                self.decoder.drafts.learn([*tokens, tokenizer.eos_token_id])
                self._learnt.add(completion)
        self._to_learn = []

    @cached_property
    def decoder(self):
        """What writes the answers, and drafts each after those before."""
        from utils.models.decoding import Decoder

        model, tokenizer = self.load()
        # Almost half of a question: the judge's instruction before the reference.
        examples = [tokenizer.bos_token + chat(text, text) for text in ("a", "B")]
        rows = tokenizer(examples, add_special_tokens=False)["input_ids"]
        start = os.path.commonprefix(rows)  # noqa: RUF071  (of tokens, not of paths)
        ends = {tokenizer.eos_token_id}
        return Decoder(model, ends, self.max_new_tokens, expected=ANSWER_TOKENS, start=start)


class ServerEngine:
    """The judge behind any OpenAI-compatible completions address, such as vLLM's.

    base_url: the address up to and with `/v1`
    model: the name that the server serves it under
    api_key: where the server wants one; none is taken from the environment, where it may be another service's
    batch_size: questions in flight at once; 0: 8
    """

    def __init__(
        self, base_url: str = "", model: str = GREEN_MODEL, api_key: str | None = None, batch_size: int = 0
    ):
        from openai import OpenAI

        if not base_url:
            raise JudgeError("the server judge needs base_url, such as http://localhost:8000/v1")
        self.model_name, self.batch_size = model, batch_size or 8
        self.label, self.fingerprint = judge_label(model, "server"), _fingerprint(MAX_NEW_TOKENS)
        how = {"max_retries": MAX_RETRIES, "timeout": TIMEOUT}
        self._client = OpenAI(base_url=base_url, api_key=api_key or "none", **how)

    def ask(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, str]]:
        """Answers as they arrive. Raises JudgeError when a request fails after the client's own retries."""
        from openai import OpenAIError

        with ThreadPoolExecutor(self.batch_size) as pool:
            asked = {pool.submit(self._complete, pair): index for index, pair in enumerate(pairs)}
            try:
                for future in as_completed(asked):
                    text = future.result()
                    yield asked.pop(future), answer(text)
            except (OpenAIError, JudgeError) as error:
                for future in as_completed([other for other in asked if not other.cancel()]):
                    if not future.exception():
                        yield asked[future], answer(future.result())
                if isinstance(error, JudgeError):
                    raise
                status = getattr(error, "status_code", None)
                reason = f"{type(error).__name__}{f', status {status}' if status else ''}"
                raise JudgeError(f"the judge's server does not answer: {reason}") from error
            finally:
                pool.shutdown(cancel_futures=True)

    def _complete(self, pair: Pair) -> str:
        try:
            how = {"model": self.model_name, "max_tokens": MAX_NEW_TOKENS, "temperature": 0}
            reply = self._client.completions.create(prompt=chat(*pair), **how)
        except (json.JSONDecodeError, UnicodeDecodeError):
            reply = None
        choices = getattr(reply, "choices", None)  # of a web page or an error with status 200: none
        if not choices or not isinstance(choices[0].text, str):
            raise JudgeError("the judge's server sends no completion: check base_url")
        return choices[0].text
