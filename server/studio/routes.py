"""The studio over HTTP: making, watching, previewing and deleting avatars.

Place in the flow: middleware -> handler -> ``Intake``, ``Jobs``, ``Stage``. openapi.json describes the same routes.

Invariants: an avatar that came with the server is never deleted, and none that a session shows; where the studio is
off, nothing can be changed, and the page says why.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from engine.avatar.face_models import model_file
from engine.errors import BackendFailed, Busy, Closed, InvalidInput, NotFound
from server.stage import Stage
from server.studio.intake import Intake
from server.studio.jobs import Jobs
from server.studio.process import WorkerProcess
from server.studio.worker import PREVIEW_FILE
from server.studio.workplace import Workplace

MAX_WATCHERS = 64
HEARTBEAT_S = 15.0
"""A comment this often tells proxies, and us, whether somebody still listens."""

studio_routes = web.RouteTableDef()


class Studio:
    """What the handlers work with.

    Attributes:
        enabled: whether avatars can be made and deleted.
        jobs: avatars in the making.
        intake: takes in uploads.
        stage: all avatars.
    """

    def __init__(self, stage: Stage, worker: WorkerProcess, shows: Callable[[str], bool], *, enabled: bool) -> None:
        """
        Args:
            stage: open; its threads read and write files, its configuration has the limits.
            worker: makes avatars.
            shows: whether a session shows an avatar.
            enabled: whether anything may be changed.
        """
        config = stage.config
        self.config = config
        self.enabled = enabled
        self.stage = stage
        self._shows = shows
        self.workplace = Workplace(config.data_dir)
        self.jobs = Jobs(stage.library, self.workplace, worker.make, stage.on_file_thread, config.studio_max_avatars)
        self.intake = Intake(config, self.jobs, self.workplace, stage.on_file_thread)
        self.watchers = 0

    async def open(self) -> None:
        """Sweeps away what an earlier server left behind."""
        if self.enabled:
            await self.stage.on_file_thread(self.workplace.sweep)

    async def aclose(self) -> None:
        """Cancels all jobs and removes what they had; idempotent."""
        await self.jobs.aclose()
        await self.stage.on_file_thread(self.workplace.close)

    async def delete(self, name: str) -> None:
        """Deletes an avatar that was made here.

        Raises:
            NotFound: ``avatar_unknown``.
            InvalidInput: ``avatar_shipped``.
            Closed: ``avatar_in_use``.
            BackendFailed: ``data_dir_unwritable``; the avatar is still there then.
        """
        stage = self.stage
        stage.library.folder(name)
        if not stage.library.is_made(name):
            raise InvalidInput("avatar_shipped", "This avatar comes with the server and cannot be deleted here.")
        if name == stage.default:
            raise Closed("avatar_in_use", "This avatar is the one that visitors see first; the option avatar says so.")
        if self._shows(name):
            raise Closed("avatar_in_use", "Somebody is talking with this avatar right now; delete it later.")
        # Off the list first, so that no new session begins with it.
        stage.forget(name)
        try:
            await stage.on_file_thread(lambda: self.workplace.remove(name))
        except BackendFailed:
            stage.library.add(name)
            raise


STUDIO: web.AppKey[Studio] = web.AppKey("studio", Studio)


def _studio(request: web.Request) -> Studio:
    """The studio, where it may be used."""
    studio = request.app[STUDIO]
    if not studio.enabled:
        raise InvalidInput("studio_off", "The avatar studio is switched off here; the option studio switches it on.")
    return studio


@studio_routes.get("/studio.json")
async def studio_state(request: web.Request) -> web.Response:
    """Whether avatars can be made here, and what the limits are."""
    studio = request.app[STUDIO]
    config = studio.config
    note = "" if studio.enabled else "The studio is switched off on this server. Start it with --studio on."
    if studio.enabled:
        try:
            await studio.stage.on_file_thread(lambda: model_file("face_landmark/face_landmark"))
        except BackendFailed as error:
            note = error.message
    return web.json_response(
        {
            "enabled": studio.enabled,
            "note": note,
            "made": studio.stage.library.made_count,
            "max_avatars": config.studio_max_avatars,
            "waiting": len(studio.jobs.pending),
            "max_bytes": config.studio_max_mb * 1_000_000,
            "max_clip_s": config.studio_max_clip_s,
            "max_megapixels": config.studio_max_megapixels,
        },
        headers={"Cache-Control": "no-store"},
    )


@studio_routes.post("/avatars")
async def make_avatar(request: web.Request) -> web.Response:
    """Takes in a photo or clip and begins to make an avatar of it."""
    studio = _studio(request)
    folder, order, upload = await studio.intake.take(request)
    try:
        job = studio.jobs.submit(folder, order, upload)
    except BaseException:
        await studio.stage.on_file_thread(lambda: studio.workplace.close_job(folder))
        raise
    return web.json_response(job.to_dict(), status=202, headers={"Location": f"/avatars/{job.id}/job"})


@studio_routes.get("/avatars/{job_id}/job")
async def job_state(request: web.Request) -> web.Response:
    """Where a job stands."""
    job = _studio(request).jobs.get(request.match_info["job_id"])
    return web.json_response(job.to_dict(), headers={"Cache-Control": "no-store"})


@studio_routes.delete("/avatars/{job_id}/job")
async def cancel_job(request: web.Request) -> web.Response:
    """Ends a job; answers when nothing of it is left."""
    await _studio(request).jobs.cancel(request.match_info["job_id"])
    return web.Response(status=204)


@studio_routes.get("/avatars/{job_id}/job/events")
async def job_events(request: web.Request) -> web.StreamResponse:
    """A job as it goes on, as server-sent events; the stream ends with it."""
    studio = _studio(request)
    job = studio.jobs.get(request.match_info["job_id"])
    if studio.watchers >= MAX_WATCHERS:
        raise Busy("too_many_watchers", "Too many people are watching; ask for the state of the job now and then.")
    studio.watchers += 1
    try:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        async for shown in job.changes(HEARTBEAT_S):
            event = ":\n\n" if shown is None else f"event: job\ndata: {json.dumps(shown)}\n\n"
            async with asyncio.timeout(HEARTBEAT_S):
                await response.write(event.encode())
        await response.write_eof()
    except (ConnectionError, TimeoutError):
        # Whoever watched has gone, or does not read.
        if request.transport is not None:
            request.transport.abort()
    finally:
        studio.watchers -= 1
    return response


@studio_routes.get("/avatars/{name}/preview.mp4")
async def preview(request: web.Request) -> web.StreamResponse:
    """The avatar saying a sentence."""
    stage = request.app[STUDIO].stage
    path = stage.library.folder(request.match_info["name"]) / PREVIEW_FILE
    if not await stage.on_file_thread(path.is_file):
        raise NotFound("preview_missing", "This avatar has no preview.")
    headers: dict[str, Any] = {"Content-Type": "video/mp4", "Cache-Control": "no-cache"}
    return web.FileResponse(path, headers=headers)


@studio_routes.delete("/avatars/{name}")
async def delete_avatar(request: web.Request) -> web.Response:
    """Deletes an avatar that was made here."""
    await _studio(request).delete(request.match_info["name"])
    return web.Response(status=204)
