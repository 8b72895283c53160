"""The subcommands of ``python -m engine``, one module each, with ``add_arguments(parser)`` and ``run(args)``."""
