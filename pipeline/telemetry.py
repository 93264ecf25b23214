"""Metrics and their names. No label ever carries a prompt or an output."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pipeline.engine.base import EngineStats

FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SLOW_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096)


class Metrics:
    """Every metric of one worker process, in a registry of its own."""

    def __init__(self) -> None:
        r = self.registry = CollectorRegistry()
        self._followed: dict[Counter, int] = {}
        self.requests_running = Gauge("penstock_requests_running", "Requests in the running batch.", registry=r)
        self.requests_waiting = Gauge("penstock_requests_waiting", "Requests admitted and waiting for the batch.", registry=r)
        self.requests = Counter("penstock_requests", "Requests by how they ended.", ["outcome"], registry=r)
        self.time_to_first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds", "Admission to first token.", ["model"], buckets=FAST_S, registry=r
        )
        self.time_per_output_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds", "Mean gap between the tokens after the first.", ["model"], buckets=FAST_S, registry=r
        )
        self.request_duration = Histogram("gen_ai_server_request_duration_seconds", "Admission to last token.", ["model"], buckets=SLOW_S, registry=r)
        self.first_token_leg = Histogram(
            "penstock_first_token_leg_seconds",
            "Parts of the way from a request's record to its first token's, of streams.",
            ["leg", "lane"],
            buckets=FAST_S,
            registry=r,
        )
        self.queue_age = Histogram("penstock_request_queue_seconds", "Record timestamp to the poll that brought it.", buckets=SLOW_S, registry=r)
        self.prompt_tokens = Counter("penstock_prompt_tokens", "Prompt tokens of admitted requests.", registry=r)
        self.generation_tokens = Counter("penstock_generation_tokens", "Output tokens.", registry=r)
        self.batch_sequences = Histogram("penstock_batch_sequences", "Sequences in a step.", buckets=SIZES, registry=r)
        self.batch_tokens = Histogram("penstock_batch_tokens", "Tokens in a step.", buckets=SIZES, registry=r)
        self.step_time = Histogram("penstock_step_seconds", "Wall time of an engine step.", buckets=FAST_S, registry=r)
        self.batch_closed = Counter("penstock_batch_closed", "Steps, by what kept more out of their batch.", ["reason"], registry=r)
        self.step_error = Gauge("penstock_step_error_ratio", "Error of the predicted step time that 95 of 100 steps stay below.", registry=r)
        self.preemptions = Gauge("penstock_preemptions", "Sequences preempted since the start.", registry=r)
        self.deferrals = Gauge("penstock_deferrals", "Live sequences put behind those that can be on time, since the start.", registry=r)
        self.kv_blocks_used = Gauge("penstock_kv_blocks_used", "KV blocks in use.", registry=r)
        self.kv_blocks_total = Gauge("penstock_kv_blocks_total", "KV blocks there are.", registry=r)
        self.prefix_query_tokens = Counter("penstock_prefix_cache_query_tokens", "Tokens looked for in the prefix cache.", registry=r)
        self.prefix_hit_tokens = Counter("penstock_prefix_cache_hit_tokens", "Tokens found there, which were not computed again.", registry=r)
        self.unacknowledged_bytes = Gauge("penstock_unacknowledged_bytes", "Bytes sent and not yet acknowledged by the log.", registry=r)
        self.events = Counter("penstock_events", "Records written to the log.", registry=r)
        self.dead_letters = Counter("penstock_dead_letters", "Records written to the dead letters.", ["code"], registry=r)
        self.rate_limited = Counter("penstock_rate_limited", "Requests refused for being above their tenant's rate.", ["tenant"], registry=r)
        self.rate_limit_store_up = Gauge("penstock_rate_limit_store_up", "Whether the store of shared rates answers.", registry=r)
        self.overloaded = Counter("penstock_overloaded", "Requests refused for want of room or time.", ["reason"], registry=r)
        self.cache_lookups = Counter("penstock_response_cache_lookups", "Deterministic requests looked up.", ["result"], registry=r)
        self.cache_bytes = Gauge("penstock_response_cache_bytes", "What the answers kept weigh.", registry=r)
        self.partitions = Gauge("penstock_partitions_assigned", "Request partitions owned.", registry=r)
        self.open_offsets = Gauge("penstock_open_offsets", "Request records taken and not yet done.", registry=r)
        self.bulk_exchanges = Gauge("penstock_bulk_exchanges", "Callers whose rows are being computed.", registry=r)
        self.bulk_rows_running = Gauge("penstock_bulk_rows_running", "Rows from the bulk door that engines hold.", registry=r)
        self.bulk_yielding = Gauge("penstock_bulk_yielding", "Whether rows at the bulk door wait for live requests.", ["reason"], registry=r)
        self.bulk_rows = Counter("penstock_bulk_rows", "Rows from the bulk door by how they ended.", ["outcome"], registry=r)

    def observe_engines(self, stats: Sequence[EngineStats]) -> None:
        """Sets the gauges that engines answer for, over all models of the process."""
        self.requests_running.set(sum(s.running for s in stats))
        self.requests_waiting.set(sum(s.waiting for s in stats))
        self.kv_blocks_used.set(sum(s.kv_blocks_used for s in stats))
        self.kv_blocks_total.set(sum(s.kv_blocks_total for s in stats))
        self.preemptions.set(sum(s.preemptions_total for s in stats))
        self.deferrals.set(sum(s.deferrals_total for s in stats))
        self._follow(self.prefix_query_tokens, sum(s.prefix_query_tokens_total for s in stats))
        self._follow(self.prefix_hit_tokens, sum(s.prefix_hit_tokens_total for s in stats))

    def observe_step(self, stats: EngineStats, seconds: float) -> None:
        """Records one engine step."""
        self.batch_sequences.observe(stats.batch_sequences)
        self.batch_tokens.observe(stats.batch_tokens)
        self.step_time.observe(seconds)
        if stats.batch_closed is not None and stats.batch_sequences:
            self.batch_closed.labels(stats.batch_closed.value).inc()
        if stats.step_error_p95 is not None:
            self.step_error.set(stats.step_error_p95)

    def _follow(self, counter: Counter, total: int) -> None:
        """Brings a counter up to a total that engines keep."""
        counter.inc(total - self._followed.get(counter, 0))
        self._followed[counter] = total
