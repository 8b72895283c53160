"""The lower half must be the lower half of the whole, to the last bits, for every network of the family."""

import pytest
import torch

from engine.lipsync.wav2lip.blocks import Conv
from engine.lipsync.wav2lip.crop import first_row_of
from engine.lipsync.wav2lip.lower_half import FaceFeatures, LowerHalf, Pixels, rows_read
from engine.lipsync.wav2lip.variants import VARIANTS
from tests.lipsync.wav2lip.small import small_network
from tests.lipsync.wav2lip.states import faces, mels

NARROW = ("wav2lip-96", "wav2lip-256", "wav2lip-288", "wav2lip-384", "wav2lip-sam-192", "wav2lip-sam-refined-192")


@pytest.mark.parametrize("name", NARROW)
def test_strip_equals_the_rows_of_the_whole_picture(name: str) -> None:
    network = small_network(name)
    lower = LowerHalf(network)
    face, mel = faces(network.variant.size, 2, 5), mels(2, 6)
    with torch.inference_mode():
        whole = network(mel, face)
        strip = lower(mel, *FaceFeatures(network, lower.feature_rows)(face))
    assert lower.first_row == first_row_of(network.variant) < network.variant.paste_from
    assert strip.shape == whole[:, :, lower.first_row :].shape
    torch.testing.assert_close(strip, whole[:, :, lower.first_row :], atol=1e-4, rtol=0)
    assert whole.std() > 0.01, "a flat picture would prove nothing"


@pytest.mark.parametrize("first_row", [0, 1, 31, 47, 48, 63, 95])
def test_any_first_row_is_exact(first_row: int) -> None:
    network = small_network()
    lower = LowerHalf(network, first_row)
    face, mel = faces(96, 1, 5), mels(1, 6)
    with torch.inference_mode():
        whole = network(mel, face)[:, :, first_row:]
        torch.testing.assert_close(
            lower(mel, *FaceFeatures(network, lower.feature_rows)(face)), whole, atol=1e-4, rtol=0
        )


def test_less_is_computed_and_kept_where_rows_are_left_out() -> None:
    lower = LowerHalf(small_network())
    assert lower.feature_rows[:4] == (43, 20, 9, 3), "first rows that a row 44 of the picture can see"
    assert LowerHalf(small_network(), 0).feature_rows == (0,) * 7


@pytest.mark.parametrize(
    ("conv", "gives", "reads"),
    [
        (Conv(1, 1), 10, 9),
        (Conv(1, 1), 0, 0),
        (Conv(1, 1, 1, padding=0), 10, 10),
        (Conv(1, 1, stride=(2, 2), transposed=True, output_padding=1), 10, 5),
        (Conv(1, 1, stride=(2, 2), transposed=True, output_padding=1), 11, 5),
        (Conv(1, 1, 3, padding=0, transposed=True), 2, 0),
    ],
)
def test_first_row_that_is_read_is_the_first_that_counts(conv: Conv, gives: int, reads: int) -> None:
    assert rows_read(conv, gives) == reads
    kind = torch.nn.ConvTranspose2d if conv.transposed else torch.nn.Conv2d
    extra = {"output_padding": conv.output_padding} if conv.transposed else {}
    layer = kind(1, 1, conv.kernel, conv.stride, conv.padding, bias=False, **extra)
    torch.nn.init.ones_(layer.weight)
    seen = []
    for row in range(16):
        x = torch.zeros(1, 1, 16, 16)
        x[0, 0, row] = 1
        if layer(x)[0, 0, gives:].abs().sum() > 0:
            seen.append(row)
    assert seen[0] == reads


def test_pixels_are_rounded_clipped_and_in_the_order_of_the_picture() -> None:
    network = small_network()
    lower = LowerHalf(network)
    face, mel = faces(96, 1, 5), mels(1, 6)
    with torch.inference_mode():
        features = FaceFeatures(network, lower.feature_rows)(face)
        strip = lower(mel, *features)
        pixels = Pixels(lower)(mel, *features)
        reversed_pixels = _in_rgb(network, lower, mel, features)
    assert pixels.dtype == torch.uint8 and pixels.shape == (1, 52, 96, 3)
    wanted = (strip.clamp(0, 1) * 255).round().permute(0, 2, 3, 1)
    assert torch.equal(pixels.float(), wanted)
    assert torch.equal(reversed_pixels, pixels.flip(3))


def _in_rgb(network, lower, mel, features):
    from dataclasses import replace

    network.variant = replace(network.variant, colour="rgb")
    return Pixels(lower)(mel, *features)


def test_every_known_variant_has_a_seam_above_its_lower_half() -> None:
    for variant in VARIANTS.values():
        assert 0 < variant.paste_from - first_row_of(variant) <= variant.size // 20
