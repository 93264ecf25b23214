"""How places for results may be spelt."""

import pytest

from pipeline.offline.addresses import absolute, extended, parse_output, store_of
from pipeline.offline.refusals import JobRefused


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("s3://bucket/out", "s3://bucket/out"),
        ("S3://bucket/out/", "s3://bucket/out"),
        ("gs://bucket/", "gs://bucket"),
        ("s3://bucket/out/?region=eu&scheme=http", "s3://bucket/out?region=eu&scheme=http"),
        ("hdfs:///out", "hdfs:///out"),
        ("s3://bucket/day=1", "s3://bucket/day=1"),
        ("out/a", "out/a"),
        ("/out/a:b", "/out/a:b"),
    ],
)
def test_a_place_has_one_spelling(text: str, read: str):
    """The job is told by it; paths stay as they are given."""
    assert parse_output(text) == read
    assert parse_output(read) == read


@pytest.mark.parametrize(
    "text",
    [
        "s3:/bucket/out",
        "s3://",
        "s3:///?region=eu",
        "s3://bucket/a//b",
        "s3://bucket/../other",
        "s3://bucket/%2e%2e/other",
        "s3://bucket/*",
        "s3://bucket/[ab]",
        "s3://bucket/out#x",
        "s3://buck\net/out",
        "s3://[bucket/out",
    ],
)
def test_what_may_be_taken_for_different_places_is_refused(text: str):
    """The message says how to write it."""
    with pytest.raises(JobRefused, match="write SCHEME://BUCKET"):
        parse_output(text)


def test_a_folder_of_this_machine_is_named_by_its_path():
    """Not as if it were a store, which has neither locks nor links."""
    with pytest.raises(JobRefused, match="leave out file://"):
        parse_output("file:///out")


@pytest.mark.parametrize(
    "text", ["s3://me:hidden@bucket/out", "abfs://c/out?client_secret=hidden", "abfs://c/out?sv=1&sig=hidden", "s3://b?Secret_Key=hidden"]
)
def test_what_is_secret_is_refused_and_not_repeated(text: str):
    """Addresses are kept with the job and shown in lists."""
    with pytest.raises(JobRefused, match="by the environment") as refused:
        parse_output(text)
    assert "hidden" not in str(refused.value)


def test_names_are_put_before_the_query(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """So that an address of results can be an input again."""
    monkeypatch.chdir(tmp_path)
    assert extended("s3://bucket/out?region=eu", "/data-0.parquet") == "s3://bucket/out/data-0.parquet?region=eu"
    assert extended("/out?", "-retry") == "/out?-retry"
    assert (absolute("s3://bucket"), absolute("out")) == ("s3://bucket", f"{tmp_path}/out")
    assert (store_of("s3://bucket"), store_of("out")) == ("s3://bucket", None)
