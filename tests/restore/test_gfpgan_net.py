"""The restorer's network against the original: reference pictures, the gfpgan package, cut windows, precision."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.restore.gfpgan_net import GfpganShape  # noqa: E402
from engine.restore.torch_runtime import BorderedGfpgan, TorchEnhancer  # noqa: E402
from engine.restore.window import Window, plan  # noqa: E402
from tests.restore.networks import SMALL, seeded_faces, seeded_network, seeded_state  # noqa: E402

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
SIZE = SMALL.size
full_network = pytest.mark.skipif(
    "VISAVIS_FULL_NETWORKS" not in os.environ, reason="takes 2 GB: set VISAVIS_FULL_NETWORKS to run it"
)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2)))


def pictures(faces: torch.Tensor) -> np.ndarray:
    """(B, S, S, 3) BGR bytes."""
    return ((faces.flip(1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def assert_equals_reference(shape: GfpganShape, name: str) -> None:
    """gfpgan_*.npz hold what the original's GFPGANv1Clean draws with its own noise on the same state and face."""
    reference = np.load(REFERENCE / f"gfpgan_{name}.npz")
    with torch.inference_mode():
        ours = seeded_network(shape, int(reference["seed"]))(seeded_faces(shape.size)).numpy()
    step, largest = int(reference["step"]), np.abs(reference["picture"]).max()
    assert np.abs(ours[:, :, ::step, ::step] - reference["picture"]).max() <= 1e-5 * largest
    np.testing.assert_allclose(ours.astype(np.float64).mean((0, 2, 3)), reference["mean"], atol=1e-5)
    np.testing.assert_allclose(ours.astype(np.float64).std((0, 2, 3)), reference["std"], atol=1e-5)


def test_a_narrow_network_draws_what_the_original_draws() -> None:
    assert_equals_reference(SMALL, "small")


@full_network
def test_the_official_network_draws_what_the_original_draws() -> None:
    assert_equals_reference(GfpganShape.of(), "full")


def test_the_picture_depends_on_the_face() -> None:
    with torch.inference_mode():
        one, other = seeded_network()(torch.cat([seeded_faces(SIZE), seeded_faces(SIZE, seed=4)]))
    assert (one - other).abs().max() > 0.1


def test_faces_of_a_batch_do_not_mix() -> None:
    network, faces = seeded_network(), torch.cat([seeded_faces(SIZE), seeded_faces(SIZE, seed=4)])
    with torch.inference_mode():
        together = network(faces)
        alone = torch.cat([network(faces[:1]), network(faces[1:])])
    assert (together - alone).abs().max() < 1e-5


def test_the_official_shape_has_the_published_number_of_parameters() -> None:
    shape = GfpganShape.of()
    assert (shape.unet, shape.style) == ((256,) * 5 + (128, 64, 32), (512,) * 5 + (256, 128, 64))
    assert shape.latents == 16 and shape.sizes == (8, 16, 32, 64, 128, 256, 512)


def test_network_equals_that_of_the_gfpgan_package() -> None:
    package = pytest.importorskip("gfpgan.archs.gfpganv1_clean_arch", exc_type=Exception)
    original = package.GFPGANv1Clean(
        SIZE, channel_multiplier=2, fix_decoder=False, input_is_latent=True, different_w=True, narrow=1 / 16,
        sft_half=True,
    ).eval()  # fmt: skip
    original.load_state_dict(seeded_state(SMALL, 11), strict=True)
    faces = seeded_faces(SIZE, 2)
    with torch.inference_mode():
        wanted = original(faces, return_rgb=False, randomize_noise=False)[0]
        ours = seeded_network(SMALL, 11)(faces)
    assert (ours - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(
    "window",
    [
        Window(80, 117, 40, 89),  # a mouth
        Window(64, 128, 16, 112),  # down to the border
        Window(0, 3, 0, 3),
        Window(127, 128, 0, 128),
        Window(61, 62, 61, 62),
        Window.whole(SIZE),
    ],
)
def test_a_cut_network_draws_exactly_the_pixels_of_the_whole_one(window: Window) -> None:
    network, faces = seeded_network(), seeded_faces(SIZE)
    with torch.inference_mode():
        whole, cut = network(faces), network(faces, window)
    rows, columns = window.slices
    assert cut.shape[2:] == (window.height, window.width)
    assert (cut - whole[:, :, rows, columns]).abs().max() < 2e-6


def test_a_narrower_halo_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    network, faces, window = seeded_network(), seeded_faces(SIZE), Window(80, 117, 40, 89)
    monkeypatch.setattr("engine.restore.window.HALO", 3)
    with torch.inference_mode():
        whole, cut = network(faces), network(faces, window)
    rows, columns = window.slices
    assert (cut - whole[:, :, rows, columns]).abs().max() > 1e-4


@pytest.mark.parametrize("window", [Window(-1, 4, 0, 4), Window(0, 129, 0, 4), Window(5, 5, 0, 4)])
def test_a_window_must_lie_on_the_picture(window: Window) -> None:
    with pytest.raises(ValueError, match="does not lie within"):
        plan(SMALL.sizes, window)


def test_bf16_costs_less_than_can_be_seen() -> None:
    faces, window = pictures(seeded_faces(SIZE, 2)), Window(64, 128, 16, 112)
    exact = TorchEnhancer(seeded_network(), precision="f32").enhance(faces, window)
    quick = TorchEnhancer(seeded_network(), precision="bf16").enhance(faces, window)
    assert psnr(exact, quick) >= 45


def test_the_network_is_given_rgb_and_its_rgb_becomes_bgr() -> None:
    faces, window = seeded_faces(SIZE), Window(3, 100, 5, 120)
    with torch.inference_mode():
        red, green, blue = seeded_network()(faces, window)[0].numpy()
    drawn = TorchEnhancer(seeded_network(), precision="f32").enhance(pictures(faces), window)[0]
    wanted = np.stack([blue, green, red], -1).clip(-1, 1) * 127.5 + 127.5
    # Faces were rounded to bytes on their way in.
    assert psnr(wanted, drawn) > 45
    assert psnr(wanted[..., ::-1], drawn) < 25


def test_values_beyond_white_and_black_are_cut_off() -> None:
    class Glaring(torch.nn.Module):
        def forward(self, faces: torch.Tensor, window: Window) -> torch.Tensor:
            red = torch.tensor([3.0, 0.0, -3.0]).view(1, 3, 1, 1)
            return red.expand(len(faces), 3, window.height, window.width)

    drawn = BorderedGfpgan(Glaring(), Window(0, 2, 0, 2))(torch.zeros((1, 4, 4, 3), dtype=torch.uint8))
    assert drawn[0, 0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(("precision", "floor"), [("f32", 60), ("bf16", 45)])
def test_openvino_draws_what_torch_draws(precision: str, floor: float) -> None:
    pytest.importorskip("openvino")
    from engine.restore.openvino_runtime import OpenvinoEnhancer

    faces, window = pictures(seeded_faces(SIZE, 2)), Window(64, 128, 16, 112)
    exact = TorchEnhancer(seeded_network(), precision="f32").enhance(faces, window)
    drawn = OpenvinoEnhancer(seeded_network(), precision).enhance(faces, window)
    assert drawn.shape == exact.shape and drawn.dtype == np.uint8
    assert psnr(exact, drawn) >= floor


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_what_the_cpu_draws_whatever_the_batch() -> None:
    faces, window = pictures(seeded_faces(SIZE, 3)), Window(64, 128, 16, 112)
    exact = TorchEnhancer(seeded_network(), precision="f32").enhance(faces, window)
    enhancer = TorchEnhancer(seeded_network(), "cuda", "bf16")
    for count in (3, 1, 3):
        assert psnr(exact[:count], enhancer.enhance(faces[:count], window)) >= 45
