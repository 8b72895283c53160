"""Everything sessions share: the avatars and their characters, the models, the voices, and still pictures.

Place in the flow: Config -> ``Stage.open`` -> ``Stage.create_session`` for each offer, posters and cards for the page.

Invariants:
    * once open, the default avatar is loaded and prepared: the first visitor waits for nothing;
    * beside the default and those that sessions show, few avatars stay loaded, and fewer where their pictures are not
      mapped but in memory, a hundred megabytes or more each;
    * an avatar is found by looking its name up in the library; no text of a caller becomes a path;
    * files are read on threads of the stage's own, never on the loop's default executor.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import av
import cv2
import numpy as np

from engine.avatar.bundle import IDLE_FILE, Avatar, default_avatar, load_avatar
from engine.avatar.pictures import FOLDER, RESIDENT, PictureFiles
from engine.config import Config
from engine.conversation.history import Line
from engine.conversation.voice.base import VoiceChange
from engine.errors import AvatarInvalid, ConfigInvalid, NotFound
from engine.metrics import EngineMetrics
from engine.quality import Quality, wanted_level
from engine.registry import create_lipsync, create_restorer
from engine.renderer import Renderer
from engine.session import Mode, Session, SessionLimits
from engine.voice_choice import VoiceChoice
from engine.voice_stages import VoiceStages
from server.access.grant import NOWHERE, Standing
from server.character import Character, character_of
from server.host import Host
from server.language_models import LanguageModels
from server.library import Library
from server.manner import Manner
from server.packing import Background
from server.thumbnails import make_thumbnail
from server.voices import Voices

logger = logging.getLogger(__name__)

POSTER_QUALITY = 90
FILE_THREADS = 2
AVATARS_KEPT = 8
"""Avatars that stay loaded, those that sessions show included; more only while sessions show more."""
AVATARS_KEPT_BYTES = 512 << 20
"""Memory that all of them may take together, likewise; those with mapped pictures take none."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What somebody wants of a session.

    Attributes:
        quality: how much is restored; the option's value when None.
        style: in which it answers; the avatar's own when empty.
        language_model: id of what answers; the configured one when empty.
        background: what is behind the person; as filmed when None.
        priority: 0 to 9; who has less goes short first.
        voice: how its voice is changed; as the options say when None.
        former: id of a session that was lost and goes on with this one; empty for none.
        lines: what was said in that session.
        standing: how it stands with the line, where that is kept by whoever gives the place.
    """

    quality: Quality | None = None
    style: str = ""
    language_model: str = ""
    background: Background | None = None
    priority: int = 5
    voice: VoiceChange | None = None
    former: str = ""
    lines: tuple[Line, ...] = ()
    standing: Standing = NOWHERE


NO_WISHES = Wishes()


@dataclass(frozen=True, slots=True)
class Poster:
    """A still picture of an avatar at rest.

    Attributes:
        jpeg: the file.
        etag: changes with the picture.
    """

    jpeg: bytes
    etag: str


class Stage:
    """What all sessions of a server share. Made by ``open``."""

    def __init__(self, config: Config, metrics: EngineMetrics, library: Library) -> None:
        """Use ``open``. Args: config: options; metrics: where the engine counts; library: avatars."""
        self.config = config
        self.metrics = metrics
        self.library = library
        self.cards = library.cards
        shipped = [name for name in library.cards if not library.is_made(name)]
        self.default = config.avatar or default_avatar(shipped or library.cards)
        self._renderer: Renderer | None = None
        self._voices = Voices(config, self.on_file_thread)
        self.stages = VoiceStages(config.weights_dir, config.voice_device)
        self._host: Host | None = None
        # The one asked for last is last.
        self._avatars: OrderedDict[str, Avatar] = OrderedDict()
        self._sessions: weakref.WeakKeyDictionary[Session, VoiceChoice] = weakref.WeakKeyDictionary()
        self._posters: dict[str, Poster] = {}
        self._thumbnails: dict[str, bytes] = {}
        self._loading = asyncio.Lock()
        self._files = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="files")
        metrics.avatar_bytes.set_function(lambda: self.avatar_bytes)

    @classmethod
    async def open(cls, config: Config, metrics: EngineMetrics) -> Stage:
        """Loads the model, the voice and the default avatar, and warms the model up.

        Raises:
            ConfigInvalid: ``avatar_missing`` when there is no avatar, or not the one that is asked for.
            AvatarInvalid: the default avatar's folder cannot be used.
            BackendFailed: the model or the voice does not load.
        """
        library = Library(config.avatars_dir, config.data_dir / "avatars")
        cards = library.cards
        if not cards or (config.avatar and config.avatar not in cards):
            wanted = f"called {config.avatar} " if config.avatar else ""
            known = ", ".join(cards) or "none"
            raise ConfigInvalid(
                "avatar_missing", f"There is no avatar {wanted}in {config.avatars_dir}; usable ones: {known}."
            )
        stage = cls(config, metrics, library)
        try:
            await stage._load()
        except BaseException:
            await stage.aclose()
            raise
        return stage

    async def _load(self) -> None:
        config = self.config
        await self.stages.check()
        # Independent of each other, and each releases the interpreter lock for most of its time.
        lipsync, restorer, _, avatar, self._host = await asyncio.gather(
            self.on_file_thread(
                lambda: create_lipsync(
                    config.lipsync, precision=config.precision, weights_dir=config.weights_dir,
                    socket=config.model_socket,
                )
            ),
            self.on_file_thread(
                lambda: create_restorer(
                    config.restorer, precision=config.precision, weights_dir=config.weights_dir,
                    socket=config.model_socket,
                )
            ),
            self._voices.get(self.character(self.default).voice, ()),
            self.on_file_thread(lambda: self._read(self.default)),
            self.on_file_thread(lambda: Host(config, self.metrics)),
        )
        # What is wrong with it is told now, not to the first visitor.
        await self.stages.stage(VoiceChange(config.voice_pitch, config.voice_formant, config.voice_conversion))
        self._renderer = Renderer(lipsync, config.render_threads, restorer=restorer, metrics=self.metrics)
        self._avatars[self.default] = avatar
        await self._renderer.prepare(avatar)
        await self._renderer.warmup()
        await self.poster(self.default)
        if self._renderer.restoring is not None and wanted_level(config.quality, False) > 0:
            # Nobody waits for it, but the first visitor may find it done.
            self._renderer.restoring.restore_ahead(avatar)

    async def on_file_thread(self, work: Callable[[], T]) -> T:
        """Runs blocking work on the stage's threads. Cancellation abandons the result."""
        return await asyncio.get_running_loop().run_in_executor(self._files, work)

    def known(self, name: str | None) -> str:
        """The avatar's name if there is such an avatar; the default for None or an empty name.

        Raises:
            NotFound: ``avatar_unknown``.
        """
        name = name or self.default
        if name not in self.cards:
            raise NotFound("avatar_unknown", f"There is no such avatar; known: {', '.join(self.cards)}.")
        return name

    def character(self, name: str) -> Character:
        """What a known avatar is like."""
        card = self.cards[self.known(name)]
        return character_of(card.persona, card.title, self.config)

    def forget(self, name: str) -> None:
        """Takes an avatar that was made here off the list; sessions that show it go on."""
        self.library.drop(name)
        self._avatars.pop(name, None)
        self._posters.pop(name, None)
        self._thumbnails.pop(name, None)

    @property
    def restores(self) -> bool:
        """Whether there is a face restorer."""
        return self._renderer is not None and self._renderer.restoring is not None

    async def create_session(self, name: str, wishes: Wishes = NO_WISHES) -> tuple[Session, Manner]:
        """A session with a known avatar, not started yet, and how it answers.

        Args:
            name: of the avatar.
            wishes: of whoever asked for it.

        Raises:
            NotFound: ``style_unknown``, ``language_model_unknown``.
            AvatarInvalid: the avatar's folder cannot be used.
            BackendFailed: its voice cannot be loaded.
        """
        assert self._renderer is not None and self._host is not None, "the stage is not open"
        config, quality, character = self.config, wishes.quality, self.character(name)
        # Nothing may wait between the voice and the session that keeps it loaded.
        avatar = await self._avatar(name)
        voice = await self._voices.get(character.voice, set(self._sessions.values()))
        session = Session(
            avatar,
            self._renderer,
            voice,
            limits=SessionLimits(config.max_text_chars, config.max_queue, config.max_audio_s, wishes.priority),
            quality=config.quality if quality is None else quality,
            metrics=self.metrics,
            stages=self.stages,
        )
        self._sessions[session] = character.voice
        change = wishes.voice or VoiceChange(config.voice_pitch, config.voice_formant, config.voice_conversion)
        await session.set_voice(pitch=change.pitch, formant=change.formant, conversion=change.conversion)
        return session, self._host.attend(session, character, wishes.style, wishes.language_model, wishes.lines)

    @property
    def mode(self) -> Mode:
        """What becomes of the microphone when a session does not say."""
        return self._host.mode if self._host is not None else "say"

    @property
    def hears(self) -> bool:
        """Whether spoken words are answered."""
        return self._host is not None and self._host.hears

    @property
    def note(self) -> str:
        """Why spoken words are not answered; empty when they are."""
        return self._host.note if self._host is not None else ""

    @property
    def language_models(self) -> LanguageModels:
        """Who may answer."""
        assert self._host is not None, "the stage is not open"
        return self._host.models

    @property
    def voice_conversions(self) -> list[str]:
        """Names of the voices that others can be converted to."""
        return self.stages.names

    async def _avatar(self, name: str) -> Avatar:
        if name not in self._avatars:
            async with self._loading:
                if name not in self._avatars:
                    avatar = await self.on_file_thread(lambda: self._read(name))
                    # It may have been deleted meanwhile.
                    self._avatars[self.known(name)] = avatar
        avatar = self._avatars[name]
        self._avatars.move_to_end(name)
        self._forget_unused(name)
        return avatar

    def _read(self, name: str) -> Avatar:
        return load_avatar(self.library.folder(name), PictureFiles(self.kept_in(name) / FOLDER))

    def kept_in(self, name: str) -> Path:
        """Folder for what is made of an avatar and can be made again."""
        # What is made of a person who was uploaded goes with that avatar.
        return self.library.folder(name) if self.library.is_made(name) else self.config.cache_dir

    @property
    def default_avatar(self) -> Avatar | None:
        """The one that nobody has to ask for, which is always in memory."""
        return self._avatars.get(self.default)

    @property
    def avatar_bytes(self) -> int:
        """Memory that the pictures of all loaded avatars take: those not mapped, and the pages of the others."""
        return RESIDENT.bytes + self._unmapped_bytes

    @property
    def _unmapped_bytes(self) -> int:
        return sum(avatar.memory_bytes for avatar in tuple(self._avatars.values()))

    def _forget_unused(self, wanted: str) -> None:
        # A session that was closed counts until it is collected, which only means that its avatar stays a while.
        pinned = {self.default, wanted, *(session.avatar.name for session in self._sessions)}
        for name in [name for name in self._avatars if name not in pinned]:
            if len(self._avatars) <= AVATARS_KEPT and self._unmapped_bytes <= AVATARS_KEPT_BYTES:
                return
            del self._avatars[name]

    async def poster(self, name: str) -> Poster:
        """The first idle picture of a known avatar; made once.

        Raises:
            AvatarInvalid: its idle loop cannot be read.
        """
        if name not in self._posters:
            poster = await self.on_file_thread(lambda: self._make_poster(name))
            self._posters[self.known(name)] = poster
        return self._posters[name]

    async def thumbnail(self, name: str) -> bytes:
        """A small moving picture of a known avatar, WebP; made once. Raises AvatarInvalid as ``poster``."""
        if name not in self._thumbnails:
            path = self.library.folder(name) / IDLE_FILE
            made = await self.on_file_thread(lambda: make_thumbnail(path))
            self._thumbnails[self.known(name)] = made
        return self._thumbnails[name]

    def _make_poster(self, name: str) -> Poster:
        loaded = self._avatars.get(name)
        # A poster alone must not bring a whole idle loop into memory.
        image = loaded.frames[0] if loaded is not None else self._first_frame(name)
        _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, POSTER_QUALITY])
        data = jpeg.tobytes()
        return Poster(data, hashlib.sha256(data).hexdigest()[:24])

    def _first_frame(self, name: str) -> np.ndarray:
        try:
            with av.open(self.library.folder(name) / IDLE_FILE, options={"protocol_whitelist": "file"}) as video:
                return next(video.decode(video=0)).to_ndarray(format="bgr24")
        except (av.FFmpegError, StopIteration, OSError) as error:
            raise AvatarInvalid("avatar_unreadable", f"The idle loop of {name} cannot be read.") from error

    async def aclose(self) -> None:
        """Frees everything; idempotent. Close the sessions first."""
        if self._renderer is not None:
            await self._renderer.aclose()
        if self._host is not None:
            await self._host.aclose()
        await self._voices.aclose()
        self._files.shutdown(wait=False, cancel_futures=True)
