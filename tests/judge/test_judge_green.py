"""The 7B judge's engine on a small random LLaMA, and the server engine against a server on loopback."""

import json
import random
import sys
import threading
import time
import weakref
from collections import Counter
from http.server import ThreadingHTTPServer
from types import SimpleNamespace

import loopback
import pytest
import torch
from conftest import ROOT

from utils.judge import JudgeError, green, judge_of, judge_pairs, write_completion
from utils.judge.green import GREEN_LABEL, GREEN_MODEL, GreenEngine, ServerEngine, chat, prompt
from utils.models.decoding import decoder as decoding
from utils.models.decoding.decoder import Batch, Decoder
from utils.run.answers import MAX_RETRIES
from utils.scores import parallel
from utils.scores.statistics import is_green
from utils.settings import JudgeSettings

sys.path.insert(0, str(ROOT / "benchmarks"))
import judge_calls

PAIRS = [
    ("The heart is enlarged.", "Heart size is normal."),
    ("No pleural effusion. " * 20, "Small left effusion."),
    ("Lungs are clear.", "Lungs are clear."),
]
COMPLETION = """[Explanation]:
Both agree on the heart.

[Clinically Significant Errors]:
(b) Missing a finding present in the reference: 1. The effusion.

[Clinically Insignificant Errors]:

[Matched Findings]:
1. Heart size."""


@pytest.fixture(scope="module")
def small_llama(tmp_path_factory):
    """A folder with a random LLaMA and a byte-level tokenizer, saved the usual way."""
    return judge_calls.small_llama(tmp_path_factory.mktemp("llama"), [prompt("", "")])


def completions(engine, pairs):
    return dict(engine.ask(pairs))


def test_the_prompt_holds_both_reports_once_and_cuts_them_at_300_words():
    text = prompt("alpha " * 400, "beta\n  gamma")
    assert text.count("alpha") == 300
    assert "3. Candidate Report:\n    beta gamma\n" in text
    assert "(f) <Error Type>: <The number of errors>." in text


def test_the_chat_ends_where_green_score_lets_the_model_begin():
    assert chat("a", "b").startswith("<|user|>\nObjective: Evaluate")
    assert chat("a", "b").endswith("```\n</s>\n<|assistant|>\n</s>\n<|assistant|>\n</s>")


def test_reports_with_braces_reach_the_prompt_unchanged():
    assert "{reference} 100 %" in prompt("{reference} 100 %", "b")


@pytest.mark.parametrize("precision", ["fp16", "nf4", "int8"])
def test_the_small_llama_answers_every_pair_the_same_alone_and_in_a_batch(small_llama, precision):
    engine = GreenEngine(small_llama, precision, batch_size=3, max_new_tokens=4)
    together = completions(engine, PAIRS)
    assert sorted(together) == [0, 1, 2]
    assert all(together.values())
    engine.batch_size = 1
    if precision == "fp16":  # the quantised ones round differently in other batch shapes
        assert completions(engine, PAIRS) == together


def test_keeping_the_start_that_all_questions_share_changes_no_answer(small_llama):
    engine = GreenEngine(small_llama, "fp16", batch_size=2, max_new_tokens=12)
    model, tokenizer = engine.load()
    model.float()
    answers = completions(engine, [*PAIRS, ("", "(0) \n")])
    for pair, index in zip([*PAIRS, ("", "(0) \n")], range(4), strict=True):
        question = tokenizer(
            [tokenizer.bos_token + chat(*pair)], add_special_tokens=False, return_tensors="pt"
        )
        output = model.generate(**question, max_new_tokens=12, do_sample=False, pad_token_id=1)
        alone = tokenizer.decode(output[0, question["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answers[index] == green.answer(alone)
    assert len(engine.decoder.start) > 0.4 * question["input_ids"].shape[1]
    assert engine.decoder.started().shape[1] >= len(engine.decoder.start)


def test_a_start_that_a_question_does_not_share_whole_is_cut(small_llama, monkeypatch):
    engine = GreenEngine(small_llama, "fp16", max_new_tokens=12)
    engine.load()[0].float()
    pair = ("The heart is enlarged.", "Heart size is normal.")
    expected = completions(engine, [pair])
    longer = GreenEngine(small_llama, "fp16", max_new_tokens=12)
    longer.load()[0].float()
    with monkeypatch.context() as patch:  # a start into which the reference's first words have slipped
        patch.setattr(green, "chat", lambda text, _: chat(f"The heart is {text}", "x"))
        assert len(longer.decoder.start) > len(engine.decoder.start)
    assert completions(longer, [("The lungs are clear.", "x")])
    assert completions(longer, [pair]) == expected


def test_nf4_really_loads_four_bit_layers(small_llama):
    engine = GreenEngine(small_llama, "nf4", max_new_tokens=1)
    list(engine.ask(PAIRS[:1]))
    names = {type(module).__name__ for module in engine._loaded[0].modules()}
    assert "Linear4bit" in names


@pytest.fixture
def passes(monkeypatch):
    """The rows of each pass; `passes.most` rows fit in memory."""

    class Passes(list):
        most = 1000

    forward, seen = Decoder.read, Passes()

    def counted(self, cache, first, tokens, slots, keep=0):
        if not keep:
            seen.append(len(tokens))
        if first + len(tokens) > seen.most:
            raise torch.OutOfMemoryError("no room")
        return forward(self, cache, first, tokens, slots, keep)

    monkeypatch.setattr(Decoder, "read", counted)
    return seen


def test_longest_inputs_go_first_and_each_answer_is_handed_over_as_it_ends(small_llama, passes):
    answers = GreenEngine(small_llama, "fp16", batch_size=2, max_new_tokens=1).ask(PAIRS)
    assert next(answers)[0] == 1
    assert passes == [2]
    assert len(list(answers)) == 2
    assert passes == [2, 1]


def test_out_of_memory_halves_the_batch_and_loses_nothing(small_llama, passes):
    pairs = [*PAIRS, ("a", "b")]
    engine = GreenEngine(small_llama, "fp16", batch_size=4, max_new_tokens=4)
    engine.load()[0].float()
    expected = completions(engine, pairs)
    passes.most = 1
    assert completions(engine, pairs) == expected
    assert passes[-1] == 1


def test_one_pair_that_does_not_fit_is_said(small_llama, passes):
    engine = GreenEngine(small_llama, "fp16")
    engine.load()
    passes.most = 0
    with pytest.raises(JudgeError, match="does not fit"):
        list(engine.ask(PAIRS))


def test_a_judge_that_does_not_fit_is_one_clear_sentence(small_llama, monkeypatch):
    from transformers import AutoModelForCausalLM

    def full(*_, **__):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(JudgeError, match="free GPU memory: choose precision nf4"):
        judge_pairs(PAIRS, "green", model=small_llama, precision="fp16")


@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_batch_takes_as_many_pairs_as_the_free_memory_holds(small_llama, monkeypatch, passes, on_gpu):
    engine = GreenEngine(small_llama, "fp16", max_new_tokens=30)
    _, tokenizer = engine.load()
    question = len(tokenizer(tokenizer.bos_token + chat(*PAIRS[1]), add_special_tokens=False)["input_ids"])
    slots = -(-(question + 30 + 9) // 64) * 64  # 8 proposed, in steps of 64
    free = int(2 * 2 * 4 * 4 * 16 * slots * 2.5 / decoding.CACHE_SHARE)
    alive, held = weakref.WeakSet(), Batch.__init__

    def kept(self, *arguments):
        held(self, *arguments)
        alive.add(self.cache)

    monkeypatch.setattr(Batch, "__init__", kept)
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "free_memory", lambda: free - sum(cache.nbytes for cache in alive))
        assert len(completions(engine, [PAIRS[1]] * 5)) == 5
    assert max(passes) == passes[0] == 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 10**10))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 10)
    host = SimpleNamespace(available=7 * free, free=free)  # what files are cached in is available, not free
    monkeypatch.setattr(decoding.psutil, "virtual_memory", lambda: host)
    assert decoding.free_memory() == (free + 20 if on_gpu else 7 * free)


def test_answers_are_drafted_after_greens_form_and_those_in_the_cache(small_llama, tmp_path):
    options = {"precision": "fp16", "max_new_tokens": 20}
    first = GreenEngine(small_llama, **options)
    first.load()[0].float()
    judged = judge_pairs(PAIRS, first, cache=tmp_path / "judge.jsonl")
    again = GreenEngine(small_llama, **options)
    again.load()[0].float()
    assert judge_pairs(PAIRS, again, cache=tmp_path / "judge.jsonl") == judged
    assert "decoder" not in vars(again)  # nothing was asked
    list(again.ask([("a", "b")]))
    tokenizer, drafts = again.load()[1], again.decoder.drafts
    known = tokenizer(f"[Explanation]:{judged[0].completion}", add_special_tokens=False)["input_ids"]
    assert drafts.propose(known[:-8], 8)[:7] == known[-8:-1]
    form = tokenizer(f"[Explanation]:{write_completion('', {}, {}, [])}", add_special_tokens=False)[
        "input_ids"
    ]
    assert drafts.propose(form[:20], 16) == form[20:36]


def test_a_judge_that_gave_its_memory_back_answers_as_before(small_llama):
    engine = GreenEngine(small_llama, "fp16", max_new_tokens=4)
    before, model = completions(engine, PAIRS), weakref.ref(engine.load()[0])
    parallel.let_go(engine)
    assert model() is None
    assert completions(engine, PAIRS) == before
    parallel.let_go(judge_of(JudgeSettings(engine="offline")))  # which has taken none


def test_judging_through_the_small_llama_is_cached_and_resumed(small_llama, tmp_path, monkeypatch):
    options = {"engine": "green", "model": small_llama, "precision": "fp16", "max_new_tokens": 2}
    first = judge_pairs(PAIRS, **options, cache=tmp_path / "judge.jsonl")

    def never(*_):
        raise AssertionError("asked again")

    monkeypatch.setattr(Decoder, "write", never)
    assert judge_pairs(PAIRS, **options, cache=tmp_path / "judge.jsonl") == first
    with pytest.raises(AssertionError, match="asked again"):
        judge_pairs(PAIRS, **{**options, "max_new_tokens": 3}, cache=tmp_path / "judge.jsonl")


def test_only_the_published_model_is_called_green(small_llama):
    assert GreenEngine().label == f"{GREEN_LABEL} nf4"
    assert GreenEngine(precision="int8").label != GreenEngine().label
    assert "not GREEN" in GreenEngine(small_llama).label
    assert "not GREEN" in ServerEngine("http://127.0.0.1:1/v1", model="llama").label


def test_a_small_model_under_the_published_name_is_not_called_green(small_llama, tmp_path):
    (tmp_path / GREEN_LABEL).symlink_to(small_llama)
    label = GreenEngine(tmp_path / GREEN_LABEL).label
    assert label == f"small stand-in for {GREEN_LABEL} nf4 (not GREEN)"
    assert is_green(GreenEngine().label) and not is_green(label)
    assert not is_green(green.judge_label("green-tuned", "nf4"))


def test_an_unknown_precision_is_refused():
    with pytest.raises(JudgeError, match="nf4, int8 or fp16"):
        GreenEngine(precision="bf16")


@pytest.fixture
def server():
    """An OpenAI-compatible completions address.

    `.asked` holds the requests, `.said` the prompt and status of each reply;
    `.behave(prompt, turn)` gives the status to answer with, or a whole body.
    """

    class Http(ThreadingHTTPServer):
        request_queue_size = 64

        def handle_error(self, *_):
            """A client that hangs up is no fault of the server."""

    class Handler(loopback.Replies):
        def do_POST(self):
            body = json.loads(self.body())
            with lock:
                turn = sum(body["prompt"] == other["prompt"] for _, other, _ in self.server.asked)
                self.server.asked.append((self.path, body, self.headers.get("Authorization")))
                self.server.busy += 1
                self.server.most = max(self.server.most, self.server.busy)
            status = self.server.behave(body["prompt"], turn)
            whole = status if isinstance(status, bytes) else None
            status = 200 if whole else status
            reply = {"object": "text_completion", "choices": [{"index": 0, "text": COMPLETION}]}
            # Busy ends before the reply leaves, so that a client's next question cannot overlap this one.
            with lock:
                self.server.busy -= 1
            self.server.said.append((body["prompt"], status))
            self.send(status, whole or (reply if status == 200 else {"error": "no"}))

    lock, http = threading.Lock(), Http(("127.0.0.1", 0), Handler)
    http.asked, http.said, http.busy, http.most = [], [], 0, 0
    http.behave = lambda prompt, turn: 200
    http.url = f"http://127.0.0.1:{http.server_port}/v1"
    with loopback.serving(http):
        yield http


def test_the_server_is_asked_each_distinct_pair_once_in_the_models_own_format(server, tmp_path):
    pairs = [*PAIRS, PAIRS[0], ("Lungs are clear.", "")]
    options = {"engine": "server", "base_url": server.url, "batch_size": 2, "cache": tmp_path / "judge.jsonl"}
    judged = judge_pairs(pairs, **options)
    assert [one.score for one in judged] == [0.5, 0.5, 0.5, 0.5, 0.0]
    assert judged[0].explanation == "Both agree on the heart."
    assert judged[0].judge == f"{GREEN_LABEL} server"
    assert len(server.asked) == 3
    assert server.most <= 2
    path, body, _ = server.asked[0]
    assert path == "/v1/completions"
    assert body["model"] == GREEN_MODEL
    assert body["temperature"] == 0
    assert {one["prompt"] for _, one, _ in server.asked} == {chat(a.strip(), b) for a, b in PAIRS}
    judge_pairs(pairs, **options)
    assert len(server.asked) == 3


def test_a_key_in_the_environment_is_not_sent_to_the_judges_server(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-of-another-service")
    judge_pairs(PAIRS[:1], "server", base_url=server.url)
    assert "secret" not in server.asked[0][2]


def test_a_server_that_refuses_is_one_clear_sentence_without_the_key(server, tmp_path):
    server.behave = lambda prompt, turn: 401
    with pytest.raises(JudgeError, match=r"does not answer: .*401") as caught:
        judge_pairs(PAIRS, "server", base_url=server.url, api_key="sk-hidden", cache=tmp_path / "judge.jsonl")
    assert "sk-hidden" not in str(caught.value)
    assert "sk-hidden" not in (tmp_path / "judge.jsonl").read_text()


def numbered(count):
    """Distinct pairs, and the place of each by its prompt."""
    pairs = [(f"Nodule of {number} mm.", "Clear.") for number in range(count)]
    return pairs, {chat(*pair): number for number, pair in enumerate(pairs)}


def test_a_server_that_fails_now_and_then_stops_nothing_and_answers_each_pair_once(server, tmp_path):
    def now_and_then(prompt, turn):
        chance = random.Random(f"{prompt} {turn}")  # the same in whatever order the questions come
        return chance.choice((429, 500, 503)) if chance.random() < 0.3 else 200

    server.behave = now_and_then
    pairs, places = numbered(300)
    judged = judge_pairs(pairs, "server", base_url=server.url, cache=tmp_path / "judge.jsonl")
    assert [one.score for one in judged] == [0.5] * 300
    assert Counter(prompt for prompt, status in server.said if status == 200) == dict.fromkeys(places, 1)
    assert {status for _, status in server.said} == {200, 429, 500, 503}


def test_a_server_that_dies_loses_no_answer_not_even_those_in_flight(server, tmp_path):
    pairs, places = numbered(60)
    dead = threading.Event()

    def dies(prompt, turn):
        if places[prompt] >= 20:
            if turn == MAX_RETRIES:
                dead.set()
            return 503
        if places[prompt] >= 13:  # with the first that fails, the eight in flight
            dead.wait(5)
            time.sleep(0.3)  # until the client knows of it
        return 200

    server.behave = dies
    options = {"engine": "server", "base_url": server.url, "batch_size": 8, "cache": tmp_path / "judge.jsonl"}
    with pytest.raises(JudgeError, match=r"^the judge's server does not answer: InternalServerError, .*503$"):
        judge_pairs(pairs, **options)
    kept = (tmp_path / "judge.jsonl").read_text().splitlines()[1:]
    assert {json.loads(line)["reference"] for line in kept} == {reference for reference, _ in pairs[:20]}
    assert max(places[body["prompt"]] for _, body, _ in server.asked) < 30  # what was queued is not asked
    server.behave = lambda prompt, turn: 200
    assert len(judge_pairs(pairs, **options)) == 60
    assert Counter(prompt for prompt, status in server.said if status == 200) == dict.fromkeys(places, 1)


@pytest.mark.parametrize("body", loopback.NO_COMPLETIONS, ids=str)
def test_an_answer_that_is_no_completion_is_said_and_not_kept(server, tmp_path, body):
    options = {"engine": "server", "base_url": server.url, "cache": tmp_path / "judge.jsonl"}
    server.behave = lambda prompt, turn: body if prompt == chat(*PAIRS[1]) else 200
    with pytest.raises(JudgeError, match="sends no completion: check base_url"):
        judge_pairs(PAIRS, **options)
    server.behave = lambda prompt, turn: 200
    assert [one.score for one in judge_pairs(PAIRS, **options)] == [0.5] * len(PAIRS)


def test_a_request_that_hangs_is_given_up_and_asked_again(server, monkeypatch):
    monkeypatch.setattr(green, "TIMEOUT", 0.3)
    again = threading.Event()

    def hangs(prompt, turn):
        if turn:
            again.set()
        again.wait(10)
        return 200

    server.behave = hangs
    assert judge_pairs(PAIRS[:1], "server", base_url=server.url)[0].score == 0.5
    assert len(server.asked) == 2


def test_the_server_judge_needs_an_address():
    with pytest.raises(JudgeError, match="base_url"):
        judge_pairs(PAIRS, "server")


def test_the_answer_starts_after_the_models_own_heading():
    assert green.answer("\n[Explanation]:\nFine.") == "\nFine."
