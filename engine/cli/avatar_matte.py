"""``python -m engine avatar matte``: cuts the person out of an avatar's pictures, ready for other backgrounds.

Place in the flow: folder of an avatar -> ``engine.avatar.matte`` -> a file; a server that misses one runs this too.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tqdm import tqdm

from engine.avatar.bundle import avatar_folder, load_avatar
from engine.avatar.matte import mattes
from engine.avatar.matte_file import footage_digest, write_matte
from engine.avatar.matte_network import PersonNetwork
from engine.config_load import load_config
from engine.option_docs import add_arguments as add_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``avatar matte``."""
    parser.epilog = "A server does this by itself when somebody first asks for another background, at low priority."
    parser.add_argument("name", metavar="NAME", help="avatar")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE",
                        help="mp4 to write (default: mattes/NAME.mp4 in the data folder)")  # fmt: skip
    parser.add_argument("--nice", type=int, choices=range(20), default=0, metavar="0-19",
                        help="how far everything else on this machine goes first (default: 0)")  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    add_options(parser, ["avatars_dir", "data_dir"])


def run(args: argparse.Namespace) -> int:
    """Makes the matte.

    Raises:
        NotFound: ``avatar_not_found``.
        AvatarInvalid: the avatar cannot be used.
        BackendFailed: the network is missing.
        DiskFull: the file cannot be written.
        ConfigInvalid: an option is wrong.
    """
    if args.nice:
        os.nice(args.nice)
    config = load_config(vars(args))
    folder = avatar_folder(config.avatars_dir, args.name)
    digest = footage_digest(folder)
    avatar, network = load_avatar(folder), PersonNetwork()
    output = args.output or config.data_dir / "mattes" / f"{args.name}.mp4"
    pictures = tqdm(mattes(avatar, network), total=avatar.picture_count, unit=" pictures", disable=args.quiet or None)
    write_matte(output, pictures, avatar.size, digest)
    if not args.quiet:
        print(f"{output}: {output.stat().st_size / 1000:.0f} kB")
    return 0
