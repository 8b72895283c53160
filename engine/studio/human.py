"""The base human: one topology that every synthetic person shares, and the targets that shape it.

Place in the flow: ``Assets`` -> ``Human`` -> ``Figure`` (one person).

Invariants:
    * a shaped body has the vertices of the base mesh in the same order;
    * in every expression target the tongue moves as one piece with the lower teeth.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.studio.assets import Assets
from engine.studio.mesh import Mesh, load_obj
from engine.studio.rig import Rig
from engine.studio.targets import Macro, Target, TargetLibrary, macro_weights

_LEAST_MOVE_DM = 1e-5
_TONGUE_TIP_LIFT_DM = 0.24


class Human:
    """The base mesh with its targets and rig.

    Attributes:
        assets: where it was loaded from.
        base: the base mesh, all groups (body and helpers).
        group_of_vertex: (V,) name of a group that uses the vertex.
        targets: every shape target.
        rig: the skeleton.
    """

    def __init__(self, assets: Assets) -> None:
        """Load the base human of an assets directory."""
        self.assets = assets
        self.base: Mesh = load_obj(assets.base_mesh())
        self.group_of_vertex = _vertex_groups(self.base)
        self.targets = tongue_with_jaw(TargetLibrary.load(assets), self.base.vertices, self.group_of_vertex)
        self.rig = Rig.load(assets, len(self.base.vertices))

    def shape(self, macro: Macro, details: Mapping[str, float] | None = None) -> np.ndarray:
        """Vertices of a person without expression.

        Args:
            macro: broad strokes.
            details: further targets by weight.

        Returns:
            (V, 3) float32 decimetres.

        Raises:
            KeyError: a detail is no target.
        """
        vertices = self.base.vertices.copy()
        # Not every corner of the macro space is sculpted: an absent one means "no change".
        self.targets.add_to(vertices, {k: w for k, w in macro_weights(macro).items() if k in self.targets})
        self.targets.add_to(vertices, details or {})
        return vertices


def tongue_with_jaw(library: TargetLibrary, rest: np.ndarray, groups: np.ndarray) -> TargetLibrary:
    """Let the tongue follow the lower teeth in every expression that moves them.

    The sculpted targets move the tongue loosely, so that it floats up through the teeth when the jaw drops. Here its
    displacement becomes the affine map (in height and depth) that fits the displacement of the lower teeth best.

    Args:
        library: all targets; ``tongueOut`` keeps its own motion, with a raised tip.
        rest: (V, 3) base mesh.
        groups: (V,) group names.
    """
    tongue = np.flatnonzero(groups == "helper-tongue")
    teeth = np.flatnonzero(groups == "helper-lower-teeth")
    # Without the sideways coordinate: a jaw is symmetric, and the fit would tilt on one-sided targets.
    solve = np.linalg.pinv(np.c_[rest[teeth][:, 1:], np.ones(len(teeth))], rcond=1e-3)
    tongue_basis = np.c_[rest[tongue][:, 1:], np.ones(len(tongue))]
    changed: dict[str, Target] = {}
    for name, target in library.items():
        expression = name.startswith(("arkit/", "vis/", "expression/units/"))
        if not expression or "tongueOut" in name or not np.isin(teeth, target.vertices).any():
            continue
        dense = np.zeros_like(rest)
        dense[target.vertices] = target.offsets
        dense[tongue] = tongue_basis @ (solve @ dense[teeth])
        moving = np.flatnonzero(np.abs(dense).max(axis=1) > _LEAST_MOVE_DM)
        changed[name] = Target(moving.astype(np.int32), dense[moving])
    if "arkit/tongueOut" in library:
        changed["arkit/tongueOut"] = _lifted_tongue(library["arkit/tongueOut"], rest, tongue)
    return library.replaced(changed)


def _lifted_tongue(target: Target, rest: np.ndarray, tongue: np.ndarray) -> Target:
    """The stretched-out tongue with its tip raised, so that it passes over the lower teeth and not through them."""
    dense = np.zeros_like(rest)
    dense[target.vertices] = target.offsets
    depth = rest[tongue, 2]
    towards_tip = (depth - depth.min()) / np.ptp(depth)
    dense[tongue, 1] += _TONGUE_TIP_LIFT_DM * towards_tip**2
    moving = np.flatnonzero(np.abs(dense).max(axis=1) > _LEAST_MOVE_DM)
    return Target(moving.astype(np.int32), dense[moving])


def _vertex_groups(mesh: Mesh) -> np.ndarray:
    groups = np.full(len(mesh.vertices), "", dtype=mesh.groups.dtype)
    for corner in range(4):
        used = mesh.polygons[:, corner] >= 0
        groups[mesh.polygons[used, corner]] = mesh.groups[used]
    return groups
