"""A media worker: sessions with all they need, in a process of their own, behind a gateway."""
