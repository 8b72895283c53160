"""Reads the imports of every module and holds them to the layers of the architecture."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

TOOLS = 9
"""Layer of tools: they may import everything, and nothing imports them."""

LAYERS: list[tuple[str, int]] = [
    # First match wins; a name stands for itself and everything below it.
    ("engine.types", 0),
    ("engine.errors", 0),
    ("engine.config", 0),
    ("engine.config_load", 0),
    ("engine.option_docs", 0),
    ("engine.clock", 0),
    ("engine.aio", 0),
    ("engine.metrics", 0),
    ("engine.audio", 1),
    ("engine.avatar", 1),
    ("engine.compose", 1),
    ("engine.picture", 1),
    ("engine.tensor_file", 1),
    ("engine.remote", 1),
    ("engine.lipsync", 2),
    ("engine.restore", 2),
    ("engine.conversation.dialogue", 4),
    ("engine.conversation.answer", 4),
    ("engine.conversation.ear", 4),
    ("engine.conversation.floor", 4),
    ("engine.conversation.styles", 1),
    ("engine.conversation.history", 4),
    ("engine.conversation.roles", 4),
    ("engine.conversation.backchannel", 1),
    ("engine.conversation.wake", 1),
    ("engine.conversation.own_words", 1),
    ("engine.conversation.echo", 1),
    ("engine.conversation.turn", 1),
    ("engine.conversation.turn_events", 1),
    ("engine.conversation.turn_options", 1),
    ("engine.conversation.phrases", 1),
    ("engine.conversation.waterfall", 1),
    ("engine.conversation.http", 1),
    ("engine.conversation.retry_after", 1),
    ("engine.conversation.discover", 1),
    ("engine.conversation.service_models", 1),
    ("engine.conversation.service_url", 1),
    ("engine.conversation.sse", 1),
    ("engine.conversation.tts.pictographs", 1),
    ("engine.conversation.tts.sentences", 1),
    ("engine.conversation.tts.speakable", 1),
    ("engine.conversation.tts.marks", 1),
    ("engine.conversation.tts.spoken_text", 1),
    ("engine.conversation.tts.sound_stream", 1),
    ("engine.conversation.tts.stream", 1),
    ("engine.conversation", 2),
    ("engine.renderer", 3),
    ("engine.model_host.__main__", TOOLS),
    ("engine.model_host", 3),
    ("engine.model_process", 3),
    ("engine.recorder", 1),
    ("engine.planner", 4),
    ("engine.slots", 4),
    ("engine.pace", 4),
    ("engine.speech", 4),
    ("engine.reply", 4),
    ("engine.agenda", 5),
    ("engine.feeder", 4),
    ("engine.limits", 4),
    ("engine.mirror", 4),
    ("engine.playlist", 4),
    ("engine.producer", 4),
    ("engine.offline", 4),
    ("engine.narrator", 5),
    ("engine.voice_stages", 5),
    ("engine.session", 5),
    ("engine.registry", 5),
    ("engine.studio", TOOLS),
    ("engine.evaluate", TOOLS),
    ("engine.bench", TOOLS),
    ("engine.weights", TOOLS),
    ("engine.cli", TOOLS),
    ("engine.__main__", TOOLS),
    ("engine", 0),
    ("server.__main__", TOOLS),
    ("server.worker.__main__", TOOLS),
    ("server.client.__main__", TOOLS),
    ("server.doctor", TOOLS),
    ("server", 6),
]

PROVIDERS = tuple(f"engine.conversation.{family}" for family in ("tts", "asr", "llm", "voice", "realtime"))
"""Families of providers: a module of one may use its own, never another's."""

OWNERS: dict[str, tuple[str, ...]] = {
    "torch": (
        "engine.tensor_file",
        "engine.lipsync.wav2lip",
        "engine.restore.gfpgan_net",
        "engine.restore.checkpoint",
        "engine.restore.torch_runtime",
        "engine.restore.openvino_runtime",
        "engine.restore.export",
        "engine.bench",
        "engine.studio",
        "engine.evaluate",
        "server.doctor.devices",
    ),
    "torchvision": (),
    "librosa": ("engine.studio", "engine.evaluate"),
    "openvino": (
        "engine.conversation.voice",
        "engine.lipsync.openvino_runtime", "engine.lipsync.wav2lip.export", "engine.lipsync.wav2lip.quantise",
        "engine.restore.openvino_runtime", "engine.restore.export", "engine.avatar.face_models",
        "engine.avatar.matte_network",
        "engine.conversation.vad", "engine.studio",
        "engine.bench", "engine.evaluate", "server.doctor.devices",
    ),
    "onnxruntime": ("engine.conversation.voice.ort_network",),
    "faster_whisper": ("engine.conversation.asr.whisper_network",),
    "ctranslate2": ("engine.conversation.asr.whisper_network",),
    "edge_tts": ("engine.conversation.tts.edge",),
    "espeakng_loader": ("engine.conversation.tts.espeak", "engine.studio"),
    "pyworld": ("engine.conversation.voice",),
    "soxr": ("engine.audio", "engine.studio", "engine.evaluate"),
    "cv2": (
        "engine.compose", "engine.avatar", "engine.lipsync", "engine.restore", "engine.studio", "engine.evaluate",
        "engine.__main__", "engine.cli", "engine.bench", "server",
    ),
    "av": (
        "engine.audio", "engine.avatar", "engine.picture", "engine.recorder", "engine.studio", "engine.evaluate",
        "engine.__main__", "engine.cli", "engine.bench", "server",
    ),
    "aiortc": (
        "server.signaling", "server.peer", "server.tracks", "server.encoder", "server.microphone", "server.outputs",
        "server.channel", "server.sessions", "server.whep", "server.client",
        "server.sending", "server.fan", "server.showing", "server.viewer", "server.pacing",
        "server.doctor",
    ),
    "aiohttp": ("server", "engine.conversation", "engine.evaluate"),
    "prometheus_client": ("engine.metrics", "server"),
    "pydantic": ("engine.config", "engine.config_load", "engine.option_words", "engine.targets", "server"),
    "ray": ("server.cluster",),
    "sounddevice": ("server.client.devices",),
    "pickle": (),
}  # fmt: skip
"""Who may import a package; packages that are not listed are free to all."""


def is_below(module: str, parent: str) -> bool:
    return module == parent or module.startswith(parent + ".")


def layer(module: str) -> int:
    return next(number for name, number in LAYERS if is_below(module, name) or (name == "engine" and module == name))


def modules() -> dict[str, Path]:
    found = {}
    for package in ("engine", "server"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(tree: ast.AST) -> Iterator[str]:
    """Names of all modules imported at run time, inside functions too."""
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            base = node.module or ""
            submodules = [f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in MODULES]
            yield from submodules or [base]
        else:
            yield from imports(node)


IMPORTS = {name: sorted(set(imports(ast.parse(path.read_text("utf-8"))))) for name, path in MODULES.items()}


def breaks(module: str, imported: str) -> str | None:
    """Why a module must not import another module of the house, or None."""
    mine, theirs = layer(module), layer(imported)
    if theirs == TOOLS:
        return None if mine == TOOLS else "nothing imports the tools"
    if mine == TOOLS:
        return None
    if theirs > mine:
        return f"layer {mine} imports layer {theirs}"
    if module.startswith("engine.conversation") and mine == theirs == 2 and "base" not in imported.split("."):
        families = [family for family in PROVIDERS if is_below(module, family)]
        if not any(is_below(imported, family) for family in families):
            return "a provider imports another family"
    if theirs == 2 and mine in (3, 4) and imported.rsplit(".", 1)[-1] != "base":
        return "only protocols of models and providers may be imported here"
    if theirs == 2 and mine >= 5 and module != "engine.registry" and imported.rsplit(".", 1)[-1] != "base":
        return "concrete backends are named only in the registry"
    return None


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_lower_layers(module: str) -> None:
    house = [name for name in IMPORTS[module] if name.split(".")[0] in ("engine", "server")]
    broken = {name: reason for name in house if (reason := breaks(module, name))}
    assert not broken


@pytest.mark.parametrize("module", MODULES)
def test_packages_are_imported_only_by_their_owners(module: str) -> None:
    packages = {name.split(".")[0] for name in IMPORTS[module]}
    strays = [
        package for package in packages & OWNERS.keys() if not any(is_below(module, owner) for owner in OWNERS[package])
    ]
    assert not strays


def test_engine_never_imports_the_server() -> None:
    assert not [m for m, names in IMPORTS.items() if is_below(m, "engine") for n in names if is_below(n, "server")]


def test_every_module_says_what_it_is_for() -> None:
    texts = {name: path.read_text("utf-8") for name, path in MODULES.items()}
    assert not [name for name, text in texts.items() if text.strip() and not ast.get_docstring(ast.parse(text))]


def test_modules_stay_short() -> None:
    assert not [name for name, path in MODULES.items() if len(path.read_text("utf-8").splitlines()) > 450]


def test_live_path_loads_neither_torch_nor_librosa() -> None:
    heavy = "{'torch', 'librosa', 'openvino', 'scipy', 'numba'}"
    code = f"import sys, engine.session, engine.registry, engine.offline; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"
