"""Verbs that send requests and read answers: submit, chat, tail, inspect, cancel."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import EngineError, Overloaded
from tests.cli.conftest import Command, Terminal, Work
from tests.scripted_worker import Script, Voice, echo, wait_for_cancel
from tests.waiting import wait_for

SUBMIT = ["submit", "--wait", "--timeout", "30"]


def line(custom_id: str, text: str, **body: object) -> str:
    """One line of a Batch file."""
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": {"model": "tiny", "prompt": text, **body}}) + "\n"


def ends_wrong(voice: Voice) -> Script:
    """Echoes, except that it fails where the prompt says so and refuses where it says that."""
    if voice.prompt == "fail":
        voice.refuse(EngineError("broken"))
        yield
    else:
        yield from echo(voice)


def test_a_prompt_is_answered_as_text(command: Command, log: list[object], work: Work):
    """With --wait the answer is all of stdout, streamed or not, and the options reach the worker."""
    worker = work(echo)
    for form in ("--stream", "--no-stream"):
        done = command(*SUBMIT, form, "--prompt", "one two", "--max-tokens", 7, "--temperature", 0, "--model", "other", *log)
        assert (done.code, done.out) == (0, "one two\n"), done.err
    assert [request.stream for request in worker.taken] == [True, False]
    assert {(r.model, r.body.sampling.max_tokens, r.body.sampling.temperature) for r in worker.taken} == {("other", 7, 0.0)}
    answer = json.loads(command(*SUBMIT, "--json", "--prompt", "one two", *log).out)
    assert answer["response"]["body"]["choices"][0]["message"]["content"] == "one two"


def test_without_waiting_the_names_are_written(command: Command, log: list[object], work: Work):
    """A submitted request is known by its custom_id, and the answer can be read by others."""
    worker = work(echo)
    name = command("submit", "--prompt", "hello", *log).out.strip()
    wait_for(lambda: [request.custom_id for request in worker.taken] == [name])
    told = json.loads(command("submit", "--json", "--prompt", "hello", *log).out)
    wait_for(lambda: len(worker.taken) == 2)
    assert (told["custom_id"], told["origin"]) == (worker.taken[1].custom_id, str(worker.taken[1].origin))


def test_a_file_is_answered_in_its_order(command: Command, log: list[object], work: Work, tmp_path: Path):
    """Output lines come in the order of the file, streamed and unstreamed alike; a file may come from stdin."""
    work(echo)
    text = "".join(line(f"c-{n}", f"text {n}", stream=n % 2 == 0) + "\n" for n in range(20))
    (tmp_path / "in.jsonl").write_text(text)
    done = command(*SUBMIT, tmp_path / "in.jsonl", *log)
    assert done.code == 0, done.err
    answers = [json.loads(answer) for answer in done.out.splitlines()]
    assert [(a["custom_id"], a["response"]["body"]["choices"][0]["text"]) for a in answers] == [(f"c-{n}", f"text {n}") for n in range(20)]
    assert command(*SUBMIT, "-", *log, stdin=line("from-stdin", "hi")).code == 0


def test_a_bad_line_harms_no_other(command: Command, log: list[object], work: Work):
    """Lines that are no requests, and requests that fail, are told in their place; the others are answered; the exit code is 3."""
    work(ends_wrong)
    text = "\n".join(
        ["{", "[]", '{"custom_id": 1}', line("no-such-url", "x").replace("/v1/completions", "/v2"), line("bad", "fail"), line("ok", "fine")]
    )
    done = command(*SUBMIT, "-", *log, stdin=text)
    answers = [json.loads(answer) for answer in done.out.splitlines()]
    assert done.code == 3
    assert [(a["custom_id"], (a["error"] or {}).get("code")) for a in answers] == [
        *((None, "invalid_json"), (None, "invalid_json"), (None, "invalid_request")),
        *(("no-such-url", "unknown_url"), ("bad", "engine_error"), ("ok", None)),
    ]
    sent = command("submit", "-", *log, stdin=text.replace('"bad"', '"bad-2"').replace('"ok"', '"ok-2"'))
    assert (sent.code, sent.out.split()) == (3, ["bad-2", "ok-2"])
    assert "line 1: not JSON" in sent.err


def test_a_request_that_fails_fails_the_command(command: Command, log: list[object], work: Work):
    """A prompt whose request fails ends with the error's own exit code and message."""

    def overloaded(voice: Voice) -> Script:
        voice.refuse(Overloaded("come back later"))
        yield

    work(overloaded)
    done = command(*SUBMIT, "--prompt", "hi", *log)
    assert (done.code, done.out) == (75, "")
    assert "come back later" in done.err


@pytest.mark.parametrize("what", [["--prompt", "hi"], ["-"]])
def test_no_answer_in_time_is_124(command: Command, log: list[object], work: Work, what: list[str]):
    """A wait that is over ends with 124, and what was left open is cancelled."""
    worker = work(wait_for_cancel)
    done = command("submit", "--wait", "--timeout", "0.5", *what, *log, stdin=line("slow", "hi"))
    assert done.code == 124
    wait_for(lambda: {request.custom_id for request in worker.taken} == worker.cancelled)


@pytest.mark.integration
def test_a_terminal_gets_the_answer_as_it_comes_and_harmless(terminal: Callable[..., Terminal], log: list[object], work: Work):
    """Text appears while the worker still writes, and no escape sequence of the model's reaches the terminal."""
    go_on = threading.Event()

    def hostile(voice: Voice) -> Script:
        voice.begin()
        voice.chunk("first\x1b]0;owned\x07 ", 1)
        while not go_on.is_set():
            yield
        voice.chunk("\x9b2Jsecond", 2)
        voice.end()

    work(hostile)
    screen = terminal(*SUBMIT, "--prompt", "hi", *log)
    assert "\x1b" not in screen.read_until("first\u241b]0;owned\u2407")
    go_on.set()
    code, shown = screen.finish()
    assert code == 0
    assert "\ufffd2Jsecond" in shown
    assert "\x1b" not in shown


@pytest.mark.integration
def test_a_terminal_is_told_when_the_answer_starts_over(terminal: Callable[..., Terminal], log: list[object], work: Work):
    """What was shown and is void now is followed by a word of warning and the new answer."""
    go_on = threading.Event()

    def starts_over(voice: Voice) -> Script:
        voice.begin()
        voice.chunk("wrong", 1)
        while not go_on.is_set():
            yield
        voice.reset()
        voice.chunk("right", 2)
        voice.end()

    work(starts_over)
    screen = terminal(*SUBMIT, "--prompt", "hi", *log)
    screen.read_until("wrong")
    go_on.set()
    code, shown = screen.finish()
    assert code == 0
    assert shown.index("wrong") < shown.index("starts over") < shown.index("right")


def conversation(voice: Voice) -> Script:
    """Answers with what it was told so far."""
    told = "/".join(message.text for message in voice.request.body.messages)
    voice.begin()
    voice.chunk(f"<{told}>", 1)
    voice.end()
    yield


def test_a_chat_remembers_and_forgets(command: Command, log: list[object], work: Work):
    """Each turn carries the conversation so far; /reset keeps the system message only; /exit leaves."""
    work(conversation)
    done = command("chat", "--system", "S", *log, stdin="a\n\nb\n/reset\nc\n/exit\nd\n")
    assert done.code == 0, done.err
    assert done.out.splitlines() == ["<S/a>", "<S/a/<S/a>/b>", "<S/c>"]
    answer = json.loads(command("chat", "--json", *log, stdin="a").out)
    assert (answer["role"], answer["content"], answer["finish_reason"]) == ("assistant", "<a>", "stop")


def test_a_chat_from_a_script_ends_with_the_first_failure(command: Command, log: list[object], work: Work):
    """Nobody is there to see an error and go on, so the exit code tells it."""
    work(ends_wrong)
    done = command("chat", *log, stdin="hello\nfail\nhello\n")
    assert (done.code, done.out) == (1, "hello\n")


@pytest.mark.integration
def test_a_person_can_end_an_answer_and_go_on(terminal: Callable[..., Terminal], log: list[object], work: Work):
    """Ctrl-C ends the answer and not the chat; a failed turn is told and forgotten; Ctrl-D leaves."""

    def moody(voice: Voice) -> Script:
        yield from wait_for_cancel(voice) if voice.prompt == "long" else ends_wrong(voice)

    worker = work(moody)
    screen = terminal("chat", *log, with_input=True)
    screen.read_until("> ")
    screen.type("long\n")
    screen.read_until("well")
    screen.interrupt()
    screen.read_until("(ended)\r\n> ")
    screen.type("fail\n")
    screen.read_until("broken\r\n> ")
    screen.type("good day\n")
    wait_for(lambda: len(worker.taken) == 3)
    assert [message.text for message in worker.taken[2].body.messages] == ["good day"]
    screen.read_until("good day\r\ngood day\r\n> ")
    screen.type("\x04")
    code, shown = screen.finish()
    assert code == 0
    assert shown.count("good day") >= 2
    assert worker.cancelled == {worker.taken[0].custom_id}
