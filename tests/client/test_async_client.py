"""The asynchronous client, against a scripted worker on the embedded log."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from pipeline.client import AsyncClient
from pipeline.settings import Settings
from pipeline.transport.base import BrokerUnavailable, Transport, UnknownTopic
from schemas.errors import Cancelled, DuplicateRequest, EngineError, InvalidRequest, Overloaded
from tests.client.conftest import Work
from tests.scripted_worker import Script, Voice, echo, wait_for_cancel
from tests.waiting import wait_for

Use = Callable[[AsyncClient], Awaitable[None]]


def chat(text: str, **more: object) -> dict[str, object]:
    """A body of one user message."""
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture
def run(settings: Settings, transport: Transport) -> Callable[[Use], None]:
    """Runs a coroutine with a client, in a loop that ends within a minute."""

    async def with_client(use: Use) -> None:
        async with asyncio.timeout(60.0), AsyncClient(settings, transport, timeout_s=10.0) as client:
            await use(client)

    return lambda use: asyncio.run(with_client(use))


def test_a_stream_yields_what_the_worker_says_in_order(run: Callable[[Use], None], work: Work):
    """Every delta carries the text and tokens of one event, and the result is all of them together."""
    work(echo)

    async def use(client: AsyncClient) -> None:
        assert [d.text async for d in client.stream(chat("one two"))] == ["one", " two"]
        handle = await client.submit(chat("one two", stream=True))
        assert [d.token_ids async for d in handle] == [(0,), (1,)]
        assert (await handle.result()).text == "one two"
        assert handle.is_done
        assert (await client.chat("hello", model="tiny")).text == "hello"
        assert (await client.complete("there", model="tiny")).text == "there"

    run(use)


def test_many_streams_are_followed_at_once(run: Callable[[Use], None], work: Work):
    """Streams that all run together are read together in one loop, and none blocks another."""
    worker = work(wait_for_all(8))

    async def follow(client: AsyncClient, number: int) -> str:
        return "".join([d.text async for d in client.stream(chat(f"{number} is here"))])

    async def use(client: AsyncClient) -> None:
        assert await asyncio.gather(*(follow(client, n) for n in range(8))) == [f"{n} is here" for n in range(8)]

    run(use)
    assert len(worker.taken) == 8


def wait_for_all(count: int) -> Callable[[Voice], Script]:
    """A script that says nothing until so many requests have come."""
    present: list[Voice] = []

    def script(voice: Voice) -> Script:
        present.append(voice)
        while len(present) < count:
            yield
        yield from echo(voice)

    return script


def test_the_loop_goes_on_while_an_answer_is_awaited(run: Callable[[Use], None], work: Work):
    """Other tasks run while the client connects, submits and waits."""
    go_on = threading.Event()

    def slow(voice: Voice) -> Script:
        while not go_on.is_set():
            yield
        voice.line("done")

    work(slow)

    async def use(client: AsyncClient) -> None:
        handle = await client.submit(chat("go"))
        waiting = asyncio.create_task(handle.result(30.0))
        await asyncio.sleep(0)
        assert not waiting.done()
        go_on.set()
        assert (await waiting).text == "done"

    run(use)


def test_an_answer_that_starts_over_says_so(run: Callable[[Use], None], work: Work):
    """Who was shown a void beginning gets a piece that says so."""
    shown = threading.Event()

    def starts_over(voice: Voice) -> Script:
        voice.begin()
        voice.chunk("wrong", 1)
        while not shown.is_set():
            yield
        voice.reset()
        voice.chunk("right", 2)
        voice.end()

    work(starts_over)

    async def use(client: AsyncClient) -> None:
        pieces = []
        async for delta in client.stream(chat("go")):
            pieces.append((delta.text, delta.restarted))
            shown.set()
        assert pieces == [("wrong", False), ("", True), ("right", False)]

    run(use)


def test_a_failed_request_raises_its_class(run: Callable[[Use], None], work: Work):
    """The wire's code becomes the tree's class, in the iterator and in the result."""

    def fails(voice: Voice) -> Script:
        voice.begin()
        voice.fail(EngineError("broken"))
        yield

    work(fails)

    async def use(client: AsyncClient) -> None:
        handle = await client.submit(chat("go", stream=True))
        with pytest.raises(EngineError, match="broken"):
            await handle.result(10.0)
        with pytest.raises(EngineError, match="broken"):
            [d async for d in handle]
        with pytest.raises(InvalidRequest, match="stream"):
            [d async for d in await client.submit(chat("go"))]

    run(use)


def test_cancels_reach_the_worker(run: Callable[[Use], None], work: Work):
    """By the handle, by leaving it unfinished, by closing the iterator early, and by name."""
    worker = work(wait_for_cancel)

    async def use(client: AsyncClient) -> None:
        by_handle = await client.submit(chat("go", stream=True))
        await by_handle.cancel()
        async with await client.submit(chat("go", stream=True)) as left:
            pass
        by_name = await client.submit(chat("go", stream=True), custom_id="named")
        await client.cancel("named")
        for handle in (by_handle, left, by_name):
            with pytest.raises(Cancelled):
                await handle.result(10.0)
        stream = client.stream(chat("go"), custom_id="closed early")
        assert (await anext(stream)).text == "well"
        await stream.aclose()
        await client.cancel("the last one")

    run(use)
    wait_for(lambda: "the last one" in worker.cancelled)
    assert {"named", "closed early"} <= worker.cancelled


def test_a_late_answer_is_a_timeout(run: Callable[[Use], None], work: Work):
    """A wait that ends early raises TimeoutError, and the handle can be waited for again."""
    work(wait_for_cancel)

    async def use(client: AsyncClient) -> None:
        handle = await client.submit(chat("go", stream=True))
        with pytest.raises(TimeoutError):
            await handle.result(0.05)
        await handle.cancel()
        with pytest.raises(Cancelled):
            await handle.result(10.0)

    run(use)


def test_open_requests_are_bounded(settings: Settings, transport: Transport, work: Work):
    """`submit` waits for room without blocking the loop, and raises `Overloaded` where none comes."""
    work(wait_for_cancel)

    async def use() -> None:
        async with AsyncClient(settings, transport, timeout_s=0.5, max_open=1) as client:
            first = await client.submit(chat("a", stream=True))
            with pytest.raises(Overloaded):
                await client.submit(chat("b", stream=True))
            abandoned = asyncio.create_task(client.submit(chat("given up", stream=True)))
            await asyncio.sleep(0)
            abandoned.cancel()
            waiting = asyncio.create_task(client.submit(chat("b", stream=True)))
            await asyncio.sleep(0)
            await first.cancel()
            second = await waiting
            assert (await anext(aiter(second))).text == "well"

    asyncio.run(use())


def test_a_log_without_topics_and_a_name_used_twice_are_refused(settings: Settings, transport: Transport, work: Work):
    """What goes wrong before a request is out is raised by `submit`."""
    work(echo)
    other = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"topic_prefix": "nothing-here"})})

    async def use() -> None:
        async with AsyncClient(other, transport, timeout_s=2.0) as client:
            with pytest.raises(UnknownTopic):
                await client.submit(chat("go"))
        async with AsyncClient(settings, transport, timeout_s=10.0) as client:
            await client.submit(chat("go"), custom_id="same")
            with pytest.raises(DuplicateRequest):
                await client.submit(chat("go"), custom_id="same")

    asyncio.run(use())


def test_a_closed_client_leaves_nobody_waiting(settings: Settings, transport: Transport):
    """Open handles fail when the client closes."""

    async def use() -> None:
        client = AsyncClient(settings, transport)
        waiting = asyncio.create_task((await client.submit(chat("nobody answers"))).result())
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(BrokerUnavailable, match="closed"):
            await waiting

    asyncio.run(use())
