"""The split by a chat model loaded here: 4-bit on a GPU, as it comes on a CPU; no server and no key."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from utils.run.machine import NF4

from .questions import Cache, Messages, Split, SplitError, asked_again, better, question

DEFAULT_MODEL = "unsloth/Llama-3.2-3B-Instruct"  # LLaMA 3.2 without a form to fill in; about 2.3 GB in NF4
BATCH_SIZE = 8  # reports at once
ROOM = 160  # tokens of an answer beyond twice its report: the five names, marks and what is said twice


def ask_all(texts: list[str], prompt: str, model: str, cache: Path | None, progress=None) -> list[Split]:
    """The model's split of each text, unrepaired; all regions "" where it gave none that can be read.
    `model` is a name on the Hugging Face Hub, a folder, or a GGUF file. Raises SplitError where it cannot
    be loaded."""
    known = Cache(cache)
    waiting = known.open_questions(model, prompt, texts)
    done, progress = len(texts) - sum(map(len, waiting.values())), progress or (lambda done, total: None)
    # Reports of a length together: a batch pads to its longest.
    todo = sorted(waiting, key=lambda key: len(waiting[key][0]))
    progress(done, len(texts))
    for at in range(0, len(todo), BATCH_SIZE):
        keys = todo[at : at + BATCH_SIZE]
        for key, answer in zip(keys, _split([waiting[key][0] for key in keys], prompt, model), strict=True):
            known.add(key, answer=answer)
            done += len(waiting[key])
        progress(done, len(texts))
    return known.splits(model, prompt, texts)


def _split(texts: list[str], prompt: str, model: str) -> list[Split | None]:
    """The splits of a batch; what fails the audit is asked for once more, with the reason."""
    chat = load(model)
    first = chat([question(prompt, text) for text in texts], texts)
    again = {at: asked_again(prompt, text, first[at]) for at, text in enumerate(texts)}
    again = {at: messages for at, messages in again.items() if messages}
    answers = chat(list(again.values()), [texts[at] for at in again])
    second = dict(zip(again, answers, strict=True))
    return [better(text, first[at], second.get(at)) for at, text in enumerate(texts)]


@lru_cache(maxsize=1)
def load(model: str) -> Callable[[list[Messages], list[str]], list[str]]:
    """A chat with `model`: from a batch of messages, and the reports that they are about, to answers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    path, source, file = Path(model).expanduser(), model, {}
    if path.suffix == ".gguf":
        source, file = str(path.parent), {"gguf_file": path.name}
    options = {"dtype": torch.float32}
    if torch.cuda.is_available():
        options = {"dtype": torch.float16, "device_map": {"": 0}}  # a T4 has no bfloat16
        if not file:  # GGUF is a quantisation of its own
            options["quantization_config"] = BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=torch.float16)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **file)
        network = AutoModelForCausalLM.from_pretrained(source, **file, **options).eval()
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SplitError(f"The model {model} cannot be loaded: {reason}") from None
    if not tokenizer.chat_template:
        raise SplitError(f"{model} has no chat template. Choose a model trained for chat.")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

    @torch.inference_mode()
    def chat(batch: list[Messages], texts: list[str]) -> list[str]:
        if not batch:
            return []
        longest = max(len(tokenizer(text)["input_ids"]) for text in texts)
        prompts = tokenizer.apply_chat_template(batch, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = {name: inputs[name].to(network.device) for name in ("input_ids", "attention_mask")}
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        most, padding = 2 * longest + ROOM, tokenizer.pad_token_id
        written = network.generate(**inputs, max_new_tokens=most, pad_token_id=padding, **greedy)
        return tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return chat
