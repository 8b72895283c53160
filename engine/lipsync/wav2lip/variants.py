"""Every Wav2Lip checkpoint that is known: its size, its conventions, and where it listens.

Place in the flow: checkpoint.py finds the variant of a file here; the lip-sync model crops, cuts mel windows and pastes
as it says. No torch.

Invariants:
    * the shapes of a checkpoint tell its plan; where one plan has several conventions, the entry that comes first is
      taken and ``weights.toml`` may say otherwise;
    * pictures go in as [0, 1] and a pixel is ``clip(output, 0, 1) * 255`` for every variant: those that end in tanh
      were trained towards pictures in [0, 1] too;
    * the lower half of the picture is hidden from the network, so only that half of its output is pasted.

Where a window starts. ``MelWindow`` starts the 16 columns of frame i at floor(3.2 i) + ``window_offset``.
    * Official training (``wav2lip_train.py``: ``crop_audio_window(spec, i - 2)`` with i counted from 1) starts them at
      floor(3.2 (i - 1)), one frame before the picture; frames are numbered from 0 by ``preprocess.py``. That is 3
      columns before floor(3.2 i) for four frames of five and 4 for the fifth, so -3. The scripts that train the 288 and
      the SAM networks cut the same way; the 384 and 512 networks are by their author and have no script of their own.
    * Official and LiveTalking's inference start at floor(3.2 i), offset 0: one frame later than what was learnt, and
      one frame more of look-ahead.
    * The authors of the 256 network start at int(3.2 (i - 2)) when they use it (Linly-Talker, ``Wav2Lipv2.py``): the
      picture in the middle of the window; 6 columns before for three frames of five and 7 for two, so -6.
    This is arithmetic on the authors' code, checked by a test. Which offset a given checkpoint syncs best with can
    only be heard with its trained weights; ``window_offset`` in ``weights.toml`` is there for what the ear says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.audio.window import MelWindow
from engine.lipsync.wav2lip import blocks
from engine.lipsync.wav2lip.blocks import Plan

MEL_COLUMNS = 16
"""Columns of mel a network hears: 200 ms."""

ONE_FRAME_BEFORE = -3
TWO_FRAMES_BEFORE = -6

Activation = Literal["sigmoid", "tanh"]
Colour = Literal["bgr", "rgb"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One member of the family.

    Attributes:
        name: stable name, e.g. ``wav2lip-96``.
        size: height and width of the face picture, pixels.
        plan: its layers.
        activation: what the last convolution goes through.
        window_offset: first mel column of a frame, counted from the start of the frame; see the module's docstring.
        colour: order of the three colours at both ends.
        folder: the usual name of the folder its weights lie in.
        origin: whose network it is.
    """

    name: str
    size: int
    plan: Plan
    activation: Activation
    window_offset: int
    folder: str
    origin: str
    colour: Colour = "bgr"

    @property
    def paste_from(self) -> int:
        """First row of the picture that the network invents, and that is pasted back."""
        return self.size // 2

    @property
    def window(self) -> MelWindow:
        """Where it listens around a video frame."""
        return MelWindow(MEL_COLUMNS, self.window_offset)


def _sam(size: int, plan: Plan) -> Variant:
    name, origin = f"wav2lip-sam-{size}", "LiveTalking's SAM network"
    if plan.refine:
        name, origin = f"wav2lip-sam-refined-{size}", "primepake's SAM network"
    return Variant(name, size, plan, "sigmoid", ONE_FRAME_BEFORE, name, origin)


_KNOWN = (
    Variant("wav2lip-96", 96, blocks.PLAN_96, "sigmoid", ONE_FRAME_BEFORE, "wav2lip", "the official network"),
    Variant(
        "wav2lip-256", 256, blocks.PLAN_256, "sigmoid", TWO_FRAMES_BEFORE, "wav2lip-256",
        "the network of Linly-Talker and LiveTalking",
    ),
    Variant(
        "wav2lip-288", 288, blocks.PLAN_288, "sigmoid", ONE_FRAME_BEFORE, "wav2lip-288",
        "primepake's network with ReLU",
    ),
    Variant(
        "wav2lip-288-prelu", 288, blocks.PLAN_288.with_act("prelu"), "sigmoid", ONE_FRAME_BEFORE, "wav2lip-288",
        "primepake's network with PReLU",
    ),
    Variant("wav2lip-384", 384, blocks.PLAN_384, "tanh", ONE_FRAME_BEFORE, "wav2lip-384", "primepake's 384 network"),
    Variant("wav2lip-512", 512, blocks.PLAN_512, "tanh", ONE_FRAME_BEFORE, "wav2lip-512", "primepake's 512 network"),
    # Both authors' programs set 384 although the layers were laid out for 192, and nothing in a file tells.
    _sam(384, blocks.PLAN_SAM),
    _sam(192, blocks.PLAN_SAM),
    _sam(384, blocks.PLAN_SAM_REFINED),
    _sam(192, blocks.PLAN_SAM_REFINED),
)  # fmt: skip

VARIANTS: dict[str, Variant] = {variant.name: variant for variant in _KNOWN}
"""All known variants by name; of those with equal shapes the more likely one comes first."""
