"""Who a synthetic person is: shape, skin, eyes, hair and clothes by name, fixed or drawn at random.

Place in the flow: ``Identity`` -> ``Figure``; training draws thousands, a shipped avatar has one.

Invariants:
    * an identity is plain data: the same identity and assets give the same figure;
    * opposite left and right details are drawn together, so faces are only slightly asymmetric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from engine.studio.human import Human
from engine.studio.targets import Macro

Colour = tuple[float, float, float]

_DETAIL_FOLDERS = (
    "head/", "forehead/", "eyebrows/", "eyes/", "nose/", "mouth/", "ears/", "chin/", "cheek/", "neck/",
)  # fmt: skip
_RANDOM_DETAILS = 26
_HAIR_OF_TRAINING = ("short01", "short02", "short03", "short04", "bob02", "braid01", "long01", "ponytail01", None)
_TEETH = ("teeth_base", "teeth_shape01", "teeth_shape02", "teeth_shape03")


@dataclass(frozen=True)
class Identity:
    """One synthetic person.

    Attributes:
        macro: broad strokes of the shape.
        details: further shape targets by weight.
        skin: name of a skin texture.
        iris: eye colour.
        hair: name of a hair part, or None for a bald head.
        brows: name of a brow part, or None.
        lashes: name of a lash part, or None.
        teeth: name of a teeth part.
        clothes: name of a clothes part, or None for bare shoulders.
        tints: part name -> linear RGB factors on its texture.
    """

    macro: Macro = field(default_factory=Macro)
    details: Mapping[str, float] = field(default_factory=dict)
    skin: str = "young_lightskinned_female_diffuse2"
    iris: str = "brown"
    hair: str | None = "short01"
    brows: str | None = "eyebrow001"
    lashes: str | None = "eyelashes02"
    teeth: str = "teeth_base"
    clothes: str | None = None
    tints: Mapping[str, Colour] = field(default_factory=dict)


def random_identity(human: Human, rng: np.random.Generator, strength: float = 0.28) -> Identity:
    """Draw a person: any age from young adult on, gender, ancestry, about 26 face details, skin, eyes, hair.

    Args:
        human: the base human; its assets say what there is to choose from.
        rng: source of chance.
        strength: standard deviation of the face details.
    """
    gender = float(np.clip(rng.beta(0.35, 0.35), 0, 1))
    ancestry = rng.dirichlet([0.5, 0.5, 0.5])
    age = float(rng.uniform(0.42, 0.6) if rng.random() < 0.75 else rng.uniform(0.6, 0.85))
    macro = Macro(
        gender=gender,
        age=age,
        muscle=float(rng.uniform(0.3, 0.7)),
        weight=float(np.clip(rng.normal(0.5, 0.15), 0.2, 0.9)),
        proportions=float(rng.uniform(0.5, 1)),
        ancestry=(float(ancestry[0]), float(ancestry[1]), float(ancestry[2])),
    )
    skin, tint = _random_skin(human, rng, gender, age, dark=ancestry[2] > 0.5)
    eyes = human.assets.names("eyes")
    return Identity(
        macro=macro,
        details=_random_details(human, rng, strength),
        skin=skin,
        iris="brown" if ancestry[0] < 0.4 else str(rng.choice(eyes)),
        hair=_HAIR_OF_TRAINING[int(rng.integers(len(_HAIR_OF_TRAINING)))],
        brows=str(rng.choice(human.assets.names("eyebrows"))),
        lashes=str(rng.choice(human.assets.names("eyelashes"))),
        teeth=str(rng.choice(_TEETH)),
        tints={"body": tint},
    )


def _random_skin(
    human: Human, rng: np.random.Generator, gender: float, age: float, *, dark: bool
) -> tuple[str, Colour]:
    skins = human.assets.names("skins")
    sex = "_female_" if gender < 0.5 else "_male_"
    years = "young" if age < 0.6 else "middleage"
    tone = "_darkskinned" if dark else "_lightskinned"
    fitting = [name for name in skins if sex in name and tone in name and name.startswith(years)]
    painted = fitting or [name for name in skins if sex in name and name.startswith(years)]
    shade = rng.uniform(0.75, 1.1)
    tint = shade * np.array([1.0, rng.uniform(0.9, 1.05), rng.uniform(0.82, 1.08)])
    if dark and not fitting:
        # The library has no dark skin of this sex and age, so a light one is darkened towards brown.
        tint *= 1 - rng.uniform(0.35, 0.8) * np.array([0.55, 0.72, 0.80])
    return str(rng.choice(painted)), (float(tint[0]), float(tint[1]), float(tint[2]))


def _random_details(human: Human, rng: np.random.Generator, strength: float) -> dict[str, float]:
    names = sorted(name for name in human.targets if name.startswith(_DETAIL_FOLDERS) and "measure" not in name)
    details: dict[str, float] = {}
    for name in rng.choice(names, _RANDOM_DETAILS, replace=False):
        weight = float(min(abs(rng.normal(0, strength)), 0.8))
        details[str(name)] = weight
        twin = str(name).replace("/l-", "/r-") if "/l-" in name else str(name).replace("/r-", "/l-")
        if twin != name and twin in human.targets:
            details[twin] = weight * float(rng.uniform(0.85, 1.15))
    return details
