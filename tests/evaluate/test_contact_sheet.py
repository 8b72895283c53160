import numpy as np

from engine.evaluate.contact_sheet import TILE, TILES_PER_ROW, Sheet, draw, mouth_tile
from engine.studio.phones import gestures_from_espeak
from engine.types import MOUTH_SHAPES


def test_a_sheet_holds_its_tiles_in_order_on_the_time_axis():
    tiles = [np.full((TILE, TILE, 3), 3 * index, np.uint8) for index in range(TILES_PER_ROW + 3)]
    phonemes = [("m", 0.1, 0.2), ("'A:", 0.2, 0.5)]
    sheet = Sheet(
        tiles, 2, np.zeros(48_000, np.int16), np.zeros((38, len(MOUTH_SHAPES)), np.float32), phonemes,
        gestures_from_espeak(phonemes),
    )  # fmt: skip
    image = draw(sheet)
    assert image.dtype == np.uint8
    row_height = image.shape[0] // 2
    left = image.shape[1] - TILES_PER_ROW * TILE
    for index, tile in enumerate(tiles):
        row, column = divmod(index, TILES_PER_ROW)
        y, x = row * row_height + TILE // 2, left + column * TILE + TILE // 2
        assert (image[y, x] == tile[0, 0]).all()


def test_a_mouth_tile_is_centred_on_the_mouth():
    image = np.zeros((200, 200, 3), np.uint8)
    image[148:152, 98:102] = 255
    landmarks = np.array([[70, 80], [130, 80], [100, 120], [80, 150], [120, 150]], np.float32)
    tile = mouth_tile(image, landmarks, 70.0)
    ys, xs = np.nonzero(tile[..., 0] > 60)
    assert abs(xs.mean() - TILE / 2) < 2
    assert TILE * 0.3 < ys.mean() < TILE * 0.5
