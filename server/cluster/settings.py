"""What all workers of a cluster run with: the options that somebody set, and the share of a machine that each gets.

Place in the flow: gateway or ``rollout`` -> directory -> every actor, which completes the options on its own machine.

Invariants:
    * only options that were set travel; what is automatic is found out where the worker runs;
    * of two settings the one with the higher generation counts.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import Any

from engine.config import Config
from engine.option_words import env_of
from server.cluster.size import Size

_OF_GATEWAYS = {"port", "cluster", "workers", "node_address"}
"""Options that say something about one process, or one machine, only."""
OF_MACHINES = ("node_address", "cache_dir")
"""Options that each machine may say for itself, in the environment that Ray was started with."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One edition of them.

    Attributes:
        options: JSON of the options that were set.
        generation: when it was made, Unix time in milliseconds.
        cpus, gpus: what a worker takes of its machine, as Ray counts it.
        size: how many workers.
    """

    options: str = field(repr=False)
    generation: int
    cpus: float
    gpus: float
    size: Size

    @classmethod
    def of(cls, config: Config) -> Settings:
        """The settings of whoever starts with these options, made now.

        Raises:
            ConfigInvalid: ``option_invalid``.
        """
        said = config.model_dump(mode="json", exclude_unset=True, exclude=_OF_GATEWAYS)
        return cls(
            options=json.dumps(said, sort_keys=True),
            generation=int(time.time() * 1000),
            cpus=config.worker_cpus,
            gpus=config.worker_gpus,
            size=Size.parse(config.cluster_workers),
        )

    def config(self, **more: Any) -> Config:
        """The options on this machine.

        Args:
            more: what is automatic for one worker; an option that was set counts more.
        """
        here = {name: os.environ[env_of(name)] for name in OF_MACHINES if os.environ.get(env_of(name))}
        return Config(**{**more, **json.loads(self.options), **here})

    def differs_from(self, other: Settings) -> bool:
        """Whether workers that run with these would run otherwise with the others."""
        return (self.options, self.cpus, self.gpus) != (other.options, other.cpus, other.gpus)
