"""Shape targets: named sparse displacements of the base mesh, and which of them a person of given age and kind needs.

Place in the flow: target files -> ``TargetLibrary`` -> ``Human`` adds weighted targets to the base mesh.

Invariants:
    * applying targets is linear: twice the weight is twice the displacement;
    * the weights of the macro targets (age, gender, …) are products of partitions of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.studio.assets import Assets

_CACHE = "targets.npz"


@dataclass(frozen=True)
class Target:
    """A sparse displacement.

    Attributes:
        vertices: (n,) int32 indices of the vertices that move.
        offsets: (n, 3) float32 displacement at weight 1, decimetres.
    """

    vertices: np.ndarray
    offsets: np.ndarray


class TargetLibrary(Mapping[str, Target]):
    """All targets by name (names: see ``Assets.target_files``)."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = dict(targets)

    @classmethod
    def load(cls, assets: Assets) -> TargetLibrary:
        """Read every target of an assets directory; the parsed arrays are kept there in one ``.npz``."""
        cache = assets.root / _CACHE
        if cache.is_file():
            return cls(_read_cache(cache))
        targets = {name: read_target(path) for name, path in assets.target_files().items()}
        names = list(targets)
        partial = cache.with_name(f".{_CACHE}.partial.npz")
        np.savez(
            partial,
            names=np.array(names),
            counts=np.array([len(targets[name].vertices) for name in names], np.int64),
            vertices=np.concatenate([targets[name].vertices for name in names]),
            offsets=np.concatenate([targets[name].offsets for name in names]),
        )
        partial.replace(cache)
        return cls(targets)

    def __getitem__(self, name: str) -> Target:
        return self._targets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def replaced(self, changes: Mapping[str, Target]) -> TargetLibrary:
        """A library in which some targets are other ones."""
        return TargetLibrary({**self._targets, **changes})

    def add_to(self, vertices: np.ndarray, weights: Mapping[str, float]) -> None:
        """Add weighted targets to vertices in place.

        Args:
            vertices: (V, 3) float32, changed.
            weights: target name -> weight.

        Raises:
            KeyError: a name is no target.
        """
        for name, weight in weights.items():
            if weight:
                target = self._targets[name]
                vertices[target.vertices] += np.float32(weight) * target.offsets


def read_target(path: Path) -> Target:
    """Read one text file of lines ``index dx dy dz``."""
    rows = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    rows = [row for row in rows if row and not row[0].startswith("#")]
    return Target(
        np.array([int(row[0]) for row in rows], np.int32),
        np.array([[float(x) for x in row[1:4]] for row in rows], np.float32).reshape(-1, 3),
    )


def _read_cache(path: Path) -> dict[str, Target]:
    with np.load(path, allow_pickle=False) as file:
        names, vertices, offsets = file["names"], file["vertices"], file["offsets"]
        ends = np.cumsum(file["counts"])
    starts = np.concatenate([[0], ends[:-1]])
    return {
        str(name): Target(vertices[start:end], offsets[start:end])
        for name, start, end in zip(names, starts, ends, strict=True)
    }


@dataclass(frozen=True)
class Macro:
    """The broad strokes of a person.

    Attributes:
        gender: 0 female … 1 male.
        age: 0.1875 a child of 11, 0.5 is 25 years, 1 is 90 years.
        muscle: 0 … 1.
        weight: 0 … 1.
        height: 0 … 1.
        proportions: 0.5 average … 1 ideal proportions.
        ancestry: shares of the library's three head shapes (caucasian, asian, african); any positive scale.
    """

    gender: float = 0.5
    age: float = 0.5
    muscle: float = 0.5
    weight: float = 0.5
    height: float = 0.5
    proportions: float = 0.5
    ancestry: tuple[float, float, float] = (1.0, 1.0, 1.0)


def macro_weights(macro: Macro) -> dict[str, float]:
    """Target weights of the broad strokes.

    The library holds one sculpted target for every corner of the parameter space; a person is the multilinear
    interpolation between the corners.
    """
    genders = {"female": 1 - macro.gender, "male": macro.gender}
    ages = _age_shares(macro.age)
    muscles = _three("muscle", macro.muscle)
    masses = _three("weight", macro.weight)
    heights = _three("height", macro.height)
    proportions = {
        "idealproportions": max(0.0, 2 * macro.proportions - 1),
        "uncommonproportions": max(0.0, 1 - 2 * macro.proportions),
    }
    total = sum(macro.ancestry)
    ancestries = dict(zip(("caucasian", "asian", "african"), (x / total for x in macro.ancestry), strict=True))
    weights: dict[str, float] = {}
    for gender, gender_share in genders.items():
        for age, age_share in ages.items():
            person = gender_share * age_share
            for ancestry, share in ancestries.items():
                weights[f"macrodetails/{ancestry}-{gender}-{age}"] = person * share
            for muscle, muscle_share in muscles.items():
                for mass, mass_share in masses.items():
                    build, share = f"{gender}-{age}-{muscle}-{mass}", person * muscle_share * mass_share
                    weights[f"macrodetails/universal-{build}"] = share
                    for height, height_share in heights.items():
                        if height != "averageheight":
                            weights[f"macrodetails/height/{build}-{height}"] = share * height_share
                    for name, proportion_share in proportions.items():
                        weights[f"macrodetails/proportions/{build}-{name}"] = share * proportion_share
    return {name: weight for name, weight in weights.items() if weight > 1e-4}


def _three(name: str, x: float) -> dict[str, float]:
    return {f"min{name}": max(0.0, 1 - 2 * x), f"average{name}": 1 - abs(2 * x - 1), f"max{name}": max(0.0, 2 * x - 1)}


def _age_shares(age: float) -> dict[str, float]:
    if age >= 0.5:
        return {"young": 2 - 2 * age, "old": 2 * age - 1}
    # 0 is a baby, 3/16 a child of about eleven, 1/2 a young adult.
    young = max(0.0, (age - 3 / 16) * 16 / 5)
    baby = max(0.0, 1 - age * 16 / 3)
    return {"baby": baby, "child": 1 - baby - young, "young": young}
