"""Who has the floor: the turn whose answer is made or heard, the one that may take it, and words left to the next.

Place in the flow: dialogue (what the person does) -> Floor -> answerer, session.

Invariants:
    * at most one turn is answered; at most one other, said over it, waits for its words as the contender;
    * a turn of which nothing was heard may be withdrawn, and leaves its words to the turn that follows;
    * a protected turn is only ever ended by its own end, by Stop or by typed text.
"""

from __future__ import annotations

import asyncio

from engine.aio import Tasks
from engine.conversation.answer import Answerer, Outcome, Turn
from engine.conversation.roles import Speaker


class Floor:
    """The floor of one dialogue.

    Args:
        speaker: the session.
        answerer: tells and keeps what comes of turns.
        tasks: of the dialogue.

    Attributes:
        turn: whose answer is made or heard.
        contender: who may take the floor from it.
        carried: words of withdrawn turns, for the turn that follows.
    """

    def __init__(self, speaker: Speaker, answerer: Answerer, tasks: Tasks) -> None:
        self.turn: Turn | None = None
        self.contender: Turn | None = None
        self.carried = ""
        self._speaker = speaker
        self._answerer = answerer
        self._tasks = tasks

    def begin(self, turn: Turn) -> None:
        """Gives a turn the floor; nobody else may have it."""
        self.turn = turn
        if turn.addressed:
            self._answerer.tell(turn, "thinking")

    def enter(self, turn: Turn) -> asyncio.Task[None] | None:
        """A turn comes, whose words are not known yet: it has the floor, or contends for it.

        Returns:
            The task it has to wait for, because it inherits that one's words.
        """
        before = self.contender or self.turn
        if before is not None and _may_be_withdrawn(before):
            self.supersede(before)
        if self.turn is not None and not _may_be_withdrawn(self.turn):
            self.contender = turn
        else:
            self.begin(turn)
        return before.task if before is not None and before.superseded else None

    def withdraw(self) -> None:
        """The person goes on speaking: an answer of which nothing was heard yet is made anew, to all they say."""
        for turn in (self.contender, self.turn):
            if turn is not None and _may_be_withdrawn(turn):
                self.supersede(turn)

    def supersede(self, turn: Turn) -> None:
        """Another turn takes over the words of this one."""
        turn.superseded = True
        # Words that are still being recognised are wanted all the same; their turn ends when it has them.
        if turn.stage != "recogniser":
            self.carry(turn)

    def carry(self, turn: Turn) -> None:
        """Leaves the words of a turn to the one that follows it."""
        self.carried = turn.text
        if turn is self.contender:
            self.contender = None
        if turn is self.turn:
            self.turn = None
        if turn.addressed:
            self._answerer.tell(turn, "withdrawn")
        self._cancel(turn)
        if turn.reply is not None:
            self._tasks.start(self._speaker.cut_off(turn.reply), "cut-off")

    def inherit(self, text: str) -> str:
        """Words with those that were left for them in front."""
        carried, self.carried = self.carried, ""
        return f"{carried} {text}".strip()

    def take(self, turn: Turn) -> None:
        """The contender takes the floor from an answer that is being heard, which ends."""
        before, self.contender = self.turn, None
        self.yield_up()
        if before is not None and before.reply is not None:
            self._tasks.start(self._speaker.cut_off(before.reply), "cut-off")
        self.begin(turn)

    def interrupt(self) -> None:
        """Ends the answer that waits, paused; a turn whose words are still awaited is what paused it, and stays."""
        if self.turn is not None and not self.turn.awaits_words:
            self.yield_up()

    def promote(self) -> None:
        """Gives the floor to the contender, if there is one; nobody else has it."""
        contender, self.contender = self.contender, None
        if contender is not None:
            self.begin(contender)

    def reinstate(self) -> None:
        """The person did not go on speaking: whoever waits for words keeps them."""
        turns = [turn for turn in (self.contender, self.turn) if turn is not None]
        for turn in turns:
            turn.superseded = False
        if self.turn is not None and not any(turn.awaits_words for turn in turns):
            self.carried = ""  # they were said over an answer, which goes on

    def yield_up(self) -> None:
        """Ends the answer that is being heard or made."""
        turn, self.turn = self.turn, None
        if turn is not None:
            self._answerer.keep(turn, "interrupted")
            self._cancel(turn)

    def clear(self) -> None:
        """Stop: nobody has the floor, and nobody wants it."""
        self.carried = ""
        contender, self.contender = self.contender, None
        if contender is not None:
            self._cancel(contender)
        self.yield_up()

    def finish(self, turn: Turn, outcome: Outcome) -> None:
        """A turn has come to its end; keeps and tells that, if it had the floor or was meant for somebody else.

        One that has no words to leave to the next is told, nothing more.
        """
        had_it = turn is self.turn
        if had_it:
            self.turn = None
        if turn is self.contender:
            self.contender = None
        if had_it or outcome == "not_addressed":
            self._answerer.keep(turn, outcome)
        elif turn.superseded and turn.awaits_words and turn.addressed:
            self._answerer.tell(turn, outcome)

    @staticmethod
    def _cancel(turn: Turn) -> None:
        if turn.task is not None and turn.task is not asyncio.current_task():
            turn.task.cancel()


def _may_be_withdrawn(turn: Turn) -> bool:
    return not turn.audible and not turn.protected
