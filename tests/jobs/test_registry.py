"""The list of jobs: who is in it, who is not, and what a job may touch."""

from pathlib import Path

import pytest

from pipeline.offline.confinement import Confinement
from pipeline.offline.jobs.registry import UnknownJob
from pipeline.offline.refusals import JobRefused
from tests.jobs.conftest import Bench
from tests.offline.conftest import make_spec


def test_a_link_in_the_list_of_jobs_is_no_job(bench: Bench, dataset: Path, out: Path, tmp_path: Path):
    """Whoever may fill the list cannot have others write elsewhere by it."""
    home = bench.submit(dataset, out)
    home.path.rename(tmp_path / "elsewhere")
    home.path.symlink_to(tmp_path / "elsewhere")
    assert list(bench.registry.homes()) == []
    with pytest.raises(UnknownJob):
        bench.driver.plan(home.id)


def test_another_job_in_the_same_folder_is_refused(bench: Bench, dataset: Path, out: Path):
    """The message says what differs; the same job is found again, with the same id."""
    home = bench.submit(dataset, out)
    assert bench.submit(dataset, out).id == home.id
    with pytest.raises(JobRefused, match="task was 'generate' and is 'embed'"):
        bench.submit(dataset, out, spec=make_spec(task="embed"))
    with pytest.raises(JobRefused, match="the inputs were"):
        bench.submit(dataset, out, inputs=("elsewhere.parquet",))


@pytest.mark.parametrize("job", ["job-00000000000000000000", "../../etc", "job-0000000000000000000/", ""])
def test_an_unknown_job_is_refused_before_any_path_is_made_of_it(bench: Bench, job: str):
    """Ids come in messages."""
    with pytest.raises(UnknownJob):
        bench.driver.plan(job)


def test_a_job_that_names_what_it_may_not_fails_and_nothing_is_touched(bench: Bench, dataset: Path, tmp_path: Path):
    """An input outside of the roots, a folder of results outside of them; whichever errand comes, and reconciling too."""
    bench.driver = bench.drive(within=Confinement((tmp_path / "root",), ()))
    reading = bench.submit(dataset, tmp_path / "root" / "out")
    writing = bench.submit(tmp_path / "root" / "rows.jsonl", tmp_path / "elsewhere")
    ending = bench.submit(dataset, tmp_path / "other")
    bench.driver.advance(reading.id)
    bench.answer_all()
    bench.driver.reconcile(writing.id)
    bench.driver.finalise(ending.id)
    for home in (reading, writing, ending):
        assert home.failure is not None
        assert "jobs.roots" in home.failure
    assert bench.scorer.seen == []
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "other").exists()
    storing = bench.submit(tmp_path / "root" / "rows.jsonl", "s3://theirs/out")
    bench.driver.reconcile(storing.id)
    assert "jobs.output_stores" in (storing.failure or "")
    assert not (tmp_path / "root" / "out").exists()
