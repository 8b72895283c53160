"""The names of backends: the one place that knows which concrete model or voice a name means.

Place in the flow: option value -> registry -> LipSync, FaceRestorer, Voice, VoiceStage, Recogniser or LanguageModel.

A model is called by the name of the folder its weights lie in, ``<weights_dir>/<name>/weights.toml``, whose ``kind``
says what it is; ``python -m engine weights`` makes such folders.

Invariants:
    * a backend is imported when it is asked for, so nothing pays for what it does not use;
    * a name that is not there is an error that lists those that are, and says how to add more.
"""

from __future__ import annotations

import logging
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import default_weights_dir
from engine.conversation.asr.base import Recogniser
from engine.conversation.llm.base import LanguageModel
from engine.conversation.realtime.base import SpeakingService
from engine.conversation.tts.base import Voice
from engine.conversation.voice.base import Conversion, Device, VoiceStage
from engine.errors import InvalidInput, NotFound, VisavisError
from engine.lipsync.base import LipSync
from engine.restore.base import FaceRestorer

if TYPE_CHECKING:
    from engine.conversation.vad import SileroVad

VOICE_NAMES = ("espeak", "openai", "piper", "kokoro", "edge", "cosyvoice", "gpt-sovits")
RECOGNISER_NAMES = ("pocketsphinx", "whisper", "openai", "none")
LANGUAGE_MODEL_NAMES = ("host", "openai")
REALTIME = "realtime"
"""A language model that also hears and speaks; from ``create_realtime``."""
CARD_FILE = "weights.toml"

_log = logging.getLogger(__name__)


def create_lipsync(
    name: str, /, *, threads: int = 1, precision: str = "auto", weights_dir: Path | None = None, socket: str = ""
) -> LipSync:
    """Loads a lip-sync model; takes up to seconds, so call it off the event loop.

    Args:
        name: ``builtin``, or a folder of Wav2Lip weights.
        threads: threads of one prediction.
        precision: ``f32``, ``bf16``, ``int8`` or ``auto``, for the built-in model bf16 where the processor has it.
        weights_dir: where folders of weights are; the default one when None.
        socket: of a model process; its model is used then, whatever the name.

    Raises:
        ModelAway: nothing answers at the socket.
        NotFound: ``lipsync_not_found``.
        InvalidInput: ``precision_unknown``: the model does not have it.
        WeightsInvalid: the folder is damaged.
        BackendFailed: it cannot be loaded.
    """
    if socket:
        from engine.lipsync.remote import RemoteLipSync

        return RemoteLipSync.connect(socket)
    if name == "builtin":
        from engine.lipsync.builtin import BuiltinLipSync

        if precision == "int8":
            raise InvalidInput("precision_unknown", "The built-in model works in f32 or bf16; choose one of them.")
        if precision == "auto":
            from engine.lipsync.openvino_runtime import has_bf16

            # Pictures of speech differ from those of f32 by 63 dB (PSNR), for three quarters of the time.
            precision = "bf16" if has_bf16() else "f32"
        return BuiltinLipSync.load(threads, "bf16" if precision == "bf16" else "f32")
    folder = _folder(name, "wav2lip", weights_dir)
    if folder is None:
        there = ", ".join(["builtin", *_names("wav2lip", weights_dir)])
        raise NotFound("lipsync_not_found", f"There is no lip-sync model {name!r}; there is {there}. {_HOW}")
    from engine.lipsync.wav2lip.model import Wav2LipSync

    return Wav2LipSync.load(folder, threads=threads, precision=precision)


def create_restorer(
    name: str, /, *, threads: int = 1, precision: str = "auto", weights_dir: Path | None = None, socket: str = ""
) -> FaceRestorer | None:
    """Loads a face restorer; takes up to seconds, so call it off the event loop.

    Args:
        name: ``none``; a folder of GFPGAN weights; or ``auto`` for the one called gfpgan, another one where there is
            none, and nothing where there is not any, or it cannot be loaded.
        threads: threads of one restoration.
        precision: as for ``create_lipsync``.
        weights_dir: where folders of weights are; the default one when None.
        socket: of a model process; its restorer is used then, whatever the name.

    Returns:
        None for none.

    Raises:
        ModelAway: nothing answers at the socket.
        NotFound: ``restorer_not_found``.
        WeightsInvalid: the folder is damaged.
        BackendFailed: it cannot be loaded.
    """
    if socket:
        from engine.restore.remote import RemoteRestorer

        return RemoteRestorer.connect(socket)
    names = _names("gfpgan", weights_dir)
    if name == "none" or (name == "auto" and not names):
        return None
    if name == "auto":
        found = "gfpgan" if "gfpgan" in names else names[0]
        try:
            return create_restorer(found, threads=threads, precision=precision, weights_dir=weights_dir)
        except VisavisError as error:
            _log.warning("faces are not restored: %s", error.message)
            return None
    folder = _folder(name, "gfpgan", weights_dir)
    if folder is None:
        there = ", ".join(["none", *names])
        raise NotFound("restorer_not_found", f"There is no face restorer {name!r}; there is {there}. {_HOW}")
    from engine.restore.gfpgan import GfpganRestorer

    return GfpganRestorer.load(folder, threads=threads, precision=precision)


def create_voice(
    name: str,
    /,
    *,
    url: str = "",
    key: str = "",
    model: str = "",
    reference: str = "",
    reference_text: str = "",
    **options: Any,
) -> Voice:
    """Makes a voice; takes up to seconds, so call it off the event loop.

    Args:
        name: one of ``VOICE_NAMES``.
        url: base URL of a service.
        key: of the service.
        model: of the service, empty for its usual one; or the file of a local voice.
        reference: a recording of the voice that cosyvoice and gpt-sovits are to speak with.
        reference_text: what is said in it.
        options: ``name`` of the voice or language, and ``rate_wpm``.

    Raises:
        NotFound: ``voice_not_found``.
        ConfigInvalid: the service's address or key, or the recording, cannot be used.
        BackendFailed: it cannot be loaded.
    """
    if name == "espeak":
        from engine.conversation.tts.espeak import EspeakVoice

        return EspeakVoice(**options)
    if name == "openai":
        from engine.conversation.tts.openai import OpenAiVoice

        return OpenAiVoice(url, key, model, **options)
    if name == "piper":
        from engine.conversation.tts.piper import load_piper

        return load_piper(model, **options)
    if name == "kokoro":
        from engine.conversation.tts.kokoro import load_kokoro

        return load_kokoro(model, **options)
    if name == "edge":
        from engine.conversation.tts.edge import EdgeVoice

        return EdgeVoice(**options)
    if name == "cosyvoice":
        from engine.conversation.tts.cosyvoice import CosyVoice

        return CosyVoice(url, key, model, options.get("name", ""), reference, reference_text)
    if name == "gpt-sovits":
        from engine.conversation.tts.gpt_sovits import GptSovitsVoice

        return GptSovitsVoice(url, key, reference=reference, reference_text=reference_text, **options)
    raise NotFound("voice_not_found", f"There is no voice {name!r}; there is {', '.join(VOICE_NAMES)}.")


def create_vocoder(pitch: float, formant: float, *, after: VoiceStage | None = None) -> VoiceStage:
    """Makes what moves the pitch and the formants of a voice.

    Args:
        pitch: semitones.
        formant: semitones.
        after: changes the voice before it.
    """
    from engine.conversation.voice.chain import Chain
    from engine.conversation.voice.vocoder import Vocoder

    vocoder = Vocoder(pitch, formant)
    return vocoder if after is None else Chain(after, vocoder)


def check_voice_device(device: Device, /) -> None:
    """Tries what voices are to be converted on; call it off the event loop.

    Raises:
        ConfigInvalid: ``voice_gpu_missing``.
    """
    from engine.conversation.voice.runtimes import check_device

    check_device(device)


def create_conversion(name: str, /, weights_dir: Path | None = None, device: Device = "auto") -> Conversion:
    """Loads another person's voice; takes seconds, so call it off the event loop.

    Args:
        name: a folder of so-vits-svc weights.
        weights_dir: where folders of weights are; the default one when None.
        device: ``cpu``, ``gpu``, or ``auto``: a GPU where one can be used.

    Raises:
        NotFound: ``voice_conversion_unknown``.
        WeightsInvalid: the folder is damaged.
        BackendFailed: it cannot be loaded.
    """
    folder = _folder(name, "so-vits", weights_dir)
    if folder is None:
        there = ", ".join(voice_conversion_names(weights_dir)) or "none"
        raise NotFound("voice_conversion_unknown", f"There is no voice {name!r} to convert to; there is {there}.")
    from engine.conversation.voice.runtimes import load_voice

    return load_voice(folder, device)


def voice_conversion_names(weights_dir: Path | None = None) -> list[str]:
    """Names of the voices that others can be converted to, by name."""
    return _names("so-vits", weights_dir)


def create_vad() -> SileroVad:
    """Loads what tells speech from everything else, for one session; the first one of a process takes up to a second.

    Raises:
        BackendFailed: ``vad_missing`` or ``vad_unreadable``.
    """
    from engine.conversation.vad import SileroVad

    vad = SileroVad()
    vad.load()
    return vad


def create_recogniser(
    name: str, /, *, url: str = "", key: str = "", model: str = "", language: str = "en"
) -> Recogniser | None:
    """Makes the speech recogniser of one session, which closes it; loads nothing yet.

    Args:
        name: one of ``RECOGNISER_NAMES``.
        url: base URL of a service.
        key: of the service.
        model: empty for the usual one.
        language: of what is spoken.

    Returns:
        None for ``none``.

    Raises:
        NotFound: ``recogniser_not_found``.
        ConfigInvalid: the service's address or key cannot be used.
        BackendFailed: it cannot be loaded.
    """
    if name == "none":
        return None
    if name == "pocketsphinx":
        from engine.conversation.asr.pocketsphinx import PocketsphinxRecogniser

        return PocketsphinxRecogniser(language)
    if name == "whisper":
        from engine.conversation.asr.whisper import WhisperRecogniser

        return WhisperRecogniser(model, language)
    if name == "openai":
        from engine.conversation.asr.openai import OpenAiRecogniser

        return OpenAiRecogniser(url, model, key, language)
    known = ", ".join(RECOGNISER_NAMES)
    raise NotFound("recogniser_not_found", f"There is no speech recogniser {name!r}; there is {known}.")


def create_language_model(
    name: str, /, *, url: str = "", key: str = "", model: str = "", language: str = "en", called: str = ""
) -> LanguageModel:
    """Makes a language model.

    Args:
        name: one of ``LANGUAGE_MODEL_NAMES``.
        url: base URL of a service.
        key: of the service.
        model: its name; empty takes the only one that the service has.
        language: of the scripted host.
        called: what the scripted host calls itself; empty for its usual name.

    Raises:
        NotFound: ``language_model_not_found``.
        ConfigInvalid: the service's address or key cannot be used.
    """
    if name == "host":
        from engine.conversation.llm.host import ScriptedHost

        return ScriptedHost(language, called)
    if name == "openai":
        from engine.conversation.llm.openai import OpenAiModel

        return OpenAiModel(url, model, key)
    known = ", ".join((*LANGUAGE_MODEL_NAMES, REALTIME))
    raise NotFound("language_model_not_found", f"There is no language model {name!r}; there is {known}.")


def create_realtime(url: str, *, key: str = "", model: str = "", transcriber: str = "") -> SpeakingService:
    """Makes the service that hears, answers and speaks over one connection; nothing is sent yet.

    Args:
        url: base URL.
        key: of the service.
        model: its name; empty for the usual one.
        transcriber: model that writes down what people say; empty for the usual one.

    Raises:
        ConfigInvalid: the address or key cannot be used.
    """
    from engine.conversation.realtime.conversation import RealtimeService
    from engine.conversation.realtime.link import Endpoint

    return RealtimeService(Endpoint(url, model, key), transcriber)


_HOW = (
    "Add one from a file with 'python -m engine weights add FILE', or download one with "
    "'python -m engine weights get NAME'."
)


def _names(kind: str, weights_dir: Path | None) -> list[str]:
    """Names of all folders of weights of a kind."""
    root = default_weights_dir() if weights_dir is None else weights_dir
    names = sorted(card.parent.name for card in root.glob(f"*/{CARD_FILE}"))
    return [name for name in names if _folder(name, kind, root) is not None]


def _folder(name: str, kind: str, weights_dir: Path | None) -> Path | None:
    """The folder of this name if it holds weights of a kind; names that begin with a dot are work in progress."""
    folder = (default_weights_dir() if weights_dir is None else weights_dir) / name
    if name.startswith(".") or folder.name != name:
        return None
    try:
        card = tomllib.loads((folder / CARD_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return folder if card.get("kind") == kind else None
