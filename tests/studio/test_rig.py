"""Bones: rotations compose down the chain, skinning blends, the whole skeleton collapses onto the kept bones."""

from __future__ import annotations

import numpy as np
import pytest

from engine.studio.rig import Rig, rotation, skin


@pytest.fixture
def arm() -> tuple[Rig, np.ndarray]:
    body = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]], np.float32)
    rig = Rig(
        parents={"root": None, "upper": "root", "fore": "upper", "hand": "fore"},
        heads={"root": [0], "upper": [0], "fore": [1], "hand": [2]},
        weights={"upper": [(0, 1.0), (1, 1.0)], "fore": [(2, 1.0)], "hand": [(3, 2.0)]},
        vertex_count=4,
        bones=("root", "upper", "fore"),
    )
    return rig, body


def test_rotation_turns_each_axis_the_documented_way() -> None:
    np.testing.assert_allclose(rotation(np.pi / 2, 0, 0) @ [0, 0, 1], [0, -1, 0], atol=1e-6)
    np.testing.assert_allclose(rotation(0, np.pi / 2, 0) @ [0, 0, 1], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(rotation(0, 0, np.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-6)


def test_dropped_bones_hand_their_vertices_to_the_nearest_kept_ancestor(arm) -> None:
    rig, _ = arm
    assert rig.skin_weights[3].tolist() == [0, 0, 1]
    np.testing.assert_allclose(rig.skin_weights.sum(axis=1), 1)


def test_turning_a_parent_and_a_child_composes(arm) -> None:
    rig, body = arm
    quarter = rotation(0, 0, np.pi / 2)
    posed = skin(body, rig.skin_weights, rig.matrices(body, {"upper": quarter, "fore": quarter}))
    np.testing.assert_allclose(posed, [[0, 0, 0], [0, 1, 0], [-1, 1, 0], [-2, 1, 0]], atol=1e-6)


def test_no_rotation_leaves_the_body_alone(arm) -> None:
    rig, body = arm
    np.testing.assert_allclose(skin(body, rig.skin_weights, rig.matrices(body, {})), body)


def test_a_bone_that_is_not_kept_cannot_be_turned(arm) -> None:
    rig, body = arm
    with pytest.raises(KeyError, match="hand"):
        rig.matrices(body, {"hand": rotation(0, 0, 1)})
