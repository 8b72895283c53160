"""The card of an avatar folder, ``avatar.toml``: what an avatar states about itself, read, checked and written.

Place in the flow: ``avatar.toml`` -> ``read_card`` -> ``AvatarCard`` -> lists of avatars, ``load_avatar``; back with
``card_text``.

Members: title, fps, size, licence, source, synthetic, consent (a text, or a table of the texts who, when and scope), a
table ``[clips.<clip>]`` with ``loop`` for each clip, and a table ``[persona]``, see ``engine.persona``.

Invariant: an avatar shows a synthetic person, or names the consent of the real one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from engine.avatar.footage import check_size
from engine.avatar.footage import invalid as _invalid
from engine.avatar.footage import require_file as _require_file
from engine.errors import AvatarInvalid
from engine.persona import Persona, persona_lines, read_persona, toml_text
from engine.types import FPS

CARD_FILE = "avatar.toml"

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
CLIP_PATTERN = re.compile(r"[a-z][a-z0-9_-]{0,31}")
LISTENING = "listening"
"""The clip that is shown while somebody else speaks; must be a loop."""

MAX_CLIPS = 16
MAX_CARD_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class AvatarCard:
    """What a list of avatars shows; read without decoding a picture.

    Attributes:
        name: folder name, ``[a-z0-9][a-z0-9_-]{0,63}``.
        title: for people.
        size: (width, height) in pixels, both even.
        licence: of the pictures, e.g. ``CC0-1.0``.
        source: where the pictures come from, one sentence.
        synthetic: True when no real person is shown.
        consent: how the shown person agreed; may be empty only for synthetic avatars.
        clips: what it can do beside resting, in order of their names; whether it loops, by name.
        persona: who it is.
    """

    name: str
    title: str
    size: tuple[int, int]
    licence: str
    source: str
    synthetic: bool
    consent: str = ""
    clips: Mapping[str, bool] = field(default_factory=dict)
    persona: Persona = field(default_factory=Persona)


def read_card(folder: Path) -> AvatarCard:
    """Reads and checks ``avatar.toml``.

    Raises:
        AvatarInvalid: the file is missing, malformed, or lacks what an avatar must state.
    """
    name = folder.resolve().name
    if not NAME_PATTERN.fullmatch(name):
        raise AvatarInvalid(
            "avatar_name_invalid",
            f"The avatar folder {name!r} must be named with a-z, 0-9, '-' and '_', at most 64 characters.",
        )
    path = folder / CARD_FILE
    _require_file(path, MAX_CARD_BYTES)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _invalid(name, "avatar_card_malformed", f"{CARD_FILE} is not valid TOML ({error})") from error

    def text(key: str, *, required: bool = True) -> str:
        value = table.get(key, "")
        if not isinstance(value, str) or (required and not value.strip()):
            raise _invalid(name, "avatar_card_incomplete", f"{CARD_FILE} needs {key!r} as a text")
        return value.strip()

    size = table.get("size")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)):
        raise _invalid(name, "avatar_card_incomplete", f"{CARD_FILE} needs 'size' as [width, height]")
    width, height = size
    check_size(name, width, height)
    if table.get("fps") != FPS:
        raise _invalid(name, "avatar_fps", f"the idle loop must have {FPS} pictures a second ('fps = {FPS}')")
    synthetic = table.get("synthetic")
    if not isinstance(synthetic, bool):
        raise _invalid(name, "avatar_card_incomplete", f"{CARD_FILE} needs 'synthetic' as true or false")
    consent = _consent(name, table.get("consent", ""))
    check_consent(name, synthetic, consent)
    clips = _clip_table(name, table.get("clips", {}))
    try:
        persona = read_persona(table.get("persona", {}))
    except ValueError as error:
        raise _invalid(name, "avatar_persona", f"{error} ({CARD_FILE})") from error
    return AvatarCard(
        name, text("title"), (width, height), text("licence"), text("source"), synthetic, consent, clips, persona
    )


def card_text(card: AvatarCard) -> str:
    """What ``read_card`` reads as this card."""
    width, height = card.size
    lines = [
        f"title = {toml_text(card.title)}",
        f"fps = {FPS}",
        f"size = [{width}, {height}]",
        f"licence = {toml_text(card.licence)}",
        f"source = {toml_text(card.source)}",
        f"synthetic = {str(card.synthetic).lower()}",
    ]
    if card.consent:
        lines.append(f"consent = {toml_text(card.consent)}")
    for name, loop in sorted(card.clips.items()):
        lines += ["", f"[clips.{name}]", f"loop = {str(loop).lower()}"]
    persona = list(persona_lines(card.persona))
    return "\n".join([*lines, *([""] if persona else []), *persona]) + "\n"


def _consent(name: str, value: object) -> str:
    """The consent as one text; a table becomes ``who, when: scope``."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, dict) and value.keys() == {"who", "when", "scope"}:
        parts = [value[key] for key in ("who", "when", "scope")]
        who, when, scope = (str(part).strip() if isinstance(part, str | date) else "" for part in parts)
        if who and when and scope:
            return f"{who}, {when}: {scope}"
    raise _invalid(
        name, "avatar_card_incomplete", f"'consent' in {CARD_FILE} must be a text, or a table of who, when and scope"
    )


def _clip_table(name: str, table: object) -> dict[str, bool]:
    """Whether each clip of a card loops, in order of their names."""
    if not isinstance(table, dict) or len(table) > MAX_CLIPS:
        raise _invalid(name, "avatar_card_incomplete", f"'clips' in {CARD_FILE} must be at most {MAX_CLIPS} tables")
    loops = {}
    for clip in sorted(table):
        settings = table[clip]
        if not isinstance(settings, dict) or not isinstance(settings.get("loop", False), bool):
            raise _invalid(name, "avatar_card_incomplete", f"[clips.{clip}] in {CARD_FILE} needs loop = true or false")
        loops[clip] = settings.get("loop", False)
    check_clip_names(name, loops)
    return loops


def check_clip_names(name: str, loops: Mapping[str, bool]) -> None:
    for clip, loop in loops.items():
        if not CLIP_PATTERN.fullmatch(clip):
            raise _invalid(
                name,
                "avatar_clip_name",
                f"the clip {clip!r} must be named with a-z, 0-9, '-' and '_', a letter first, at most 32 characters",
            )
        if clip == LISTENING and not loop:
            raise _invalid(
                name, "avatar_clip_loop", f"the clip {clip!r} lasts as long as somebody speaks; it must loop"
            )


def check_consent(name: str, synthetic: bool, consent: str) -> None:
    if not synthetic and not consent.strip():
        raise _invalid(name, "avatar_consent_missing", "a real person is shown, so 'consent' must say how they agreed")
