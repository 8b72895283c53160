"""Reading meshes, targets and proxies from small files; triangles and normals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.studio.mesh import load_obj, triangulate, vertex_normals
from engine.studio.proxy import expand_ranges, load_proxy
from engine.studio.targets import Macro, Target, TargetLibrary, macro_weights, read_target

SQUARE = """
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
v 0.5 2 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
g body
f 1/1 2/2 3/3 4/4
g roof
f 4/4 3/3 5/1
f 1/1 2/2 3/3 5/4 4/4
"""


@pytest.fixture
def square(tmp_path: Path) -> Path:
    path = tmp_path / "square.obj"
    path.write_text(SQUARE)
    return path


def test_obj_keeps_quads_triangles_and_groups_and_fans_larger_polygons(square: Path) -> None:
    mesh = load_obj(square)
    assert mesh.vertices.shape == (5, 3)
    assert mesh.polygons.tolist() == [[0, 1, 2, 3], [3, 2, 4, -1], [0, 1, 2, -1], [0, 2, 4, -1], [0, 4, 3, -1]]
    assert mesh.groups.tolist() == ["body", "roof", "roof", "roof", "roof"]
    assert mesh.uv[mesh.corner_uv[0]].tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]


def test_triangulation_keeps_corner_values_and_area(square: Path) -> None:
    mesh = load_obj(square)
    triangles, values = triangulate(mesh.polygons[:2], mesh.corner_uv[:2])
    assert triangles.tolist() == [[0, 1, 2], [0, 2, 3], [3, 2, 4]]
    assert values.tolist() == [[0, 1, 2], [0, 2, 3], [3, 2, 0]]


def test_normals_point_out_of_counter_clockwise_faces() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [9, 9, 9]], np.float32)
    normals = vertex_normals(vertices, np.array([[0, 1, 2]], np.int32))
    np.testing.assert_allclose(normals, [[0, 0, 1]] * 3 + [[0, 0, 0]])


def test_target_file_is_read_without_comments(tmp_path: Path) -> None:
    path = tmp_path / "nose.target"
    path.write_text("# comment\n3 0.5 0 -1\n\n7 0 2 0\n")
    target = read_target(path)
    assert target.vertices.tolist() == [3, 7]
    assert target.offsets.tolist() == [[0.5, 0, -1], [0, 2, 0]]


def test_targets_add_up_linearly() -> None:
    library = TargetLibrary({"a": Target(np.array([1]), np.array([[1.0, 0, 0]], np.float32))})
    vertices = np.zeros((3, 3), np.float32)
    library.add_to(vertices, {"a": 0.25})
    library.add_to(vertices, {"a": 0.5})
    assert vertices.tolist() == [[0, 0, 0], [0.75, 0, 0], [0, 0, 0]]
    with pytest.raises(KeyError):
        library.add_to(vertices, {"b": 1.0})


@pytest.mark.parametrize("age", [0.0, 0.1, 0.1875, 0.3, 0.5, 0.8, 1.0])
def test_macro_weights_of_a_family_sum_to_one_at_any_age(age: float) -> None:
    weights = macro_weights(Macro(gender=0.3, age=age, muscle=0.2, weight=0.9, ancestry=(2, 1, 1)))
    heads = sum(weight for name, weight in weights.items() if name.count("-") == 2)
    bodies = sum(weight for name, weight in weights.items() if name.startswith("macrodetails/universal"))
    assert heads == pytest.approx(1, abs=1e-3)
    assert bodies == pytest.approx(1, abs=1e-3)


def test_index_ranges_expand_with_both_ends() -> None:
    assert expand_ranges(["3", "7", "-", "9", "12"]).tolist() == [3, 7, 8, 9, 12]


def test_proxy_follows_the_body_and_scales_its_offsets(square: Path, tmp_path: Path) -> None:
    clothes = tmp_path / "hat.mhclo"
    clothes.write_text(
        "# hat\nobj_file square.obj\nx_scale 0 1 2.0\nverts 0\nmaterial hat.mhmat\n"
        "0\n1\n2\n3\n0 1 2 0.5 0.5 0 0.4 0 0\ndelete_verts\n0 - 2\n"
    )
    proxy = load_proxy(clothes)
    body = np.array([[0, 0, 0], [4, 0, 0], [0, 4, 0], [1, 1, 1]], np.float32)
    fitted = (body[proxy.anchors] * proxy.weights[:, :, None]).sum(axis=1) + proxy.scaled_offsets(body)
    assert fitted[1].tolist() == [4, 0, 0]
    np.testing.assert_allclose(fitted[4], [2.8, 0, 0])
    assert proxy.hidden.tolist() == [0, 1, 2]


def test_proxy_that_does_not_bind_its_mesh_is_refused(square: Path, tmp_path: Path) -> None:
    clothes = tmp_path / "hat.mhclo"
    clothes.write_text("obj_file square.obj\nverts 0\n0\n1\n")
    with pytest.raises(ValueError, match="binds 2 of 5"):
        load_proxy(clothes)
