"""The frame of the command: what it imports, how it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli import verbs
from pipeline.cli.exits import exit_code, is_expected
from pipeline.settings import BadConfiguration
from pipeline.transport.base import BrokerUnavailable, UnknownTopic
from schemas.errors import EngineError, Overloaded, RateLimited
from tests.cli.conftest import PENSTOCK, WAIT_S, Command, Terminal
from tests.client.conftest import Work
from tests.scripted_worker import wait_for_cancel
from tests.waiting import wait_for

pytestmark = pytest.mark.integration  # each is a process of its own

HEAVY = ("torch", "transformers", "kafka", "prometheus_client")
IMPORTS = "import sys; sys.argv[0] = 'penstock'\nfrom pipeline.cli import main\ntry: main()\nexcept SystemExit: pass\n"


def imported(*arguments: str) -> set[str]:
    """Which heavy modules a command loads."""
    script = IMPORTS + f"print(' '.join(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True, text=True, timeout=WAIT_S)
    return set(done.stderr.splitlines()[-1].split())


def test_the_list_of_verbs_loads_nothing_heavy():
    """`--help` names every verb, the processes' own too, without importing an engine or a Kafka client."""
    assert imported("--help") == set()
    done = subprocess.run([PENSTOCK, "--help"], check=True, capture_output=True, text=True, timeout=WAIT_S)
    for verb in verbs.find(describe=False):
        assert f" {verb.name} " in done.stdout
    assert {"up", "worker", "demo", "submit", "chat", "tail", "inspect", "cancel", "doctor", "topics", "models", "config", "asyncapi"} <= {
        verb.name for verb in verbs.find(describe=False)
    }


def test_light_verbs_load_no_engine(tmp_path: Path):
    """Settings, topics and submissions need no tensor library, and no Kafka client where the log is not Kafka."""
    where = ("--transport", "embedded", "--data-dir", str(tmp_path))
    assert imported("config", "show", *where) == set()
    assert imported("topics", "apply", *where) == set()
    assert imported("submit", "--prompt", "hi", *where) == set()
    assert imported("worker", "--help") == set()


@pytest.mark.parametrize("verb", [verb.name for verb in verbs.find(describe=False)])
def test_every_verb_explains_itself(command: Command, verb: str):
    """Each verb has a help page, with a sentence in it."""
    done = command(verb, "--help")
    assert done.code == 0
    assert "Usage: penstock" in done.out


def test_the_version_is_the_distributions(command: Command):
    """`--version` prints name and version."""
    assert command("--version").out.startswith("penstock 0.")


def test_wrong_usage_is_2(command: Command):
    """No verb, an unknown verb, a missing argument and a wrong value are errors of usage, told on stderr."""
    for arguments in ([], ["fly"], ["inspect"], ["submit"], ["submit", "--prompt", "a", "file"], ["tail", "--since", "yesterday"], ["config"]):
        assert command(*arguments).code == 2, arguments


def test_wrong_settings_are_78(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A setting that is wrong, unknown or not readable ends with 78 and is named."""
    assert command("config", "show", "--config", tmp_path / "none.toml").code == 78
    monkeypatch.setenv("PENSTOCK_KAFKA__SESSION_TIMEOUT_MS", "soon")
    done = command("topics", "plan")
    assert (done.code, done.out) == (78, "")
    assert "PENSTOCK_KAFKA__SESSION_TIMEOUT_MS" in done.err


def test_a_log_that_is_away_is_69(command: Command, tmp_path: Path):
    """Where nobody answers the command says so and ends with 69."""
    (tmp_path / "file").write_text("in the way")
    done = command("topics", "plan", "--transport", "embedded", "--data-dir", tmp_path / "file" / "folder")
    assert (done.code, done.out) == (69, "")
    assert done.err.startswith("error: ")


def test_missing_topics_are_an_error_that_says_what_to_do(command: Command, tmp_path: Path):
    """A log without topics is named, with the verb that makes them."""
    for verb in (["tail"], ["submit", "--prompt", "hi"], ["inspect", "c"]):
        done = command(*verb, "--transport", "embedded", "--data-dir", tmp_path)
        assert done.code == 1
        assert "penstock topics apply" in done.err, verb


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadConfiguration("x"), 78),
        (BrokerUnavailable("x"), 69),
        (TimeoutError("x"), 124),
        (Overloaded("x"), 75),
        (RateLimited("x"), 75),
        (EngineError("x"), 1),
        (UnknownTopic("x"), 1),
        (FileNotFoundError("x"), 1),
    ],
)
def test_errors_have_their_exit_codes(error: Exception, code: int):
    """What a script needs to tell apart has a code of its own, and none of these is shown as a traceback."""
    assert exit_code(error) == code
    assert is_expected(error)


def test_a_bug_shows_its_traceback(command: Command, monkeypatch: pytest.MonkeyPatch):
    """An error that nobody foresaw is not reduced to a line."""

    def broken(_: object) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr("pipeline.cli.models.cards", broken)
    done = command("models")
    assert done.code == 1
    assert "Traceback" in done.err
    assert "a bug" in done.err


def start(*arguments: object) -> subprocess.Popen[str]:
    """Starts the command with pipes."""
    return subprocess.Popen([str(PENSTOCK), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_command_with_their_code(log: list[object], work: Work, signum: signal.Signals, code: int):
    """A command that waits ends at once, without a traceback, and the request that it waited for is cancelled."""
    worker = work(wait_for_cancel)
    process = start("submit", "--prompt", "hi", "--wait", *log)
    wait_for(lambda: bool(worker.taken), timeout_s=WAIT_S)
    process.send_signal(signum)
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    wait_for(lambda: worker.taken[0].custom_id in worker.cancelled)


def test_a_closed_pipe_is_no_error_to_talk_about():
    """When the reader of the output leaves, the command leaves too, in silence."""
    read_end, write_end = os.pipe()
    process = subprocess.Popen([str(PENSTOCK), "asyncapi"], stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    os.close(read_end)
    _, err = process.communicate(timeout=WAIT_S)
    assert err == ""
    assert process.returncode != 0


def test_no_color_is_honoured(terminal: Callable[..., Terminal]):
    """With NO_COLOR a terminal gets its messages without colours; without it, with them."""
    for environment, has_colours in (({}, True), ({"NO_COLOR": "1"}, False)):
        code, shown = terminal("topics", "plan", "--config", "/no/such/file", environment=environment).finish()
        assert code == 78
        assert "error:" in shown
        assert ("31m" in shown) is has_colours


def test_json_is_one_object_a_line(command: Command, log: list[object]):
    """Every verb that lists something lists it as JSON lines, and nothing else, on stdout."""
    for verb in (["config", "show"], ["models"], ["topics", "plan"], ["topics", "apply"]):
        done = command(*verb, "--json", *log)
        assert done.code == 0
        assert all(isinstance(json.loads(line), dict) for line in done.out.splitlines())
