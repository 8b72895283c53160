"""Draws the frames of a scene file with Cycles; runs in the interpreter that has ``bpy``.

Place in the flow: scene file (``scene``) -> this script, started by ``portrait`` as a process of its own -> PNG files.

Invariants:
    * a frame whose PNG exists is not drawn again, and a PNG appears only when it is complete, so a run can be resumed;
    * the sampling pattern is the same in every frame, so what does not move does not flicker.

Run: ``BPY_PYTHON -m engine.studio.path_tracer SCENE.npz OUT_DIR --size 512 --samples 12`` from the repository root.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix, Vector

from engine.studio import shaders
from engine.studio.scene import Look, Scene, ScenePart, Strands, chosen_frames, load_scene

_SMOOTHED = {"body": 2, "clothes": 2, "eyes": 1, "teeth": 1, "tongue": 1, "hair": 1}
_CLOTH_THICKNESS_DM = 0.05
_BACKDROP_DM = 16.0


def to_blender(points: np.ndarray) -> np.ndarray:
    """(…, 3) points from y up to Blender's z up."""
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], axis=-1).astype(np.float32)


def _link(name: str, data: Any) -> Any:
    thing = bpy.data.objects.new(name, data)
    bpy.context.scene.collection.objects.link(thing)
    return thing


def add_part(part: ScenePart) -> Any:
    """Put a mesh into the scene at its first frame."""
    mesh = bpy.data.meshes.new(part.name)
    quads = part.polygons[:, 3] >= 0
    faces = [
        row.tolist() if quad else row[:3].tolist() for row, quad in zip(part.polygons, quads, strict=True)
    ]
    mesh.from_pydata(to_blender(part.frames[0]).tolist(), [], faces)
    corners = np.ones(part.polygons.shape, bool)
    corners[:, 3] = quads
    mesh.uv_layers.new(name="UVMap").data.foreach_set("uv", part.uv[corners].astype(np.float32).ravel())
    mesh.polygons.foreach_set("use_smooth", [True] * len(mesh.polygons))
    mesh.materials.append(shaders.surface(part.name, part.texture, part.tint))
    thing = _link(part.name, mesh)
    if part.name in _SMOOTHED:
        smooth = thing.modifiers.new("smooth", "SUBSURF")
        smooth.levels = smooth.render_levels = _SMOOTHED[part.name]
    if part.name == "clothes":
        cloth = thing.modifiers.new("thickness", "SOLIDIFY")
        cloth.thickness, cloth.offset = _CLOTH_THICKNESS_DM, 0.4
    return thing


def move_part(thing: Any, part: ScenePart, frame: int) -> None:
    """Move a mesh to its positions in a frame."""
    thing.data.vertices.foreach_set("co", to_blender(part.frames[frame]).ravel())
    thing.data.update()


def add_strands(strands: Strands) -> Any:
    """Put hair curves into the scene."""
    count, points, _ = strands.points.shape
    curves = bpy.data.hair_curves.new(strands.name)
    curves.add_curves([points] * count)
    curves.position_data.foreach_set("vector", to_blender(strands.points).ravel())
    taper = np.linspace(1.0, 0.15, points, dtype=np.float32) * strands.root_radius_dm
    radius = curves.attributes.get("radius") or curves.attributes.new("radius", "FLOAT", "POINT")
    radius.data.foreach_set("value", np.tile(taper, count))
    curves.materials.append(shaders.strand(strands.name, strands.melanin, strands.redness))
    return _link(strands.name, curves)


def move_strands(thing: Any, strands: Strands, frame: int) -> None:
    """Move hair curves with the bone they grow on."""
    swap = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], np.float64)
    thing.matrix_world = Matrix((swap @ strands.frames[frame] @ swap.T).tolist())


def add_camera(scene: Scene) -> None:
    """Place the camera."""
    data = bpy.data.cameras.new("camera")
    thing = _link("camera", data)
    place = Vector(to_blender(np.array(scene.camera.position)))
    target = Vector(to_blender(np.array(scene.camera.target)))
    thing.location = place
    thing.rotation_euler = (target - place).to_track_quat("-Z", "Y").to_euler()
    data.lens_unit, data.angle = "FOV", math.radians(scene.camera.field_of_view_deg)
    data.dof.use_dof = True
    data.dof.focus_distance, data.dof.aperture_fstop = scene.camera.focus_distance_dm, scene.camera.aperture
    data.clip_end = 200
    bpy.context.scene.camera = thing


def add_light(look: Look, target: tuple[float, float, float]) -> None:
    """Place lights, ambient light and backdrop."""
    aim = Vector(to_blender(np.array(target)))
    for number, light in enumerate(look.lights):
        data = bpy.data.lights.new(f"light{number}", "AREA")
        data.shape, data.size, data.energy, data.color = "DISK", light.diameter_dm, light.power, light.colour
        thing = _link(f"light{number}", data)
        thing.location = Vector(to_blender(np.array(light.position)))
        thing.rotation_euler = (aim - thing.location).to_track_quat("-Z", "Y").to_euler()
    world = bpy.data.worlds.new("world")
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs[0].default_value = (*look.ambient, 1)
    bpy.context.scene.world = world
    mesh = bpy.data.meshes.new("backdrop")
    corners = [(-40, _BACKDROP_DM, -25), (40, _BACKDROP_DM, -25), (40, _BACKDROP_DM, 35), (-40, _BACKDROP_DM, 35)]
    mesh.from_pydata(corners, [], [(0, 1, 2, 3)])
    mesh.materials.append(shaders.backdrop(*look.backdrop, look.backdrop_centre))
    wall = _link("backdrop", mesh)
    # The wall is a picture, not a lamp: it must not light hair and skin from behind.
    wall.visible_diffuse = wall.visible_glossy = False


def set_up_renderer(look: Look, size: int, samples: int, threads: int) -> None:
    """Choose Cycles, the denoiser and the picture format."""
    scene = bpy.context.scene
    render = scene.render
    render.engine = "CYCLES"
    render.resolution_x = render.resolution_y = size
    render.resolution_percentage = 100
    render.image_settings.file_format = "PNG"
    render.threads_mode, render.threads = "FIXED", threads
    render.use_persistent_data = True
    cycles = scene.cycles
    cycles.device, cycles.samples, cycles.seed, cycles.use_animated_seed = "CPU", samples, 7, False
    cycles.use_adaptive_sampling = False
    cycles.max_bounces, cycles.transparent_max_bounces = 6, 16
    cycles.diffuse_bounces, cycles.glossy_bounces, cycles.transmission_bounces = 3, 3, 4
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.sample_clamp_indirect = 4.0
    cycles.use_denoising, cycles.denoiser, cycles.denoising_prefilter = True, "OPENIMAGEDENOISE", "FAST"
    scene.cycles_curves.shape = "RIBBONS"
    scene.view_settings.view_transform, scene.view_settings.look = "AgX", look.contrast
    scene.view_settings.exposure = look.exposure


def draw(scene: Scene, out: Path, size: int, samples: int, threads: int, frames: Sequence[int]) -> None:
    """Draw frames to ``out/<frame>.png``.

    Args:
        scene: what to draw.
        out: directory, made when absent.
        size: side of the whole picture, pixels; with borders only a part of it is drawn and kept.
        samples: light paths per pixel.
        threads: processor threads.
        frames: frame numbers.
    """
    out.mkdir(parents=True, exist_ok=True)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    parts = [(add_part(part), part) for part in scene.parts]
    hairs = [(add_strands(strands), strands) for strands in scene.strands]
    add_camera(scene)
    add_light(scene.look, scene.camera.target)
    set_up_renderer(scene.look, size, samples, threads)
    render = bpy.context.scene.render
    for frame in frames:
        path = out / f"{frame:04d}.png"
        if path.exists():
            continue
        started_s = time.monotonic()
        for thing, part in parts:
            move_part(thing, part, frame)
        for thing, strands in hairs:
            move_strands(thing, strands, frame)
        if scene.borders is not None:
            left, top, right, bottom = (round(float(share) * size) for share in scene.borders[frame])
            render.use_border = render.use_crop_to_border = True
            # Edges are cut down to whole pixels: a little more than the pixel keeps its neighbour out.
            render.border_min_x, render.border_max_x = (left + 0.05) / size, (right + 0.05) / size
            render.border_min_y, render.border_max_y = (size - bottom + 0.05) / size, (size - top + 0.05) / size
        unfinished = out / f".{frame:04d}.png"
        render.filepath = str(unfinished)
        bpy.ops.render.render(write_still=True)
        unfinished.replace(path)
        print(f"frame {frame} {time.monotonic() - started_s:.2f} s", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module docstring."""
    parser = argparse.ArgumentParser(prog="python -m engine.studio.path_tracer", description="Draw a scene file.")
    parser.add_argument("scene", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=512, help="side of the picture, pixels")
    parser.add_argument("--samples", type=int, default=12, help="light paths per pixel")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", default="", help="numbers with commas or start:stop:step, all when absent")
    arguments = parser.parse_args(argv)
    scene = load_scene(arguments.scene)
    frames = chosen_frames(arguments.frames or ":", scene.frame_count)
    draw(scene, arguments.out, arguments.size, arguments.samples, arguments.threads, frames)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
