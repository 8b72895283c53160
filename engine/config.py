"""All options of Visavis in one table: the fields of ``Config``.

Place in the flow: command line > environment (``VISAVIS_<NAME>``) > TOML file > default -> ``Config`` -> everything.
``engine.config_load`` reads those sources; flags, environment names, ``config.example.toml`` and the README's table are
made from the same fields by ``engine.option_docs``.

Invariant: a ``Config`` is valid and never changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from engine.cores import usable_cores
from engine.option_words import SOCKET_URL, URL
from engine.quality import AUTO, Quality
from engine.targets import PublishTargets

_REPOSITORY = Path(__file__).resolve().parent.parent


def _auto(compute: Callable[[], int]) -> BeforeValidator:
    return BeforeValidator(lambda value: compute() if value == "auto" else value)


def _auto_render_threads() -> int:
    # Six sessions on two cores hold 4 % of their pictures with one thread, and none with two.
    return min(8, usable_cores())


def _auto_workers() -> int:
    # Two of them on two cores are late by 12 ms where one is by 45: neither waits for the other's interpreter lock.
    return usable_cores()


class IceServer(BaseModel):
    """A STUN or TURN server, as browsers describe it (RTCIceServer)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    urls: str = Field(pattern=r"^(stun|turn)s?:.+")
    username: str | None = None
    credential: str | None = Field(default=None, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, value: object) -> object:
        return {"urls": value} if isinstance(value, str) else value

    def to_dict(self) -> dict[str, str]:
        """The form that aiortc's and the browser's RTCConfiguration take."""
        return self.model_dump(exclude_none=True)


def default_data_dir() -> Path:
    """``$XDG_DATA_HOME/visavis``, which is ``~/.local/share/visavis`` where nothing else is set."""
    home = os.environ.get("XDG_DATA_HOME", "")
    # The XDG base directory specification has relative paths ignored.
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "share"
    return base / "visavis"


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/visavis``, which is ``~/.cache/visavis`` where nothing else is set."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "visavis"


def default_weights_dir() -> Path:
    """``weights`` in the default folder of data."""
    return default_data_dir() / "weights"


def _level(value: object) -> object:
    """``"3"``, as flags and the environment have it, -> 3."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


_NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"
_ORIGIN = r"^(\*|https?://[^/\s]+)$"
_MIRROR = r"^https?://\S+$"
_TURN = r"^turns?:[^\s@]+$"
Network = IPv4Network | IPv6Network


def _option(default: Any, help: str, group: str, *, shown: str | None = None, items: str = "", **limits: Any) -> Any:
    """One row of the table. ``default`` may be a function (an automatic value), ``shown`` is what people read then;
    ``items`` says what a list holds."""
    extra: JsonDict = {"group": group, "shown": shown, "items": items}
    if callable(default):
        return Field(default_factory=default, description=help, json_schema_extra=extra, **limits)
    return Field(default=default, description=help, json_schema_extra=extra, **limits)


class Config(BaseModel):
    """Every option, with its type, default, limits and meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    host: str = _option("127.0.0.1", "Address to listen on; 0.0.0.0 serves the network.", "Server", min_length=1)
    port: int = _option(8080, "TCP port of the page and the API.", "Server", ge=1, le=65535)
    workers: Annotated[int, _auto(_auto_workers)] = _option(
        1, "Processes that hold the sessions; auto is one for every CPU core, which serves a crowd best. One that dies"
        " takes only its own sessions, and they go on in another one. 1 has everything in one process.", "Server",
        ge=1, le=256,
    )
    drain_s: float = _option(
        0.0, "How long sessions may go on when the server is told to end (SIGTERM), or a worker is replaced (SIGHUP),"
        " seconds.", "Server", ge=0, le=86_400,
    )
    allowed_origins: tuple[Annotated[str, Field(pattern=_ORIGIN)], ...] = _option(
        (), "Other sites that may embed the page and call the API, as origins (https://example.org), or *.", "Server",
        items="origins, or *",
    )
    ice_servers: tuple[IceServer, ...] = _option(
        (), "STUN and TURN servers: URLs, or tables with urls, username and credential. None is needed on one"
        " network.", "Server", items="stun: and turn: URLs",
    )
    data_dir: Path = _option(
        default_data_dir, "Folder of what the server keeps: avatars made in the studio, keys.", "Server",
        shown="~/.local/share/visavis",
    )
    cache_dir: Path = _option(
        default_cache_dir, "Folder of what can be made again: avatars' decoded pictures, at most 6 GB. On a disk: in"
        " memory it would cost what it saves.", "Server", shown="~/.cache/visavis",
    )
    heartbeat_timeout_s: float = _option(
        4.0, "A browser that was silent for so long is taken for gone, seconds.", "Server", ge=3, le=60
    )

    cluster: str = _option(
        "", "Ray cluster whose machines hold the sessions: its address (host:6379), auto for the one this machine is"
        " part of, local for a new one here; empty holds them here. Needs server/cluster/requirements.txt.",
        "Many machines", max_length=300,
    )
    cluster_workers: str = _option(
        "auto", "Workers of the cluster: auto, as many as its machines have room for; a number; or a range such as"
        " 2-10, by demand, for clusters that add machines themselves.", "Many machines",
        pattern=r"^(auto|\d{1,5}(-\d{1,5})?)$",
    )
    worker_cpus: float = _option(
        2.0, "CPU cores of its machine that a worker of the cluster takes.", "Many machines", ge=0.1, le=256
    )
    worker_gpus: float = _option(
        0.0, "GPUs that it takes; four workers share one with 0.25.", "Many machines", ge=0, le=16
    )
    node_address: str = _option(
        "", "Public IP address of this machine where browsers reach it by another one than its own, as behind the"
        " one-to-one NAT of a cloud; of a cluster's machine it stands in VISAVIS_NODE_ADDRESS there.", "Many machines",
        max_length=45, pattern=r"^$|^[0-9a-fA-F.:]+$",
    )

    avatar: str = _option(
        "", "Avatar shown when none is asked for; empty means maya, or the first by name where there is no maya.",
        "Face", pattern=f"^$|{_NAME}",
    )
    avatars_dir: Path = _option(
        _REPOSITORY / "avatars", "Folder of avatars.", "Face", shown="avatars"
    )
    lipsync: str = _option(
        "builtin", "Lip-sync model: builtin, or the name of weights that were added.", "Face", pattern=_NAME
    )
    precision: Literal["auto", "f32", "bf16", "int8"] = _option(
        "auto", "Arithmetic of the models; bf16 is faster on CPUs that have it, int8, for added weights, faster still;"
        " auto is, for the built-in model, bf16 where the processor has it, and for added weights what was fastest in"
        " python -m engine bench.", "Face"
    )
    ai_label: Literal["on", "off"] = _option(
        "on", "Whether pages label the face as computer-generated. The law may ask for it, as the European Union's does"
        " (AI Act, article 50): switch it off only where you say it yourself.", "Face",
    )
    restorer: str = _option(
        "auto", "Face restorer: none, the name of GFPGAN weights that were added, or auto for those there are, if any.",
        "Face", pattern=_NAME,
    )
    quality: Annotated[Quality, BeforeValidator(_level)] = _option(
        AUTO, "How much is restored when a session does not say: 0 nothing, 1 the avatar's own pictures, 2 the mouth in"
        " every second picture, 3 in every one, 4 the lower face, 5 the face; auto is 3 where that is fast, else 1.",
        "Face",
    )
    weights_dir: Path = _option(
        default_weights_dir, "Folder of the weights that were added.", "Face", shown="~/.local/share/visavis/weights"
    )
    weights_mirrors: tuple[Annotated[str, Field(pattern=_MIRROR)], ...] = _option(
        (), "Where weights are downloaded from, before the places they are published at: URLs of folders.", "Face",
        items="http: and https: URLs",
    )
    render_threads: Annotated[int, _auto(_auto_render_threads)] = _option(
        _auto_render_threads, "Threads that render pictures; auto is one a CPU core, eight at most.", "Face",
        shown="auto", ge=1, le=256,
    )
    model_process: Literal["auto", "on", "off"] = _option(
        "auto", "Whether the models run in a process of their own, for all workers: on, off, or auto, with more than"
        " one worker on a GPU.", "Face",
    )
    model_socket: str = _option(
        "", "Unix socket of a model process that runs already (python -m engine.model_host); empty means that models"
        " are loaded here.", "Face", max_length=100,
    )

    voice: str = _option(
        "espeak", "What speaks: espeak, openai for a service with its /v1/audio/speech, piper or kokoro on this"
        " machine, edge, or cosyvoice or gpt-sovits for the servers of these projects, which speak like a recording.",
        "Voice", pattern=_NAME,
    )
    voice_name: str = _option(
        "", "Language of the voice, with a variant after +, such as en-gb or fr+f2; for other voices than espeak the"
        " name of one. Where it is not set, the avatar speaks with its own.", "Voice", max_length=200,
    )
    voice_rate: int = _option(
        165, "Words a minute; the avatar's own pace where it is not set.", "Voice", ge=80, le=450
    )
    voice_url: str = _option("", "Base URL of the voice's service.", "Voice", pattern=URL)
    voice_key: str = _option("", "Key of the voice's service.", "Voice", max_length=1000, repr=False)
    voice_model: str = _option(
        "", "Model of the voice's service, empty means its usual one; for piper and kokoro the .onnx file.", "Voice",
        max_length=1000,
    )
    voice_reference: str = _option(
        "", "Recording of the voice that cosyvoice (1 to 30 s) or gpt-sovits (3 to 10 s) speaks with: a sound file.",
        "Voice", max_length=1000,
    )
    voice_reference_text: str = _option("", "What is said in that recording.", "Voice", max_length=1000)
    voice_pitch: float = _option(
        0.0, "Semitones by which the voice is made higher, or lower below 0, when a session does not say.", "Voice",
        ge=-12, le=12,
    )
    voice_formant: float = _option(
        0.0, "Semitones by which the resonances of the voice move: up sounds like a smaller person.", "Voice",
        ge=-12, le=12,
    )
    voice_conversion: str = _option(
        "", "Name of added so-vits-svc weights in whose voice the avatar speaks; empty for the voice itself.", "Voice",
        pattern=f"^$|{_NAME}",
    )
    voice_device: Literal["auto", "cpu", "gpu"] = _option(
        "auto", "What computes such a voice: cpu, gpu (NVIDIA, with the package onnxruntime-gpu), or auto, a GPU where"
        " one can be used.", "Voice",
    )

    mode: Literal["converse", "mirror", "say"] = _option(
        "converse", "What becomes of the microphone when a session does not say: converse answers it, mirror repeats it"
        " in the person's own voice, say ignores it.", "Conversation",
    )
    asr: str = _option(
        "pocketsphinx", "What turns speech into text: pocketsphinx (English, offline), whisper on this machine, openai"
        " for a service with its /v1/audio/transcriptions, or none.", "Conversation", pattern=_NAME,
    )
    asr_url: str = _option("", "Base URL of the recogniser's service.", "Conversation", pattern=URL)
    asr_key: str = _option("", "Key of the recogniser's service.", "Conversation", max_length=1000, repr=False)
    asr_model: str = _option(
        "", "Model of the recogniser, empty means its usual one; for whisper a size such as small, or a folder.",
        "Conversation", max_length=1000,
    )
    llm: str = _option(
        "host", "What answers: host, a small script that needs nothing, openai for a service that speaks its"
        " /v1/chat/completions, as Ollama, llama.cpp, vLLM and LM Studio do, or realtime for one that speaks OpenAI's"
        " Realtime interface: it recognises, answers and speaks itself, and asr is only asked whether it is none.",
        "Conversation", pattern=_NAME,
    )
    llm_url: str = _option("", "Base URL of the language model's service.", "Conversation", pattern=SOCKET_URL)
    llm_key: str = _option("", "Key of the language model's service.", "Conversation", max_length=1000, repr=False)
    llm_model: str = _option(
        "", "Name of the language model; empty takes the only one its service has, for realtime gpt-realtime.",
        "Conversation", max_length=200,
    )
    llm_voice: str = _option(
        "", "Voice of realtime, such as marin; empty means the avatar's, or its own choice.", "Conversation",
        max_length=200,
    )
    language: str = _option(
        "en", "Language people speak with the avatar, such as en or de-AT; its own where this is not set.",
        "Conversation", pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$",
    )
    system_prompt: str = _option(
        "You are a friendly person in a video call. Answer in one to three short spoken sentences, without lists.",
        "What the language model is told about itself; what the avatar's persona says where this is not set.",
        "Conversation", max_length=20_000,
    )
    greeting: str = _option(
        "", "Said when a person is heard for the first time; the avatar's own words where it is not set, nothing where"
        " it is set to be empty.", "Conversation", max_length=1000,
    )
    greeting_interruptible: Literal["yes", "no"] = _option(
        "yes", "Whether speaking over the greeting interrupts it; with no, what is said is answered after it.",
        "Conversation",
    )
    wake_word: str = _option(
        "", "What the avatar must be called to answer, such as maya, or more than one with commas; empty answers"
        " everything. For 8 s after an answer it need not be said again.", "Conversation", max_length=200,
    )
    on_failure: Literal["speak", "show"] = _option(
        "speak", "When a service of the conversation fails: speak an apology, or only show the error.", "Conversation"
    )

    max_sessions: Annotated[int, _auto(lambda: 0)] = _option(
        lambda: 0, "Sessions at a time; auto, or 0, is as many as can talk at once on this machine with a fifth of it"
        " to spare, which is measured at the first start and kept in cache_dir.", "Limits", shown="auto", ge=0,
        le=10_000,
    )
    max_session_s: float = _option(3600.0, "Longest session, seconds.", "Limits", ge=10, le=604_800)
    idle_session_s: float = _option(
        300.0, "A session in which nothing was said for so long is closed, seconds.", "Limits", ge=10, le=604_800
    )
    broadcast_viewers: int = _option(
        200, "Viewers of one broadcast; they take no places of sessions.", "Limits", ge=1, le=100_000
    )
    max_text_chars: int = _option(2000, "Longest text to say, characters.", "Limits", ge=1, le=100_000)
    max_audio_s: float = _option(600.0, "Longest sound to play, seconds.", "Limits", ge=1, le=7200)
    max_audio_mb: int = _option(50, "Largest sound file, megabytes.", "Limits", ge=1, le=2000)
    max_queue: int = _option(16, "Utterances of a session that may wait or play.", "Limits", ge=1, le=1000)

    access: Literal["auto", "open", "closed"] = _option(
        "auto", "Whether an API key or a token is needed: closed, from everybody; open, from nobody; auto, from nobody"
        " on this machine where the server listens on this machine alone, else from everybody.", "Access",
    )
    rate_per_address: int = _option(
        60, "Sessions, uploads and tokens that one address may ask for in a minute.", "Access", ge=1, le=1_000_000
    )
    rate_per_key: int = _option(
        600, "The same for one API key or embed key.", "Access", ge=1, le=1_000_000
    )
    trusted_proxies: tuple[Network, ...] = _option(
        (), "Reverse proxies whose X-Forwarded-For says who asks, as addresses or networks.", "Access",
        items="addresses or networks, such as 10.0.0.0/8",
    )
    turn_urls: tuple[Annotated[str, Field(pattern=_TURN)], ...] = _option(
        (), "TURN servers that share a secret with this one (coturn's use-auth-secret); every session gets credentials"
        " of its own.", "Access", items="turn: and turns: URLs",
    )
    turn_secret: str = _option("", "That secret, coturn's static-auth-secret.", "Access", max_length=1000, repr=False)

    livetalking: Literal["on", "off", "loopback"] = _option(
        "loopback",
        "Whether clients of LiveTalking are understood, recording included; loopback, only where the server listens on "
        "this machine alone.",
        "Interfaces",
    )
    studio: Literal["on", "off", "loopback"] = _option(
        "loopback", "Whether avatars can be made and deleted in the browser: loopback, only where the server listens on"
        " this machine alone.", "Studio",
    )
    studio_max_avatars: int = _option(20, "Avatars that people may make.", "Studio", ge=1, le=10_000)
    studio_max_mb: int = _option(200, "Largest photo or clip, megabytes.", "Studio", ge=1, le=2000)
    studio_max_clip_s: float = _option(120.0, "Longest clip, seconds.", "Studio", ge=2, le=300)
    studio_max_megapixels: int = _option(50, "Largest photo, megapixels.", "Studio", ge=1, le=120)
    studio_max_job_s: float = _option(900.0, "Longest time one avatar may take, seconds.", "Studio", ge=10, le=86_400)
    studio_memory_mb: int = _option(
        4096, "Most memory the process that makes an avatar may use, megabytes.", "Studio", ge=2048, le=262_144
    )

    video_codec: Literal["auto", "h264", "vp8"] = _option(
        "auto", "Codec towards browsers; auto takes H.264 where the browser can, else VP8.", "Video"
    )
    h264_encoder: Literal["x264", "nvenc"] = _option(
        "x264", "What encodes H.264: x264, or nvenc for the encoder of an NVIDIA graphics card, with x264 where the"
        " card has none to spare.", "Video",
    )
    video_kbps: int = _option(1500, "Bitrate of the video towards one browser, kbit/s.", "Video", ge=100, le=20_000)

    publish: PublishTargets = _option(
        (), "Where sessions and broadcasts may be sent, each with a name that the API knows it by: NAME=URL with a URL"
        " of WHIP (http:, https:) or RTMP (rtmp:, rtmps:), or tables with name, url and token.", "Video",
        items="NAME=URL, with URLs of WHIP or RTMP",
    )

    log_level: Literal["debug", "info", "warning", "error"] = _option("info", "Least important messages shown.", "Log")
    log_format: Literal["text", "json"] = _option("text", "Form of the log, one line a message.", "Log")
