"""What a submitted job may name, and what not, however it is spelt."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.offline.confinement import Confinement
from pipeline.offline.inputs import expand
from pipeline.offline.plan import open_job, plan
from pipeline.offline.refusals import JobRefused
from tests.offline.conftest import Script, make_spec, run

STORES = ("s3://open", "s3://shared/ours?endpoint_override=store:9000&scheme=http", "gs://")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a file, and a secret beside it."""
    (tmp_path / "root" / "in").mkdir(parents=True)
    (tmp_path / "root" / "in" / "rows.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "secret.jsonl").write_text('{"text": "secret"}\n')
    return tmp_path / "root"


@pytest.fixture
def within(root: Path) -> Confinement:
    """That folder alone."""
    return Confinement((root,), ())


def is_allowed(check: Callable[[str], None], address: str) -> bool:
    """Whether a check lets an address pass."""
    try:
        check(address)
    except JobRefused:
        return False
    return True


@pytest.mark.parametrize("name", ["in/rows.jsonl", "in", "in/../in/rows.jsonl", "in/*.jsonl", ".", "**/*.jsonl"])
def test_what_lies_in_a_root_is_read(root: Path, within: Confinement, name: str):
    """By a file, a folder or a pattern."""
    assert len(expand([f"{root}/{name}"], within)) == 1


@pytest.mark.parametrize("name", ["../secret.jsonl", "in/../../secret.jsonl", "..", "../*.jsonl", "../missing.jsonl", "../root-not/x.jsonl"])
def test_what_lies_elsewhere_is_not(root: Path, within: Confinement, name: str):
    """Whether it is there or not, so that nobody learns of it; the message names the setting."""
    with pytest.raises(JobRefused, match=r"jobs\.roots"):
        expand([f"{root}/{name}"], within)


def test_a_link_that_leads_out_is_refused(root: Path, within: Confinement, tmp_path: Path):
    """Named itself, met in a folder, or above the file; and one that leads nowhere else is not."""
    (root / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (root / "up").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    for name in ("link.jsonl", "up/secret.jsonl", "up/root/../secret.jsonl", "", "*.jsonl"):
        with pytest.raises(JobRefused, match=r"jobs\.roots"):
            expand([f"{root}/{name}"], within)
    with pytest.raises(JobRefused, match="no sound path"):
        expand([f"{root}/loop/x.jsonl"], within)
    (root / "inner.jsonl").symlink_to(root / "in" / "rows.jsonl")
    assert len(expand([f"{root}/inner.jsonl"], within)) == 1


@pytest.mark.parametrize(
    "address",
    [
        "s3://open/rows.parquet",
        "s3://open/a/b/*.parquet",
        "s3://shared/ours/rows.parquet?endpoint_override=store:9000&scheme=http",
        "gs://any/rows.parquet",
    ],
)
def test_objects_beneath_a_store_are_allowed(address: str):
    """A scheme alone is all of its buckets; without the stores nobody may read there."""
    assert is_allowed(Confinement((), STORES).check, address)
    assert not is_allowed(Confinement((), ()).check, address)


@pytest.mark.parametrize(
    "address",
    [
        "s3://opened/rows.parquet",
        "s3://open/rows.parquet?endpoint_override=169.254.169.254",
        "s3://shared/ours/rows.parquet",
        "s3://shared/ours-not/rows.parquet?endpoint_override=store:9000&scheme=http",
        "s3://shared/ours/../theirs/rows.parquet?endpoint_override=store:9000&scheme=http",
        "s3://shared/ours/%2e%2e/theirs/rows.parquet?endpoint_override=store:9000&scheme=http",
        "s3://open\n/rows.parquet",
        "s3://open/rows.parquet#x",
        "s3://key:secret@open/rows.parquet",
        "file:///etc/passwd",
        "fsspec+file:///etc/passwd",
        "hf://datasets/any/rows.parquet",
        "://open/rows.parquet",
        "s3://[open/rows.parquet",
    ],
)
def test_other_addresses_are_refused(address: str):
    """Neighbours whose names begin alike, servers that a query names, files by another spelling."""
    with pytest.raises(JobRefused, match=r"jobs\.stores"):
        Confinement((Path("/etc"),), STORES).check(address)


def test_a_store_to_read_is_none_to_write_to_nor_the_other_way_round(root: Path):
    """Each has its own list; the message names it. Folders of this machine are for both."""
    within = Confinement((root,), ("s3://in",), ("s3://results/ours",))
    assert is_allowed(within.check, "s3://in/rows.parquet")
    assert is_allowed(within.check_output, "s3://results/ours/today")
    assert is_allowed(within.check_output, str(root / "out"))
    for address in ("s3://in/out", "s3://results/theirs", "s3://results/ours/../theirs"):
        with pytest.raises(JobRefused, match=r"jobs\.output_stores"):
            within.check_output(address)
    with pytest.raises(JobRefused, match=r"jobs\.stores"):
        within.check("s3://results/ours/today/data-0.parquet")


def test_results_go_nowhere_else(root: Path, within: Confinement, tmp_path: Path):
    """Neither by name nor through a link, and nothing is made there."""
    (root / "up").symlink_to(tmp_path)
    for out in (tmp_path / "out", root / "up" / "out", root / ".." / "out"):
        with pytest.raises(JobRefused, match=r"jobs\.roots"):
            plan(make_spec(), [str(root / "in")], out, within=within)
    assert not (tmp_path / "out").exists()


def test_a_file_that_becomes_a_link_after_it_was_planned_is_not_read(root: Path, within: Confinement, tmp_path: Path):
    """Each time that a file is opened it is looked at again, also by one who goes on with a plan that was there."""
    out = root / "out"
    plan(make_spec(), [str(root / "in" / "rows.jsonl")], out, within=within)
    planned = root / "in" / "rows.jsonl"
    shutil.move(planned, tmp_path / "moved.jsonl")
    planned.symlink_to(tmp_path / "moved.jsonl")
    with pytest.raises(JobRefused, match=r"jobs\.roots"):
        run(open_job(out, within), Script())
    assert not list(out.glob("data-*"))
