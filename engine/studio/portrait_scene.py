"""Scenes and exact landmarks of a shipped portrait.

Place in the flow: ``Portrait`` + moments (expression, bone rotations) -> ``Scene`` for the path tracer, and where
eyes, nose and mouth are in every picture.

Invariants:
    * all scenes of a portrait share camera, light and hair, so their pictures match pixel for pixel;
    * landmarks come from the mesh that is drawn, not from a detector.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from engine.studio.actions import Action, action_moments
from engine.studio.cast import Portrait
from engine.studio.complexion import Mouth, paint, read_skin
from engine.studio.figure import Figure, Part
from engine.studio.hairdo import BOB, bob_strands, sweep_fringe
from engine.studio.human import Human
from engine.studio.idle_motion import Moment, idle_moments
from engine.studio.mesh import triangulate, vertex_normals
from engine.studio.mouth import target_weights
from engine.studio.rig import skin
from engine.studio.scalp import HAIRLINE_SKIN, grow, hairiness
from engine.studio.scene import Camera, Scene, ScenePart, Strands
from engine.types import MOUTH_SHAPES

_DISTANCE_DM = 12.0
_CAMERA_ABOVE_TARGET_DM = 0.10
_WHITE_MELANIN = 0.03
_HAIRS_APART = 10
_MOUTH_WIDTH_TARGET = "mouth/mouth-scale-horiz-incr"

_SMILE = "expression/units/caucasian/mouth-corner-puller"
_SMILE_GIVES_WAY = {
    "mouthFunnel": 0.75,
    "mouthPucker": 0.75,
    "jawOpen": 0.40,
    "mouthPress": 0.30,
    "mouthRollLower": 0.30,
}


def smile_left(mouth: np.ndarray) -> float:
    """How much of the resting smile a speaking mouth keeps: rounding and opening pull the corners in.

    Args:
        mouth: (len(MOUTH_SHAPES),) weights in [0, 1].

    Returns:
        0.15 … 1; 1 for the zero vector.
    """
    pull = sum(share * float(mouth[MOUTH_SHAPES.index(name)]) for name, share in _SMILE_GIVES_WAY.items())
    return max(0.15, 1.0 - pull)


class Stage:
    """A portrait with its figure and camera, ready to make scenes.

    Attributes:
        portrait: the person.
        figure: the person as meshes.
        camera: the camera of all pictures.
        eye_convergence: radians each eye turns inwards to meet at the camera.
        eye_pitch: radians the eyes look down to meet the camera.
    """

    def __init__(self, human: Human, portrait: Portrait) -> None:
        """Build the figure and place the camera."""
        self.portrait = portrait
        self.figure = Figure(human, portrait.identity)
        names = [part.name for part in self.figure.parts]
        self._eyes = names.index("eyes")
        self._hair = names.index("hair") if "hair" in names else None
        rest = self.figure.deform({})
        eye = rest[self._eyes].mean(axis=0)
        self._eye_height = float(eye[1])
        height = self._eye_height - portrait.eyes_above_centre_dm
        depth = float(eye[2])
        above = height + _CAMERA_ABOVE_TARGET_DM
        self.camera = Camera(
            position=(0.0, above, depth + _DISTANCE_DM),
            target=(0.0, height, depth),
            field_of_view_deg=portrait.field_of_view_deg,
            focus_distance_dm=_DISTANCE_DM - 0.15,
            aperture=0.9,
        )
        self.eye_convergence = float(np.abs(rest[self._eyes][:, 0]).mean()) / _DISTANCE_DM
        self.eye_pitch = (self._eye_height - above) / _DISTANCE_DM
        self._nose, self._mouth_right, self._mouth_left = self._face_vertices()
        self._strands: np.ndarray | None = None
        self._painted = tempfile.TemporaryDirectory(prefix="visavis-skin-")

    def idle_moments(self) -> list[Moment]:
        """Every frame of the portrait's idle loop."""
        return idle_moments(self.portrait.idle, self.eye_convergence, self.eye_pitch)

    def action_moments(self, action: Action) -> list[Moment]:
        """Every frame of a clip."""
        return action_moments(action, self.portrait.idle, self.eye_convergence, self.eye_pitch)

    def scene(self, moments: Sequence[Moment], borders: np.ndarray | None = None) -> Scene:
        """A scene of some moments.

        Args:
            moments: motion of every frame; the resting face is added here.
            borders: see ``Scene.borders``.
        """
        frames = [self._vertices(moment) for moment in moments]
        identity = self.portrait.identity
        parts = [
            ScenePart(
                name=part.name,
                texture=self._texture(part),
                tint=identity.tints.get(part.name, (1.0, 1.0, 1.0)),
                polygons=part.polygons,
                uv=part.polygon_uv,
                frames=np.stack([frame[number] for frame in frames]).astype(np.float32),
            )
            for number, part in enumerate(self.figure.parts)
        ]
        return Scene(self.camera, self.portrait.look, parts, self._hairs(moments), borders)

    def landmarks(self, moments: Sequence[Moment], size: int) -> np.ndarray:
        """Exact landmarks.

        Args:
            moments: motion of every frame.
            size: side of the square picture, pixels.

        Returns:
            (N, 5, 2) float32 pixels: left eye, right eye, nose tip, left and right mouth corner, as seen in the image.
        """
        return np.stack([self.camera.project(self._face_points(moment), size) for moment in moments])

    def visible_points(self, moments: Sequence[Moment], size: int) -> np.ndarray:
        """Where the vertices that face the camera are in every picture.

        Returns:
            (N, n, 2) float32 pixels of the same surface points: body, hair and clothes, and of some of
            the single hairs in front: they stand out beyond the scalp.
        """
        frames = [self._vertices(moment) for moment in moments]
        tracks = []
        for number, part in enumerate(self.figure.parts):
            if part.name not in ("body", "hair", "clothes"):
                continue
            faces, _ = triangulate(part.polygons, np.zeros_like(part.polygons))
            facing = vertex_normals(frames[0][number], faces)[:, 2] > 0.15
            tracks.append(np.stack([self.camera.project(frame[number][facing], size) for frame in frames]))
        for strands in self._hairs(moments):
            hairs = strands.points[::_HAIRS_APART].reshape(-1, 3)
            front = hairs[hairs[:, 2] > hairs[:, 2].mean()]
            moved = [front @ motion[:3, :3].T + motion[:3, 3] for motion in strands.frames]
            tracks.append(np.stack([self.camera.project(points, size) for points in moved]))
        return np.concatenate(tracks, axis=1)

    def _texture(self, part: Part) -> Path | None:
        """The picture on a part; the painted skin exists as long as the stage."""
        portrait = self.portrait
        if part.name == "clothes" and not portrait.painted_clothes:
            # Many of the library's fabrics bear stripes or trade marks; a plain weave is calmer in a small picture.
            return None
        if part.name != "body" or portrait.complexion is None:
            return part.texture
        painted = Path(self._painted.name) / "skin.png"
        if not painted.is_file():
            body = self.figure.body
            mouth = Mouth(body[self._mouth_right], body[self._mouth_left], body[self._nose])
            picture = paint(read_skin(part.texture), part, part.attach(body), mouth, portrait.complexion)
            cv2.imwrite(str(painted), picture)
        return painted

    def _expression(self, moment: Moment) -> dict[str, float]:
        weights = dict(self.portrait.face)
        spoken: dict[str, float] = {}
        if moment.mouth is not None:
            weights[_SMILE] = weights.get(_SMILE, 0.0) * smile_left(moment.mouth)
            spoken = target_weights(moment.mouth)
        for added in (moment.expression, spoken):
            for name, weight in added.items():
                weights[name] = weights.get(name, 0.0) + weight
        return weights

    def _styled(self, points: np.ndarray) -> np.ndarray:
        is_bob = self.portrait.identity.hair == BOB
        return sweep_fringe(points, self._eye_height) if is_bob else points

    def _vertices(self, moment: Moment) -> list[np.ndarray]:
        points = self.figure.deform(self._expression(moment))
        if self._hair is not None:
            points[self._hair] = self._styled(points[self._hair])
        matrices = self.figure.bone_matrices(moment.rotations)
        return [skin(p, part.bone_weights, matrices) for p, part in zip(points, self.figure.parts, strict=True)]

    def _hairs(self, moments: Sequence[Moment]) -> list[Strands]:
        portrait = self.portrait
        if self._strands is None:
            self._strands = self._grown()
        strands = self._strands
        head = self.figure.human.rig.bones.index("head")
        motion = np.stack([self.figure.bone_matrices(moment.rotations)[head] for moment in moments])
        # Hairs lie in random order, so the first of them are a fair sample of the whole head.
        white = round(portrait.white_hairs * len(strands))
        sorts = (
            ("strands", strands[white:], portrait.hair_melanin, portrait.hair_redness),
            ("white", strands[:white], _WHITE_MELANIN, 0.0),
        )
        return [
            Strands(name, hairs, portrait.hair_radius_dm, melanin, redness, motion)
            for name, hairs, melanin, redness in sorts
            if len(hairs)
        ]

    def _grown(self) -> np.ndarray:
        """(hairs, points, 3) single hairs, unposed; none when the portrait has none."""
        portrait, figure = self.portrait, self.figure
        if portrait.cut is not None:
            body = figure.parts[0]
            growth = hairiness(figure.human.assets.skin(HAIRLINE_SKIN))
            return grow(body, body.attach(figure.body), self._eye_height, growth, portrait.cut)
        if portrait.combing is not None and self._hair is not None and portrait.identity.hair == BOB:
            part = figure.parts[self._hair]
            return bob_strands(part, self._styled(part.attach(figure.body)), portrait.combing)
        return np.empty((0, 0, 3), np.float32)

    def _face_vertices(self) -> tuple[int, int, int]:
        """Body vertices of the nose tip, the right and the left mouth corner."""
        human = self.figure.human
        body = np.flatnonzero(human.group_of_vertex == "body")
        points = self.figure.body[body]
        front = points[:, 1] > self._eye_height - 1.0
        nose = body[np.argmax(np.where(front, points[:, 2], -np.inf))]
        # Widening the mouth moves its corners more than anything else.
        widen = human.targets[_MOUTH_WIDTH_TARGET]
        on_body = human.group_of_vertex[widen.vertices] == "body"
        sideways = np.where(on_body, widen.offsets[:, 0], 0.0)
        return int(nose), int(widen.vertices[sideways.argmin()]), int(widen.vertices[sideways.argmax()])

    def _face_points(self, moment: Moment) -> np.ndarray:
        """(5, 3) the landmarks in space; the person's right is the image's left."""
        chosen = np.array([self._nose, self._mouth_right, self._mouth_left])
        matrices = self.figure.bone_matrices(moment.rotations)
        body = self.figure.expressed(self._expression(moment))
        face = skin(body[chosen], self.figure.human.rig.skin_weights[chosen], matrices)
        eyes = self._vertices(moment)[self._eyes]
        right = self.figure.parts[self._eyes].attach(self.figure.body)[:, 0] < 0
        return np.stack([eyes[right].mean(axis=0), eyes[~right].mean(axis=0), *face])
