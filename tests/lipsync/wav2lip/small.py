"""Networks of the family with an eighth of the channels: the same layers and rows, thirty times as fast."""

from dataclasses import replace

from engine.lipsync.wav2lip.blocks import Block, Conv
from engine.lipsync.wav2lip.networks import Wav2Lip, build
from engine.lipsync.wav2lip.variants import VARIANTS, Variant
from tests.lipsync.wav2lip.states import calibrated_state

_KEPT = (1, 6)
"""Channels of the inputs: the sound's and the face's."""


def small(name: str = "wav2lip-96", by: int = 8) -> Variant:
    """A variant with fewer channels."""

    def narrow(conv: Conv) -> Conv:
        cin = conv.cin if conv.cin in _KEPT else conv.cin // by
        return replace(conv, cin=cin, cout=conv.cout // by)

    def block(convs: Block) -> Block:
        return tuple(map(narrow, convs))

    plan = VARIANTS[name].plan
    plan = replace(
        plan,
        face_encoder=tuple(map(block, plan.face_encoder)),
        audio_encoder=block(plan.audio_encoder),
        face_decoder=tuple(map(block, plan.face_decoder)),
        output=block(plan.output),
        refine=block(plan.refine),
    )
    return replace(VARIANTS[name], plan=plan)


def small_network(name: str = "wav2lip-96", seed: int = 0) -> Wav2Lip:
    """A small network whose activations are as lively as a trained one's."""
    variant = small(name)
    return build(variant, calibrated_state(variant, seed, 4))
