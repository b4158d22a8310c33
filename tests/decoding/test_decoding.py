"""The decoder writes what plain greedy decoding writes, whatever the drafts, the batch and the memory."""

import functools
import os
import random
import weakref

import psutil
import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from utils.models.decoding import decoder as decoding
from utils.models.decoding.decoder import Decoder, Request
from utils.models.decoding.slots import SlotCache, _Layer, bytes_a_token

SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=None)),
    "mistral, window": lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=7)),
    "qwen": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED)),
    "gemma 3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(
            **GROUPED, head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
        )
    ),
}
ENDS, MOST = {1, 5}, 24
PROMPTS = [[random.Random(n).randrange(2, 40) for _ in range(3 + n * 7 % 29)] for n in range(9)]


@functools.cache
def small(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(3)  # or a random model repeats one token
    return model


def plain(model, prompt, most=MOST):
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=most,
        do_sample=False,
        eos_token_id=list(ENDS),
        pad_token_id=0,
    )
    return output[0, len(prompt) :].tolist()


@functools.cache
def greedy(name):
    return [plain(small(name), prompt) for prompt in PROMPTS]


@pytest.fixture
def llama():
    return small("llama"), greedy("llama")


def written(decoder, prompts=PROMPTS):
    texts = dict(decoder.write([Request(prompt) for prompt in prompts]))
    return [texts[index] for index in range(len(prompts))]


def teach(decoder, texts, kind):
    """Right drafts, wrong ones, or texts that go wrong after some tokens."""
    for text in texts:
        if kind == "wrong":
            text = [(token + 7) % 40 for token in text]
        elif kind == "mixed":
            text = [token if place % 5 else 39 - token for place, token in enumerate(text)]
        decoder.drafts.learn(text)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["none", "right", "wrong", "mixed"])
def test_the_texts_are_those_of_plain_greedy_decoding(name, kind):
    model, expected = small(name), greedy(name)
    assert len({len(text) for text in expected}) > 1  # rows leave at different times
    for rows in (1, 4):
        decoder = Decoder(model, ENDS, MOST, most_rows=rows, most_proposed=0 if kind == "none" else 16)
        teach(decoder, expected, kind)
        assert written(decoder) == expected


def test_right_drafts_take_fewer_passes_and_an_end_inside_a_draft_ends_the_text(llama):
    model, expected = llama
    plain_passes = Decoder(model, ENDS, MOST, most_rows=1, most_proposed=0)
    assert written(plain_passes) == expected
    assert plain_passes.passes == sum(map(len, expected))
    decoder = Decoder(model, ENDS, MOST, most_rows=1)
    for text in expected:
        decoder.drafts.learn([*text, 7, 7, 7])  # a draft that would go on after the end
    assert written(decoder) == expected
    assert any(text[-1] in ENDS for text in expected)
    assert 2 * decoder.passes < plain_passes.passes


@pytest.mark.parametrize("most", [1, 2, 9])
def test_the_limit_of_tokens_holds_inside_a_draft(llama, most):
    model, expected = llama
    decoder = Decoder(model, ENDS, most, most_rows=3)
    teach(decoder, expected, "right")
    assert written(decoder) == [text[:most] for text in expected]


def test_texts_are_handed_over_as_they_end_and_waiting_ones_take_their_places(llama):
    model, expected = llama
    decoder = Decoder(model, ENDS, MOST, most_rows=4, most_proposed=0)
    answers = decoder.write([Request(prompt) for prompt in PROMPTS])
    next(answers)
    assert decoder.passes < max(map(len, expected))  # not all of the first batch had to end
    list(answers)
    steps = sum(max(len(text) for text in expected[start : start + 4]) for start in range(0, 9, 4))
    assert decoder.passes < steps


def test_a_start_that_prompts_share_is_read_once_and_changes_nothing(llama, monkeypatch):
    model, _ = llama
    start = PROMPTS[0]
    prompts = [start + prompt for prompt in PROMPTS] + [start[:2] + PROMPTS[3], start, [7]]
    expected = [plain(model, prompt) for prompt in prompts]
    decoder, read = Decoder(model, ENDS, MOST, most_rows=4, start=start, most_proposed=0), []
    forward = Decoder.read

    def counted(self, cache, first, tokens, slots, keep=0):
        read.append(tokens.numel())
        return forward(self, cache, first, tokens, slots, keep)

    monkeypatch.setattr(Decoder, "read", counted)
    assert written(decoder, prompts[:9]) == expected[:9]
    with_start = sum(read)
    read.clear()
    assert written(Decoder(model, ENDS, MOST, most_rows=4, most_proposed=0), prompts[:9]) == expected[:9]
    assert sum(read) - with_start == 8 * len(start)
    assert written(decoder, prompts) == expected


def test_out_of_memory_halves_the_rows_and_what_was_written_is_not_written_again(llama, monkeypatch):
    model, expected = llama
    forward, sizes = Decoder.read, []

    def scarce(self, cache, first, tokens, slots, keep=0):
        if not keep:
            sizes.append(len(tokens))
            if len(tokens) > 3 and len(sizes) > 10:
                raise torch.OutOfMemoryError("no room")
        return forward(self, cache, first, tokens, slots, keep)

    monkeypatch.setattr(Decoder, "read", scarce)
    decoder = Decoder(model, ENDS, MOST, most_rows=8)
    assert written(decoder) == expected
    assert sizes[0] == 8 and sizes[-1] <= 3
    # Six rows go back with ten tokens each; as drafts these take a pass, not ten.
    without = Decoder(model, ENDS, MOST, most_rows=2)
    assert written(without) == expected
    assert decoder.passes < without.passes


def test_memory_that_ends_while_prompts_are_read_keeps_the_rows_that_are_in(llama, monkeypatch):
    model, expected = llama
    forward = Decoder.read

    def scarce(self, cache, first, tokens, slots, keep=0):
        if keep and first + len(tokens) > 3:
            raise torch.OutOfMemoryError("no room")
        return forward(self, cache, first, tokens, slots, keep)

    monkeypatch.setattr(Decoder, "read", scarce)
    assert written(Decoder(model, ENDS, MOST, most_rows=8)) == expected


@pytest.mark.parametrize("entering", [False, True])
def test_after_one_lack_of_memory_the_rows_become_as_many_as_before(llama, monkeypatch, entering):
    model, expected = llama
    forward, sizes, lacks = Decoder.read, [], []

    def once(self, cache, first, tokens, slots, keep=0):
        if not lacks and len(sizes) > 10 and entering == bool(keep):
            lacks.append(first)
            raise torch.OutOfMemoryError("no room in one piece")
        if not keep:
            sizes.append(len(tokens))
        return forward(self, cache, first, tokens, slots, keep)

    monkeypatch.setattr(Decoder, "read", once)
    decoder = Decoder(model, ENDS, MOST, most_rows=8, most_proposed=0)
    assert written(decoder, PROMPTS * 6) == expected * 6
    assert lacks and (lacks[0] > 0) == entering
    assert max(sizes) == max(sizes[60:]) == 8
    full = sizes[11:-MOST]  # at the end no text waits
    assert sum(full) / len(full) > 6


def test_memory_that_never_holds_more_rows_is_tried_again_ever_more_seldom(llama, monkeypatch):
    model, expected = llama
    forward, passes = Decoder.read, []

    def scarce(self, cache, first, tokens, slots, keep=0):
        passes.append(first + len(tokens) <= 3)
        if not passes[-1]:
            raise torch.OutOfMemoryError("no room")
        return forward(self, cache, first, tokens, slots, keep)

    monkeypatch.setattr(Decoder, "read", scarce)
    assert written(Decoder(model, ENDS, MOST, most_rows=8, most_proposed=0), PROMPTS * 6) == expected * 6
    tries = [place for place, held in enumerate(passes) if not held]
    assert 3 <= len(tries) < 12 and 2 * len(tries) < len(passes) / 16


@pytest.mark.parametrize("closed", [False, True])
def test_a_writer_that_is_stopped_keeps_no_keys_and_values(llama, monkeypatch, closed):
    model, _ = llama
    decoder, caches, held = Decoder(model, ENDS, MOST, most_rows=4), [], SlotCache.__init__
    monkeypatch.setattr(
        SlotCache, "__init__", lambda self, config: (held(self, config), caches.append(self))[0]
    )
    answers = decoder.write([Request(prompt) for prompt in PROMPTS])
    next(answers)
    (cache,) = caches
    keys = [weakref.ref(layer.keys) for layer in cache.layers]
    assert cache.nbytes and all(key() is not None for key in keys)
    if closed:
        answers.close()
    else:

        def stop(*_):
            raise KeyboardInterrupt

        hook = model.model.norm.register_forward_hook(stop)
        with pytest.raises(KeyboardInterrupt) as kept:  # with its traceback, as a notebook keeps it
            list(answers)
        hook.remove()
        assert kept.tb is not None
    assert not cache.nbytes and all(key() is None for key in keys)


def test_a_model_that_would_take_the_masks_for_something_else_is_refused():
    for attention in ("eager", "flash_attention_2"):
        model = LlamaForCausalLM(LlamaConfig(**SIZES))
        model.config._attn_implementation = attention
        with pytest.raises(ValueError, match=f"{attention}: load it with attn_implementation='sdpa'"):
            Decoder(model, ENDS, MOST)


def test_one_text_that_does_not_fit_is_said(llama, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Decoder, "read", full)
    with pytest.raises(torch.OutOfMemoryError):
        written(Decoder(llama[0], ENDS, MOST))


@pytest.mark.parametrize("rows_worth", [1.5, 4, 9])
def test_keys_and_values_never_take_more_than_the_memory_there_is(llama, monkeypatch, rows_worth):
    """A card of so many full rows, counted at every allocation."""
    model, expected = llama
    card = int(rows_worth * (max(map(len, PROMPTS)) + MOST + 64) * bytes_a_token(model.config, model.dtype))
    caches, peak, held = weakref.WeakSet(), [0], SlotCache.__init__

    def kept(self, config):
        held(self, config)
        caches.add(self)

    def used():
        return sum(cache.nbytes for cache in caches)

    resize = _Layer.resize

    def counted(self, rows, slots):
        resize(self, rows, slots)
        peak[0] = max(peak[0], used())
        if peak[0] > card:
            raise torch.OutOfMemoryError("more than the card has")

    monkeypatch.setattr(SlotCache, "__init__", kept)
    monkeypatch.setattr(_Layer, "resize", counted)
    monkeypatch.setattr(decoding, "free_memory", lambda: card - used())
    decoder = Decoder(model, ENDS, MOST, expected=8)  # most texts are longer
    teach(decoder, expected, "mixed")
    assert written(decoder) == expected
    assert 0.2 * card < peak[0] <= card


def test_rows_are_as_many_as_texts_of_the_length_learnt_fit(llama, monkeypatch):
    model, _ = llama
    each = bytes_a_token(model.config, model.dtype)
    monkeypatch.setattr(decoding, "free_memory", lambda: 10 * 1000 * each)
    decoder = Decoder(model, ENDS, 1024, expected=372)
    assert decoder.expected([]) == 372
    decoder._lengths.extend([100] * 40)
    assert decoder.expected([]) == 100
    assert decoder.expected([500] * 10) == 500  # texts that are not done yet count as well
    assert decoder.room(500, 0) == int(decoding.CACHE_SHARE * 20) and decoder.room(10**6, 0) == 1
    assert decoder.room(500, 5 * 1000 * each) == int(decoding.CACHE_SHARE * 30)


class Script:
    """A rule that puts 30, 31, 32 in every sixth token's place, and ends the text after the third time."""

    def __init__(self):
        self.count, self.queue = 0, [30]

    def choose(self, best):
        self.count += 1
        if not self.queue and self.count % 6 == 0:
            self.queue = [1] if self.count == 18 else [30, 31, 32]
        return self.queue.pop(0) if self.queue else best

    def ahead(self):
        return list(self.queue)


@pytest.mark.parametrize("kind", ["right", "wrong", "mixed"])
def test_a_rule_decides_with_drafts_as_without(llama, kind):
    model, _ = llama
    requests = [Request(prompt, rule=Script) for prompt in PROMPTS]
    expected = dict(Decoder(model, {1}, MOST, most_rows=3, most_proposed=0).write(requests))
    decoder = Decoder(model, {1}, MOST, most_rows=3)
    teach(decoder, expected.values(), kind)
    assert dict(decoder.write(requests)) == expected
    for prompt, text in zip(PROMPTS, (expected[n] for n in range(len(PROMPTS))), strict=True):
        assert text[0] == 30 and (len(text) == 18 or 1 in text) and 1 not in text[:-1]
        assert text[1] == plain(model, [*prompt, 30], 1)[0]  # what the rule leaves is the model's own


def test_prompts_are_read_in_groups_of_limited_size(llama, monkeypatch):
    model, expected = llama
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 40)
    decoder = Decoder(model, ENDS, MOST)
    assert written(decoder) == expected
    assert decoder.prefills > sum(map(len, PROMPTS)) / 41


def test_layers_without_keys_and_values_are_refused():
    config = LlamaConfig(**SIZES)
    config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(ValueError, match="keep no keys and values"):
        SlotCache(config)


def test_free_memory_is_read(monkeypatch):
    def unknown(name):
        raise ValueError("unrecognized configuration name")  # as on macOS

    monkeypatch.setattr(os, "sysconf", unknown)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert 10**6 < decoding.free_memory() <= psutil.virtual_memory().total
