"""``python -m engine``: what the engine does without a server.

Place in the flow: command line -> one module of ``engine.cli`` (or ``engine.evaluate.cli``).

Invariants:
    * only the chosen subcommand is imported, so a short command starts fast;
    * whatever is wrong with the input, and a part that is not installed, is one line on standard error and exit
      code 2, a failure of the engine is exit code 1, Ctrl-C is 130; a traceback is always a bug.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from engine.errors import BackendFailed, VisavisError

_COMMANDS = {
    "render": ("engine.cli.render", "turn a sound file or a text into a video of a talking avatar"),
    "avatar": ("engine.cli.avatar", "list and check avatars, make one of a photo or a video"),
    "weights": ("engine.cli.weights", "recognise, fetch and export checkpoints of Wav2Lip and GFPGAN"),
    "evaluate": ("engine.evaluate.cli", "measure how well lips follow speech"),
    "studio": ("engine.cli.studio", "make avatars, training data and networks"),
    "bench": ("engine.cli.bench", "measure how fast lip-sync models are on this machine"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except ModuleNotFoundError as error:
        # Parts are optional: a small installation leaves out the tools that train and measure, or torch.
        missing = error.name or str(error)
        own = missing.partition(".")[0] in ("engine", "server")
        remedy = "run it from a complete copy of Visavis" if own else "install it with pip"
        command = f"python -m engine {words[0]}" if words else "python -m engine"
        print(f"visavis: {command} needs {missing}, which is not installed here; {remedy}.", file=sys.stderr)
        return 2
    except VisavisError as error:
        print(f"visavis: {error.message}", file=sys.stderr)
        return 1 if isinstance(error, BackendFailed) else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough; the interpreter would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m engine", description="Visavis without a server.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (module_name, help_text) in _COMMANDS.items():
        command = commands.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        if words[:1] == [name]:
            module = importlib.import_module(module_name)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    args = parser.parse_args(words)
    return args.run(args) or 0


if __name__ == "__main__":
    sys.exit(main())
