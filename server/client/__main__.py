"""``python -m server.client``: talk to an avatar from a terminal.

Invariants:
    * what a person can mend is one line on stderr and exit code 1; a typed line that is refused ends nothing;
    * with ``--say`` or ``--ask`` and no ``--mic`` it ends when everything was said, else when the input ends, unless a
      microphone or a number of seconds says otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
from contextlib import AsyncExitStack
from typing import Any

from engine.aio import Subscription
from engine.errors import VisavisError
from engine.types import Event
from server.client.devices import Loudspeaker, microphone
from server.client.head import TalkingHead

KEY_VARIABLE = "VISAVIS_KEY"
_TURN_ENDS = {"answered", "interrupted", "withdrawn", "empty", "failed", "not_addressed"}
_TAIL_S = 0.3
"""What is on its way when the last word was said."""


def main(argv: list[str] | None = None) -> int:
    """Runs the client; returns the exit code."""
    try:
        asyncio.run(_talk(_arguments(argv)))
    except VisavisError as error:
        print(error.message, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m server.client",
        description="Talk to an avatar from a terminal. Type what it is to answer; /say TEXT has it repeat a text, "
        "/interrupt silences it, /quit ends.",
    )
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="address of the server")
    parser.add_argument("--avatar", help="name of the face")
    parser.add_argument("--mode", choices=("converse", "mirror", "say"), help="what becomes of the microphone")
    parser.add_argument("--style", help="how it answers")
    parser.add_argument("--key", default=os.environ.get(KEY_VARIABLE, ""), help=f"API key; better in {KEY_VARIABLE}")
    parser.add_argument("--mic", action="store_true", help="send this machine's microphone; wear headphones")
    parser.add_argument("--silent", action="store_true", help="do not play the sound")
    parser.add_argument("--say", action="append", default=[], metavar="TEXT", help="have it say a text")
    parser.add_argument("--ask", action="append", default=[], metavar="TEXT", help="have it answer a text")
    parser.add_argument("--save", metavar="FILE.mp4", help="record what is seen and heard")
    parser.add_argument("--seconds", type=float, help="end after so many seconds")
    parser.add_argument("--json", action="store_true", help="print every event as a line of JSON")
    return parser.parse_args(argv)


async def _talk(wanted: argparse.Namespace) -> None:
    head = TalkingHead(
        wanted.url, avatar=wanted.avatar, mode=wanted.mode, key=wanted.key, style=wanted.style or None
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(head)
        group = await stack.enter_async_context(_Background())
        group.start(_print_events(head.events(), wanted.json))
        if wanted.save:
            group.start(head.record(wanted.save))
        if not wanted.silent:
            speaker = Loudspeaker()
            stack.enter_context(speaker.playing())
            group.start(_play(head, speaker))
        if wanted.mic:
            stack.enter_context(microphone(head))
        typed = not (wanted.say or wanted.ask) or wanted.mic
        if typed and not wanted.json:
            print("Connected. Type to talk; /say TEXT, /interrupt, /quit.", flush=True)
        try:
            async with asyncio.timeout(wanted.seconds):
                await group.either(_lines(head, wanted, typed), head.ended())
        except TimeoutError:
            pass


class _Background:
    """Tasks beside the conversation: the first one that fails ends it."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> _Background:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, VisavisError):
                raise error

    def start(self, work: Any) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def either(self, *works: Any) -> None:
        """Returns when one of these has ended, or raises what ended a task beside them."""
        mine = [asyncio.ensure_future(work) for work in works]
        try:
            done, _ = await asyncio.wait({*mine, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in mine:
                task.cancel()
            await asyncio.gather(*mine, return_exceptions=True)


async def _lines(head: TalkingHead, wanted: argparse.Namespace, typed: bool) -> None:
    for text in wanted.say:
        await _said(head, text)
    for text in wanted.ask:
        await _answered(head, text)
    if typed:
        lines = _typed_lines()
        while (line := await lines.get()) is not None:
            if line.split()[:1] == ["/quit"]:
                return
            try:
                await _obey(head, line.strip())
            except VisavisError as error:
                if not head.connected:
                    raise
                print(f"  ! {error.message}", file=sys.stderr, flush=True)
        if wanted.mic or wanted.seconds:
            # Whoever has no terminal says by other means when it is enough.
            await head.ended()
    else:
        await asyncio.sleep(_TAIL_S)


async def _obey(head: TalkingHead, line: str) -> None:
    match line.partition(" "):
        case ("", *_):
            pass
        case ("/interrupt", *_):
            await head.interrupt()
        case ("/say", _, text):
            await head.say(text)
        case _:
            await head.ask(line)


async def _said(head: TalkingHead, text: str) -> None:
    events = head.events()
    utterance = await head.say(text)
    async for event in events:
        over = event.type == "speaking" and not event.data.get("speaking")
        if event.data.get("utterance_id") == utterance and (over or event.type == "error"):
            break
    await events.aclose()


async def _answered(head: TalkingHead, text: str) -> None:
    events = head.events()
    turn = await head.ask(text)
    async for event in events:
        if event.type == "turn" and event.data.get("turn_id") == turn and event.data.get("state") in _TURN_ENDS:
            break
    await events.aclose()


def _typed_lines() -> asyncio.Queue[str | None]:
    """Lines from the input, None at its end."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        try:
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, None)
        except RuntimeError:
            pass  # the loop has ended meanwhile

    # A daemon: a terminal cannot be asked to stop waiting for a line.
    threading.Thread(target=read, name="typed", daemon=True).start()
    return lines


async def _play(head: TalkingHead, speaker: Loudspeaker) -> None:
    async for sound in head.audio():
        speaker.put(sound.samples)


async def _print_events(events: Subscription[Event], as_json: bool) -> None:
    async for event in events:
        if as_json:
            print(json.dumps({"type": event.type, **event.data}, ensure_ascii=False), flush=True)
        elif event.type == "caption":
            print(f"  avatar: {event.data['text']}", flush=True)
        elif event.type == "transcript" and event.data.get("final"):
            print(f"  you: {event.data['text']}", flush=True)
        elif event.type == "error":
            print(f"  ! {event.data['message']}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
