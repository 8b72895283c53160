"""Means of the weights of several audio networks that were trained on from the same start.

Place in the flow: ``audio.safetensors`` of some runs -> their mean -> ``audio_export``.

Short runs from one start stay close enough together that the mean of their weights works, and it follows people that
none of them heard better than they do (M. Wortsman et al., "Model soups", 2022).

Run as ``python -m engine.studio.audio_mean OUT.safetensors A.safetensors=0.75 B.safetensors=0.25``.

Invariant: runs from different starts are not told apart here; measure the mean before it is shipped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


def mean_of(parts: Sequence[tuple[dict[str, Tensor], float]]) -> dict[str, Tensor]:
    """The weighted mean of networks of one build.

    Args:
        parts: weights by name, and how much each network counts; any positive numbers.

    Returns:
        Weights by name; counters are those of the first.

    Raises:
        ValueError: the networks are not of one build, or their shares do not add up to more than 0.
    """
    first, total = parts[0][0], sum(share for _, share in parts)
    if total <= 0:
        raise ValueError("the shares must add up to more than 0")
    shapes = {name: value.shape for name, value in first.items()}
    if any({name: value.shape for name, value in weights.items()} != shapes for weights, _ in parts):
        raise ValueError("only networks of the same build have a mean")
    return {
        name: sum(weights[name].double() * (share / total) for weights, share in parts).to(value.dtype)  # type: ignore[union-attr]
        if value.dtype.is_floating_point
        else value
        for name, value in first.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the mean."""
    parser = argparse.ArgumentParser(description="Mean of the weights of several runs from one start.")
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="+", metavar="FILE=SHARE", help="audio.safetensors of a run, and its share")
    options = parser.parse_args(arguments)
    parts = [part.rpartition("=") for part in options.parts]
    try:
        made = mean_of([(load_file(Path(name)), float(share)) for name, _, share in parts])
    except (OSError, ValueError) as error:
        parser.error(f"no mean can be made: {error}")
    save_file(made, options.out)


if __name__ == "__main__":
    main()
