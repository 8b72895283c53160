"""Where the studio's raw material lies on disk, and how to unpack it: meshes, shape targets and textures, all CC0.

Place in the flow: asset archives -> ``unpack`` -> an assets directory -> every other module of the studio.

Invariants:
    * nothing below the assets directory is ever written after unpacking, except the target cache (``targets.py``);
    * every path handed out exists; what is missing is named with what to do.

Origin of the material (all CC0 1.0): makehumancommunity/makehuman (base mesh, targets, rig),
makehumancommunity/extra-targets (ARKit face units, visemes) and makehumancommunity/makehuman-assets (hair, brows,
lashes, eyes, teeth, tongue, clothes, skins).
"""

from __future__ import annotations

import argparse
import tarfile
from dataclasses import dataclass
from pathlib import Path

from engine.errors import NotFound

ARCHIVES = {
    "base-and-targets.tar.xz": "human",
    "faceunits-visemes.tar.xz": "faceunits",
    "meshes.tar.xz": "meshes",
    "textures.tar": "textures",
}
"""Archive name -> folder of the assets directory it is unpacked into."""


@dataclass(frozen=True)
class Assets:
    """An unpacked assets directory.

    Attributes:
        root: the directory that holds ``human``, ``faceunits``, ``meshes`` and ``textures``.
    """

    root: Path

    @classmethod
    def open(cls, root: str | Path) -> Assets:
        """Open an assets directory.

        Raises:
            NotFound: one of the four folders is missing.
        """
        path = Path(root)
        for folder in ARCHIVES.values():
            if not (path / folder).is_dir():
                raise NotFound(
                    "assets_missing",
                    f"{path} has no folder '{folder}'. Unpack the asset archives with "
                    f"`python -m engine.studio.assets unpack ARCHIVES_DIR {path}`.",
                )
        return cls(path)

    def _existing(self, *parts: str) -> Path:
        path = self.root.joinpath(*parts)
        if not path.is_file():
            raise NotFound("asset_missing", f"The assets directory has no {path.relative_to(self.root)}.")
        return path

    def base_mesh(self) -> Path:
        """The human base mesh (hm08 topology)."""
        return self._existing("human", "3dobjs", "base.obj")

    def rig_file(self, name: str) -> Path:
        """A file of the rig: the skeleton or its weights."""
        return self._existing("human", "rigs", name)

    def target_files(self) -> dict[str, Path]:
        """Every shape target by name.

        Sculpted targets are named by their path (``mouth/mouth-scale-horiz-incr``), the 52 ARKit face units
        ``arkit/<unit>``, visemes ``vis/<viseme>``.
        """
        sculpted = self.root / "human" / "targets"
        paths = sculpted.rglob("*.target")
        files = {path.relative_to(sculpted).with_suffix("").as_posix(): path for path in paths}
        extra = self.root / "faceunits" / "assets"
        for folder, prefix in (
            ("faceunits01/targets/faceunits", "arkit"),
            ("visemes01/targets/visemes", "vis"),
            ("visemes02/targets/visemes", "vis"),
        ):
            files.update({f"{prefix}/{path.stem}": path for path in (extra / folder).glob("*.target")})
        return dict(sorted(files.items()))

    def proxy(self, kind: str, name: str) -> Path:
        """The ``.mhclo`` file of a part that is fitted to the body.

        Args:
            kind: ``hair``, ``eyebrows``, ``eyelashes``, ``eyes``, ``teeth``, ``tongue`` or ``clothes``.
            name: folder name, e.g. ``short02``.
        """
        folder = ("human",) if kind == "eyes" else ("meshes",)
        return self._existing(*folder, kind, name, f"{name}.mhclo")

    def skin(self, name: str) -> Path:
        """A skin texture, e.g. ``young_lightskinned_female_diffuse3``."""
        return self._existing("textures", "skins", "textures", f"{name}.png")

    def iris(self, colour: str) -> Path:
        """An eye texture, e.g. ``brownlight``."""
        if colour == "brown":
            return self._existing("human", "eyes", "materials", "brown_eye.png")
        return self._existing("textures", "eyes", "materials", f"{colour}_eye.png")

    def texture(self, kind: str, name: str) -> Path:
        """The texture of a fitted part (see ``proxy``)."""
        if kind == "teeth":
            return self._existing("textures", "teeth", "materials", "teeth.png")
        suffix = "" if kind in ("eyebrows", "eyelashes") else "_diffuse"
        return self._existing("textures", kind, name, f"{name}{suffix}.png")

    def names(self, kind: str) -> list[str]:
        """Names of a kind for which mesh and texture are both there, sorted.

        Args:
            kind: ``hair``, ``eyebrows``, ``eyelashes``, ``clothes``, ``skins`` or ``eyes`` (irises).
        """
        if kind == "skins":
            return sorted(path.stem for path in (self.root / "textures" / "skins" / "textures").glob("*.png"))
        if kind == "eyes":
            painted = (self.root / "textures" / "eyes" / "materials").glob("*_eye.png")
            return sorted({"brown", *(path.stem.removesuffix("_eye") for path in painted)})
        suffix = "" if kind in ("eyebrows", "eyelashes") else "_diffuse"
        return sorted(
            path.name
            for path in (self.root / "textures" / kind).iterdir()
            if (path / f"{path.name}{suffix}.png").is_file()
            and (self.root / "meshes" / kind / path.name / f"{path.name}.mhclo").is_file()
        )


def unpack(archives: Path, destination: Path) -> Assets:
    """Unpack the four asset archives.

    Args:
        archives: directory with the files named in ``ARCHIVES``.
        destination: assets directory to fill; made when absent.

    Raises:
        NotFound: an archive is missing.
    """
    for archive, folder in ARCHIVES.items():
        source = archives / archive
        if not source.is_file():
            raise NotFound("assets_missing", f"{archives} has no {archive}.")
        target = destination / folder
        target.mkdir(parents=True, exist_ok=True)
        with tarfile.open(source) as tar:
            # The "data" filter refuses absolute paths, links that leave the folder and device files.
            tar.extractall(target, filter="data")
    return Assets.open(destination)


def main(argv: list[str] | None = None) -> int:
    """Command line: ``python -m engine.studio.assets unpack ARCHIVES_DIR DIR``."""
    parser = argparse.ArgumentParser(prog="python -m engine.studio.assets", description="Unpack the asset archives.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("unpack", help="unpack the asset archives into an assets directory")
    command.add_argument("archives", type=Path, help="directory with the four archives")
    command.add_argument("destination", type=Path, help="assets directory to fill")
    arguments = parser.parse_args(argv)
    assets = unpack(arguments.archives, arguments.destination)
    print(f"{assets.root}: {len(assets.target_files())} targets, {len(assets.names('skins'))} skins")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
