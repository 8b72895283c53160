"""The people who are shipped: identity, resting face, hair, light and framing of each portrait.

Place in the flow: ``PORTRAITS[name]`` -> ``portrait`` builds the scene, draws it and writes the avatar folder.

Invariants:
    * a portrait is plain data: with the assets it reproduces the avatar;
    * the resting face has closed lips and is part of every frame; speech is added to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.studio.identity import Identity
from engine.studio.idle_motion import Idle
from engine.studio.scene import AreaLight, Look
from engine.studio.strands import Combing
from engine.studio.targets import Macro


@dataclass(frozen=True)
class Portrait:
    """One shipped person.

    Attributes:
        title: name shown to people.
        identity: who it is; clothes get a plain fabric of the colour of their tint.
        face: the resting expression: target -> weight.
        look: light and backdrop.
        field_of_view_deg: framing.
        eyes_above_centre_dm: how far above the middle of the picture the eyes are.
        combing: single hairs over the bob, or None.
        hair_radius_dm: thickness of a single hair.
        hair_melanin: 0 white … 1 black.
        hair_redness: 0 … 1.
        idle: the idle loop.
        key_every: every how many frames the whole picture is drawn; see ``inbetween``.
    """

    title: str
    identity: Identity
    face: Mapping[str, float]
    look: Look
    field_of_view_deg: float
    eyes_above_centre_dm: float
    combing: Combing | None
    hair_radius_dm: float
    hair_melanin: float
    hair_redness: float
    idle: Idle
    key_every: int


_SOFT_STUDIO = Look(
    lights=(
        AreaLight((-6, 10.5, 9), 6, 1150, (1.0, 0.96, 0.91)),
        AreaLight((8, 6.5, 8), 8, 380, (0.92, 0.96, 1.0)),
        AreaLight((5, 11, -7), 4, 300, (1.0, 0.97, 0.95)),
        AreaLight((-5, 9, -8), 3, 230, (0.95, 0.97, 1.0)),
        # A small lamp at the camera: without it teeth and tongue drown in the shadow of the lips.
        AreaLight((0, 6.0, 12), 2, 150, (1.0, 0.98, 0.95)),
    ),
    ambient=(0.10, 0.104, 0.11),
    backdrop=((0.15, 0.17, 0.19), (0.47, 0.51, 0.54)),
    backdrop_centre=(0.0, 7.0),
)

PORTRAITS: Mapping[str, Portrait] = {
    "maya": Portrait(
        title="Maya",
        identity=Identity(
            macro=Macro(gender=0.04, ancestry=(1, 0.45, 0.15), proportions=1, weight=0.42),
            details={
                "head/head-oval": 0.5,
                "chin/chin-width-decr": 0.3,
                "mouth/mouth-scale-horiz-incr": 0.2,
                "eyebrows/eyebrows-angle-up": 0.25,
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
        face={
            "expression/units/caucasian/mouth-corner-puller": 0.50,
            "arkit/browInnerUp": 0.46,
            "arkit/browOuterUpLeft": 0.20,
            "arkit/browOuterUpRight": 0.20,
            "arkit/cheekSquintLeft": 0.22,
            "arkit/cheekSquintRight": 0.22,
        },
        look=_SOFT_STUDIO,
        field_of_view_deg=18.0,
        eyes_above_centre_dm=0.33,
        combing=Combing(count=14_000),
        hair_radius_dm=0.0028,
        hair_melanin=0.80,
        hair_redness=0.25,
        idle=Idle(
            frames=160,
            breaths=2,
            blinks=(20, 92, 140),
            fixations=((0, 0, 0), (34, 0.03, 0.006), (60, -0.012, 0), (104, -0.035, 0.004), (126, 0.008, -0.008)),
        ),
        key_every=4,
    )
}
