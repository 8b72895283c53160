"""The changes of voices that a process has ready, for its sessions and for whole files.

Place in the flow: ``Session.set_voice``, conversions of files -> VoiceStages -> VoiceStage.

Invariants:
    * weights of a voice are loaded once, off the event loop, whoever asks;
    * few of them stay loaded when nobody uses them: one is hundreds of megabytes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from engine.conversation.voice.base import Conversion, Device, VoiceChange, VoiceStage
from engine.registry import check_voice_device, create_conversion, create_vocoder, voice_conversion_names

CONVERSIONS_KEPT = 2

T = TypeVar("T")

_LOADER = ThreadPoolExecutor(1, thread_name_prefix="voice-load")


class VoiceStages:
    """Stages by what they change.

    Args:
        weights_dir: where folders of weights are; the default one when None.
        device: what other people's voices are computed on: ``cpu``, ``gpu``, or ``auto``.
    """

    def __init__(self, weights_dir: Path | None = None, device: Device = "auto") -> None:
        self._weights_dir = weights_dir
        self._device: Device = device
        # The one asked for last is last.
        self._conversions: OrderedDict[str, Conversion] = OrderedDict()
        self._loading = asyncio.Lock()

    @property
    def names(self) -> list[str]:
        """Conversions there are."""
        return voice_conversion_names(self._weights_dir)

    async def check(self) -> None:
        """Tries the device. Raises ConfigInvalid: ``voice_gpu_missing``."""
        await _loaded(partial(check_voice_device, self._device))

    async def stage(self, change: VoiceChange) -> VoiceStage | None:
        """What makes a change; None where nothing is changed.

        Raises:
            NotFound: ``voice_conversion_unknown``.
            WeightsInvalid: its folder is damaged.
            BackendFailed: it cannot be loaded.
        """
        if not change.changes:
            return None
        # The first vocoder of a process loads its library, a tenth of a second.
        if not change.conversion:
            return await _loaded(partial(create_vocoder, change.pitch, change.formant))
        stage = (await self._conversion(change.conversion)).moved(change.pitch)
        return await _loaded(partial(create_vocoder, 0.0, change.formant, after=stage)) if change.formant else stage

    async def _conversion(self, name: str) -> Conversion:
        async with self._loading:
            if name not in self._conversions:
                load = partial(create_conversion, name, self._weights_dir, self._device)
                self._conversions[name] = await _loaded(load)
            self._conversions.move_to_end(name)
            while len(self._conversions) > CONVERSIONS_KEPT:
                self._conversions.popitem(last=False)
            return self._conversions[name]


async def _loaded(load: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_LOADER, load)
