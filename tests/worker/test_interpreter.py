"""How the interpreter of a worker is shared and collected."""

import gc
import sys
from collections.abc import Iterator

import pytest

from pipeline.interpreter import SWITCH_S, keeping_what_is_loaded, share_promptly


@pytest.fixture
def _restored() -> Iterator[None]:
    """The interpreter of the tests, afterwards as it was before."""
    seconds, frozen = sys.getswitchinterval(), gc.get_freeze_count()
    yield
    sys.setswitchinterval(seconds)
    if frozen:
        gc.freeze()


@pytest.mark.usefixtures("_restored")
def test_threads_that_wait_have_the_interpreter_sooner():
    """Than by Python's default."""
    default_s = sys.getswitchinterval()
    share_promptly()
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
    assert default_s > SWITCH_S


@pytest.mark.usefixtures("_restored")
def test_what_is_loaded_is_not_looked_through_again():
    """Collections see what came later alone; afterwards everything, so that libraries can clean up."""
    before, frozen = len(gc.get_objects()), gc.get_freeze_count()
    with keeping_what_is_loaded():
        assert gc.get_freeze_count() > frozen + before // 2
        assert len(gc.get_objects()) < before // 10
    assert gc.get_freeze_count() == 0
    assert len(gc.get_objects()) > before // 2
