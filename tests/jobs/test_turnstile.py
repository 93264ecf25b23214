"""Who may be in flight beside whom."""

from pathlib import Path

from pipeline.offline.turnstile import Turnstile


def test_suspects_are_alone_and_are_let_in_at_last(tmp_path: Path):
    """Others share the room; while one waits to be alone nobody submits more, and it is in when they have left."""
    first, second, suspect = (Turnstile(tmp_path, "worker") for _ in range(3))
    assert first.admits(is_alone=False)
    assert second.admits(is_alone=False)
    assert not suspect.admits(is_alone=True)
    assert not first.admits(is_alone=False)
    first.leave()
    assert not suspect.admits(is_alone=True)
    second.leave()
    assert suspect.admits(is_alone=True)
    assert not first.admits(is_alone=False)
    suspect.leave()
    assert first.admits(is_alone=False)
    for each in (first, second, suspect):
        each.close()


def test_one_who_waits_keeps_its_place_until_it_goes(tmp_path: Path):
    """Leaving without having been in changes nothing; closing lets the others on."""
    first, suspect = Turnstile(tmp_path, "worker"), Turnstile(tmp_path, "worker")
    assert first.admits(is_alone=False)
    assert not suspect.admits(is_alone=True)
    suspect.leave()
    assert not first.admits(is_alone=False)
    suspect.close()
    assert first.admits(is_alone=False)
    first.close()
