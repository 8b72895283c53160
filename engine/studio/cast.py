"""The people who are shipped: identity, resting face, hair, light and framing of each portrait.

Place in the flow: ``PORTRAITS[name]`` -> ``portrait`` builds the scene, draws it and writes the avatar folder.

Invariants:
    * a portrait is plain data: with the assets it reproduces the avatar;
    * the resting face has closed lips and is part of every frame; speech is added to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.studio.actions import Action, actions
from engine.studio.complexion import Complexion
from engine.studio.identity import Colour, Identity
from engine.studio.idle_motion import Idle
from engine.studio.scalp import Cut
from engine.studio.scene import AreaLight, Look
from engine.studio.strands import Combing
from engine.studio.targets import Macro


@dataclass(frozen=True)
class Portrait:
    """One shipped person.

    Attributes:
        title: name shown to people.
        identity: who it is.
        painted_clothes: whether clothes keep their painted fabric; else they are plain, of the colour of their tint.
        complexion: what is painted on the skin, or None for the library's texture as it is.
        face: the resting expression: target -> weight.
        look: light and backdrop.
        field_of_view_deg: framing.
        eyes_above_centre_dm: how far above the middle of the picture the eyes are.
        combing: single hairs over the bob, or None.
        cut: hair grown from the scalp, or None.
        hair_radius_dm: thickness of a single hair.
        hair_melanin: 0 white … 1 black.
        hair_redness: 0 … 1.
        white_hairs: share of single hairs that have gone white.
        idle: the idle loop.
        key_every: every how many frames of the idle loop the whole picture is drawn; see ``inbetween``.
        actions: the clips by name.
    """

    title: str
    identity: Identity
    painted_clothes: bool
    complexion: Complexion | None
    face: Mapping[str, float]
    look: Look
    field_of_view_deg: float
    eyes_above_centre_dm: float
    combing: Combing | None
    cut: Cut | None
    hair_radius_dm: float
    hair_melanin: float
    hair_redness: float
    white_hairs: float
    idle: Idle
    key_every: int
    actions: Mapping[str, Action]


_LIGHTS = (
    AreaLight((-6, 10.5, 9), 6, 1150, (1.0, 0.96, 0.91)),
    AreaLight((8, 6.5, 8), 8, 380, (0.92, 0.96, 1.0)),
    AreaLight((5, 11, -7), 4, 300, (1.0, 0.97, 0.95)),
    AreaLight((-5, 9, -8), 3, 230, (0.95, 0.97, 1.0)),
    # A small lamp at the camera: without it teeth and tongue drown in the shadow of the lips.
    AreaLight((0, 6.0, 12), 2, 150, (1.0, 0.98, 0.95)),
)


def _soft_studio(edge: Colour, centre: Colour) -> Look:
    """Soft daylight before a backdrop of that linear RGB at its edge and at its centre."""
    return Look(_LIGHTS, ambient=(0.10, 0.104, 0.11), backdrop=(edge, centre), backdrop_centre=(0.0, 7.0))


def _pleasant(smile: float, inner_brows: float, outer_brows: float, cheeks: float) -> Mapping[str, float]:
    """A friendly resting face with closed lips."""
    return {
        "expression/units/caucasian/mouth-corner-puller": smile,
        "arkit/browInnerUp": inner_brows,
        "arkit/browOuterUpLeft": outer_brows,
        "arkit/browOuterUpRight": outer_brows,
        "arkit/cheekSquintLeft": cheeks,
        "arkit/cheekSquintRight": cheeks,
    }


PORTRAITS: Mapping[str, Portrait] = {
    "maya": Portrait(
        title="Maya",
        identity=Identity(
            macro=Macro(gender=0.04, ancestry=(1, 0.45, 0.15), proportions=1, weight=0.42),
            details={
                "head/head-oval": 0.5,
                "chin/chin-width-decr": 0.3,
                "mouth/mouth-scale-horiz-incr": 0.2,
                "eyebrows/eyebrows-trans-up": 0.3,
            },
            skin="young_lightskinned_female_diffuse3",
            iris="brownlight",
            hair="bob02",
            brows="eyebrow001",
            lashes="eyelashes02",
            clothes="female_elegantsuit01",
            tints={
                "body": (0.93, 0.82, 0.75),
                "eyes": (0.62, 0.60, 0.60),
                "hair": (0.10, 0.065, 0.048),
                "clothes": (0.03, 0.055, 0.10),
                "teeth": (1.45, 1.33, 1.15),
                "tongue": (1.35, 1.10, 1.05),
            },
        ),
        painted_clothes=False,
        complexion=Complexion(unevenness=0.035),
        face=_pleasant(0.56, 0.20, 0.32, 0.22),
        look=_soft_studio((0.15, 0.17, 0.19), (0.47, 0.51, 0.54)),
        field_of_view_deg=18.0,
        eyes_above_centre_dm=0.33,
        combing=Combing(count=9_000, length_dm=(0.4, 1.0), lift_dm=(0.002, 0.03), drift=0.02),
        cut=None,
        hair_radius_dm=0.0016,
        hair_melanin=0.72,
        hair_redness=0.25,
        white_hairs=0.0,
        idle=Idle(
            frames=200,
            breaths=2,
            blinks=(21, 112, 171),
            fixations=((1, 0, 0), (41, 0.03, 0.006), (72, -0.012, 0), (112, -0.035, 0.004), (151, 0.008, -0.008)),
            phase=0.0,
        ),
        key_every=10,
        actions=actions(side=1),
    ),
    "leo": Portrait(
        title="Leo",
        identity=Identity(
            macro=Macro(gender=0.92, age=0.74, ancestry=(1, 0.05, 0.1), proportions=0.9, weight=0.5),
            details={
                "eyes/l-eye-scale-incr": 0.15,
                "eyes/r-eye-scale-incr": 0.15,
                "eyes/l-eye-bag-incr": 0.35,
                "eyes/r-eye-bag-incr": 0.35,
                "mouth/mouth-laugh-lines-in": 0.35,
                "chin/chin-jaw-drop-incr": 0.15,
                "eyebrows/eyebrows-trans-up": 0.35,
                "forehead/forehead-scale-vert-decr": 0.4,
            },
            skin="middleage_lightskinned_male_diffuse2",
            iris="blue",
            hair=None,
            brows="eyebrow001",
            lashes="eyelashes03",
            clothes="male_elegantsuit01",
            tints={
                "body": (1.0, 0.95, 0.91),
                "eyes": (0.62, 0.62, 0.62),
                "brows": (2.2, 2.1, 2.0),
                "teeth": (1.35, 1.24, 1.05),
                "tongue": (1.35, 1.10, 1.05),
            },
        ),
        painted_clothes=True,
        complexion=Complexion(unevenness=0.03, stubble=0.16, white_stubble=0.35),
        face=_pleasant(0.50, 0.16, 0.24, 0.16),
        look=_soft_studio((0.035, 0.05, 0.07), (0.16, 0.21, 0.26)),
        field_of_view_deg=18.0,
        eyes_above_centre_dm=0.33,
        combing=None,
        cut=Cut(
            count=40_000,
            sides_dm=0.06,
            top_dm=0.26,
            top_from_dm=(0.5, 0.85),
            rise=(0.10, 0.36),
            combed=(0.9, 0.1, 0.2),
            stray=0.14,
            locks=700,
            lock_stray=0.18,
            recede_dm=0.05,
        ),
        hair_radius_dm=0.004,
        hair_melanin=0.55,
        hair_redness=0.10,
        white_hairs=0.72,
        idle=Idle(
            frames=200,
            breaths=2,
            blinks=(16, 88, 145),
            fixations=((0, 0, 0), (17, -0.022, 0.004), (89, 0.026, 0.0), (121, 0.004, -0.008), (161, -0.012, 0.004)),
            phase=2.1,
        ),
        key_every=8,
        actions=actions(side=-1),
    ),
    "amara": Portrait(
        title="Amara",
        identity=Identity(
            macro=Macro(gender=0.03, ancestry=(0.25, 0.1, 1), proportions=1, weight=0.48),
            details={
                "head/head-oval": 0.4,
                "eyebrows/eyebrows-trans-up": 0.8,
                "eyebrows/eyebrows-angle-up": 0.2,
                "mouth/mouth-scale-horiz-incr": 0.15,
            },
            # The library has no dark skin of a young woman: a light one is darkened.
            skin="young_lightskinned_female_diffuse3",
            iris="brown",
            hair=None,
            brows="eyebrow001",
            lashes="eyelashes03",
            clothes="female_elegantsuit01",
            tints={
                "body": (0.35, 0.22, 0.165),
                "eyes": (0.60, 0.58, 0.57),
                "clothes": (0.30, 0.06, 0.05),
                "teeth": (1.45, 1.33, 1.15),
                "tongue": (1.35, 1.10, 1.05),
            },
        ),
        painted_clothes=False,
        complexion=Complexion(unevenness=0.045),
        face=_pleasant(0.60, 0.27, 0.35, 0.20),
        look=_soft_studio((0.30, 0.26, 0.215), (0.68, 0.62, 0.54)),
        field_of_view_deg=18.0,
        eyes_above_centre_dm=0.33,
        combing=None,
        cut=Cut(
            count=60_000,
            sides_dm=0.15,
            top_dm=0.24,
            rise=(0.8, 0.8),
            curl_dm=0.022,
            turns_per_dm=8.0,
            stray=0.5,
            points=10,
            locks=1200,
            gather=0.45,
            lock_stray=0.3,
        ),
        hair_radius_dm=0.003,
        hair_melanin=1.0,
        hair_redness=0.0,
        white_hairs=0.0,
        idle=Idle(
            frames=200,
            breaths=2,
            blinks=(41, 102, 161),
            fixations=((1, 0, 0), (48, 0.024, 0.0), (102, -0.010, 0.006), (132, -0.028, -0.002), (161, 0.004, 0.004)),
            phase=3.9,
        ),
        key_every=10,
        actions=actions(side=-1),
    ),
    "kenji": Portrait(
        title="Kenji",
        identity=Identity(
            macro=Macro(gender=1.0, age=0.60, muscle=0.65, ancestry=(0.15, 1, 0), proportions=0.9, weight=0.42),
            details={
                "head/head-rectangular": 0.35,
                "chin/chin-width-incr": 0.2,
                "cheek/l-cheek-volume-decr": 0.5,
                "cheek/r-cheek-volume-decr": 0.5,
                "forehead/forehead-scale-vert-decr": 0.65,
                "eyebrows/eyebrows-angle-up": 0.15,
                "eyebrows/eyebrows-trans-up": 0.35,
                "eyes/l-eye-epicanthus-in": 0.3,
                "eyes/r-eye-epicanthus-in": 0.3,
                "eyes/l-eye-height2-incr": 0.3,
                "eyes/r-eye-height2-incr": 0.3,
                "mouth/mouth-scale-vert-decr": 0.2,
                "nose/nose-scale-horiz-decr": 0.2,
                "head/head-scale-vert-decr": 0.15,
            },
            skin="young_lightskinned_male_diffuse2",
            iris="brown",
            hair=None,
            brows="eyebrow001",
            lashes="eyelashes03",
            clothes="male_casualsuit06",
            tints={
                "body": (0.95, 0.88, 0.80),
                "eyes": (0.75, 0.75, 0.75),
                "brows": (0.3, 0.3, 0.3),
                "clothes": (0.035, 0.06, 0.055),
                "teeth": (1.45, 1.33, 1.15),
                "tongue": (1.35, 1.10, 1.05),
            },
        ),
        painted_clothes=False,
        complexion=Complexion(unevenness=0.03, stubble=0.18),
        face=_pleasant(0.50, 0.25, 0.15, 0.15),
        look=_soft_studio((0.13, 0.165, 0.15), (0.42, 0.48, 0.45)),
        field_of_view_deg=18.0,
        eyes_above_centre_dm=0.33,
        combing=None,
        cut=Cut(
            count=60_000,
            sides_dm=0.09,
            top_dm=0.30,
            top_from_dm=(0.42, 0.8),
            rise=(0.18, 0.42),
            combed=(0.5, 0.2, -0.3),
            stray=0.14,
            locks=900,
            gather=0.5,
            lock_stray=0.2,
        ),
        hair_radius_dm=0.0035,
        hair_melanin=0.86,
        hair_redness=0.0,
        white_hairs=0.0,
        idle=Idle(
            frames=200,
            breaths=2,
            blinks=(11, 81, 142),
            fixations=((1, 0, 0), (32, -0.026, 0.0), (82, 0.012, 0.004), (121, 0.030, 0.002), (142, -0.006, -0.006)),
            phase=5.2,
        ),
        key_every=10,
        actions=actions(side=1),
    ),
}
