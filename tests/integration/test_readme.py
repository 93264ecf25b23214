"""The README's third terminal, typed as it stands there: a foreign client publishes a request and reads the stream."""

import json
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

README = Path(__file__).parents[2] / "README.md"


def commands() -> str:
    """The README's kcat commands, as one shell script each."""
    blocks = [block for block in README.read_text(encoding="utf-8").split("\n\n") if "kcat -P" in block]
    assert len(blocks) == 1, "the README shows kcat once"
    return "\n".join(line.removeprefix("    ") for line in blocks[0].splitlines())


def test_the_readme_s_kcat_commands_show_begin_chunks_and_end(worker):
    """Typed line by line, on this test's broker and topics, they publish a request and print its stream in order."""
    prefix = worker.settings["PENSTOCK_KAFKA__TOPIC_PREFIX"]
    script = commands().replace("127.0.0.1:9092", worker.settings["PENSTOCK_KAFKA__BOOTSTRAP_SERVERS"]).replace("penstock.", f"{prefix}.")
    publish, read = script.rsplit("\n", 1)
    subprocess.run(["bash", "-euc", publish], check=True, timeout=60)
    deadline_s = time.monotonic() + 60
    while True:
        shown = subprocess.run(["bash", "-euc", read], check=True, timeout=60, capture_output=True, text=True).stdout.splitlines()
        mine = [line for line in shown if "c-42" in line]
        if any("event=end" in line for line in mine):
            break
        assert time.monotonic() < deadline_s, f"no end within a minute: {mine}"
        time.sleep(0.2)
    events = [dict(pair.split("=", 1) for pair in line.split(" ", 2)[1].split(",")) for line in mine]
    values = [json.loads(line.split(" ", 2)[2]) for line in mine]
    assert events[0]["event"] == "begin"
    assert {event["event"] for event in events[1:-1]} == {"chunk"}
    assert events[-1]["event"] == "end"
    assert [int(event["seq"]) for event in events[1:]] == list(range(len(events) - 1))
    assert {event["attempt"] for event in events[1:]} == {mine[0].split(" ", 1)[0]}
    assert values[-1]["usage"]["completion_tokens"] == sum(len(value["token_ids"]) for value in values[1:-1]) > 0
