"""The end of a job: its manifest, and nothing left that no reader trusts. It may be done again and again."""

import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from pipeline.offline import files
from pipeline.offline.plan import Job
from pipeline.offline.refusals import JobBusy, ResultGone
from schemas.outcome import JobState, Manifest, OutputFile, ShardCommit, TokenUsage


def finalise(job: Job, state: JobState = JobState.COMPLETED) -> Manifest:
    """Writes the manifest of a job whose shards are all committed, or of what there is of one that was cancelled.

    Raises:
        JobBusy: Some shards are not done.
        JobRefused: A file of results is gone.
        StoreAway: They lie in a store, and it cannot be reached.
    """
    found = [job.folder.commit(shard.number) for shard in job.plan.shards]
    commits = [commit for commit in found if commit is not None]
    if state is JobState.COMPLETED and len(commits) < len(found):
        raise JobBusy(f"{len(found) - len(commits)} of {len(found)} shards are not done")
    trusted = [file for commit in commits for file in commit.files]
    manifest = _manifest(job, state, commits)
    if job.store is None:
        _check_there(job, trusted)
    else:
        job.store.publish(manifest)
    files.replace(job.folder.manifest_file, manifest.to_bytes())
    _sweep(job, {file.name for file in trusted if job.store is None})
    return manifest


def _manifest(job: Job, state: JobState, commits: Sequence[ShardCommit]) -> Manifest:
    usage = sum((commit.usage for commit in commits), TokenUsage())
    active_s = _active_s(commits)
    rows, errors = sum(commit.rows for commit in commits), sum(commit.failed_rows for commit in commits)
    return Manifest(
        state=state,
        spec=job.spec,
        fingerprint=job.spec.fingerprint,
        inputs=job.plan.files,
        shards=len(commits),
        planned_rows=job.plan.rows,
        data_rows=rows - errors,
        error_rows=errors,
        error_codes=dict(sum((Counter(commit.error_codes) for commit in commits), Counter())),
        usage=usage,
        dtypes=tuple(sorted({commit.dtype for commit in commits})),
        active_s=active_s,
        rows_per_s=rows / active_s if active_s else 0.0,
        tokens_per_s=(usage.prompt_tokens + usage.output_tokens) / active_s if active_s else 0.0,
        data=tuple(commit.data for commit in commits if commit.data is not None),
        errors=tuple(commit.errors for commit in commits if commit.errors is not None),
    )


def _active_s(commits: Sequence[ShardCommit]) -> float:
    """How long some shard was worked on, in the attempts that were committed."""
    total_ms = until_ms = 0
    for start_ms, end_ms in sorted((commit.started_ms, commit.finished_ms) for commit in commits):
        total_ms += max(end_ms - max(start_ms, until_ms), 0)
        until_ms = max(until_ms, end_ms)
    return total_ms / 1_000


def _check_there(job: Job, trusted: Sequence[OutputFile]) -> None:
    for file in trusted:
        path = job.folder.path / file.name
        if not path.is_file() or path.stat().st_size != file.size_bytes:
            raise ResultGone(str(path), job.folder.commits)


def _sweep(job: Job, trusted: set[str]) -> None:
    """Removes what crashed attempts left. Of a job that was cancelled others may still be at work; theirs stays until they are done."""
    for path in job.folder.result_files():
        if path.name not in trusted:
            path.unlink(missing_ok=True)
    if not any(job.commits_missing()):
        with suppress(FileNotFoundError):  # swept before, or by somebody else now
            shutil.rmtree(job.folder.journal)
