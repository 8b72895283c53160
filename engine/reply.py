"""A reply that grows while it is heard: sentences go in one by one, and what was really heard of them can be asked.

Place in the flow: dialogue -> Reply of sentences, or of sound and captions -> feeder (voice) -> Speech -> producer.

Invariants:
    * parts are heard in the order they were added, and none after ``end``;
    * what was heard follows from captions and the sound that left the producer: a word counts once half of it sounded.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Sequence

from engine.conversation.tts.base import SpeechPiece
from engine.speech import Caption, Speech

Part = str | SpeechPiece | Caption
"""A sentence for the voice; or sound that is there already, without text, and captions that belong to it."""


class Reply:
    """One utterance made of parts; from ``Session.open_reply``.

    Args:
        speech: its sound.

    Attributes:
        utterance_id: as events call it.
        captions: of all sentences that have sound so far, and those that were added.
        first_sound_s: when the first sound of it was there, monotonic seconds; None before.
        failed: whether the voice failed; what it had said before plays to its end.
    """

    def __init__(self, speech: Speech) -> None:
        self.utterance_id = speech.utterance_id
        self.captions: list[Caption] = []
        self.first_sound_s: float | None = None
        self.failed = False
        self._speech = speech
        self._waiting: deque[Part] = deque()
        self._ended = False
        self._added = asyncio.Event()

    def add(self, part: Part) -> None:
        """Says a part after those before it; ignored once ended or cut off."""
        if not self._ended and not self._speech.closed:
            self._waiting.append(part)
            self._added.set()
            if isinstance(part, Caption):
                self.captions.append(part)

    def time(self, captions: Sequence[Caption]) -> None:
        """Puts better captions in the place of those that were added, for whoever asks what was heard."""
        self.captions = list(captions)

    def end(self) -> None:
        """No more sentences will come; what is there is heard to its end. Idempotent."""
        self._ended = True
        self._added.set()

    async def parts(self) -> AsyncIterator[Part]:
        """Parts as they are added; ends with the reply. For one reader."""
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._ended:
                return
            self._added.clear()
            await self._added.wait()

    @property
    def played_out(self) -> bool:
        """True once all of it was heard, or nothing of it will be any more."""
        return self._speech.played_out

    @property
    def speech(self) -> Speech:
        """Its sound."""
        return self._speech

    def plays(self, speech: Speech | None) -> bool:
        """Whether this is the sound of this reply."""
        return speech is self._speech

    @property
    def heard_ms(self) -> int:
        """Sound of it that was really heard, milliseconds."""
        return self._speech.heard_ms

    @property
    def heard_text(self) -> str:
        """The text that was really heard."""
        return heard_text(self.captions, self._speech.heard_ms)


def heard_text(captions: Sequence[Caption], heard_ms: int) -> str:
    """The part of captions that sounded in the first ``heard_ms``; cut after a whole word, with its punctuation.

    Where a voice tells no words, the text is taken to run evenly through its sound.
    """
    parts = []
    # Where a voice only guessed how long a sentence would be, it ends where the next one begins.
    for caption, following in itertools.zip_longest(captions, captions[1:]):
        if (caption.end_ms if following is None else min(caption.end_ms, following.start_ms)) <= heard_ms:
            parts.append(caption.text)
            continue
        if caption.start_ms < heard_ms:
            parts.append(_beginning(caption, heard_ms))
        break
    return " ".join(part for part in parts if part)


def _beginning(caption: Caption, heard_ms: int) -> str:
    if not caption.words:
        share = (heard_ms - caption.start_ms) / max(1, caption.end_ms - caption.start_ms)
        cut = caption.text[: round(share * len(caption.text))]
        # Scripts without blanks are cut anywhere, the others before the word that was cut off.
        return (cut.rpartition(" ")[0] or cut) if " " in caption.text else cut
    end = 0
    for word in caption.words:
        if (word.start_ms + word.end_ms) / 2 > heard_ms:
            break
        at = caption.text.find(word.text, end)
        # A voice may name a word otherwise than it is written ("3" as "three"): it goes with its neighbour.
        end = at + len(word.text) if at >= 0 else end
    while 0 < end < len(caption.text) and not caption.text[end].isspace() and not caption.text[end].isalnum():
        end += 1
    return caption.text[:end].rstrip()
