"""Draws the pictures of all sessions: the mouth onto the body, and what the restorer makes of it.

Place in the flow: producer -> PictureJob -> Renderer -> Rendered. ``draw`` makes one picture on the calling thread,
``restoring`` improves it as far as the governor allows, ``session_quality`` is a session's part of that, ``pool`` owns
the threads.
"""

from __future__ import annotations

from engine.renderer.draw import PictureJob, Rendered, render_now
from engine.renderer.pool import Renderer
from engine.renderer.rendering import Rendering
from engine.renderer.session_quality import SessionQuality

__all__ = ["PictureJob", "Rendered", "Renderer", "Rendering", "SessionQuality", "render_now"]
