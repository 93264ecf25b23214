"""Every verb of the command, and where it lives. A verb's module is imported when the verb is used, not before.

The distribution's processes, and anybody else's verbs, come in by the entry point group `penstock.cli`: the command line
is below the processes and cannot import them.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated

import typer

ENTRY_POINTS = "penstock.cli"


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb's name, what the list of verbs says about it, and `module:attribute` of a function or a typer app."""

    name: str
    about: str
    target: str

    def load(self) -> Callable[..., None] | typer.Typer:
        """Imports it."""
        loaded: Callable[..., None] | typer.Typer = EntryPoint(self.name, self.target, ENTRY_POINTS).load()
        return loaded


OWN = (
    Verb("demo", "Start a worker with the small model that ships and watch prompts stream side by side.", "pipeline.cli.demo:demo"),
    Verb("submit", "Send requests: a JSONL batch file, or one prompt.", "pipeline.cli.submit:submit"),
    Verb("chat", "Talk to a model, turn by turn.", "pipeline.cli.chat:chat"),
    Verb("tail", "Follow the answers that workers write.", "pipeline.cli.tail:tail"),
    Verb("inspect", "Show everything that the log holds about one request.", "pipeline.cli.inspect:inspect"),
    Verb("cancel", "End a request, queued or running.", "pipeline.cli.cancel:cancel"),
    Verb("score", "Run a model over a dataset: generate, chat, embed, classify, rerank, score.", "pipeline.cli.score:score"),
    Verb("top", "Watch the batches of this machine's workers: what is in them, why they close, how fast they are.", "pipeline.cli.top:top"),
    Verb("doctor", "Check log, topics, models and machine, and say what to do.", "pipeline.cli.doctor:doctor"),
    Verb("topics", "Compare the log's topics with the contract, or create them.", "pipeline.cli.topics:app"),
    Verb("models", "List the models that a worker would serve.", "pipeline.cli.models:models"),
    Verb("config", "Show the settings in effect, and where each comes from.", "pipeline.cli.config:app"),
    Verb("asyncapi", "Write the wire contract as an AsyncAPI document.", "pipeline.cli.asyncapi:asyncapi"),
)


def find(*, describe: bool) -> tuple[Verb, ...]:
    """All verbs, those of entry points first.

    Args:
        describe: Whether their lines in the list are wanted: an entry point's is in its docstring, and has to be imported.
    """
    registered = (Verb(entry.name, "", entry.value) for entry in sorted(entry_points(group=ENTRY_POINTS)))
    return (*((replace(verb, about=_first_line(verb.load())) if describe else verb) for verb in registered), *OWN)


def build(arguments: Iterable[str]) -> typer.Typer:
    """Builds the command line for these arguments: verbs that they do not name are listed and nothing more."""
    named = {*arguments, *_words_to_complete()}
    app = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]}, pretty_exceptions_enable=False)
    app.callback()(_root)
    verbs = find(describe=not named & {verb.name for verb in find(describe=False)})
    for verb in verbs:
        if verb.name in named:
            _add(app, verb)
        else:
            app.command(verb.name, help=verb.about)(lambda: None)
    return app


def _add(app: typer.Typer, verb: Verb) -> None:
    loaded = verb.load()
    if isinstance(loaded, typer.Typer):
        app.add_typer(loaded, name=verb.name, help=verb.about or None)
    else:
        app.command(verb.name)(loaded)


def _first_line(loaded: Callable[..., None] | typer.Typer) -> str:
    text = loaded.info.help if isinstance(loaded, typer.Typer) else loaded.__doc__
    return str(text or "").partition("\n")[0]


def _words_to_complete() -> list[str]:
    """What stands on the line for which a shell wants completions; typer finds it in one of these."""
    return [word for name in ("COMP_WORDS", "_TYPER_COMPLETE_ARGS") for word in os.environ.get(name, "").split()]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"penstock {version('penstock')}")
        raise typer.Exit


def _root(
    _version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")] = False,
) -> None:
    """Streaming batch inference over Kafka: requests in, token streams out."""
