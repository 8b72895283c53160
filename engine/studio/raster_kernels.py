"""The compiled inner loops of the rasteriser: nearest surface, shading, transparency, dense motion.

Place in the flow: called by ``engine.studio.raster`` only, which documents every array.

Invariants:
    * single-threaded and without allocation inside the loops, so that one process per core scales;
    * part ids are the order of ``raster.PARTS``; brows, lashes, hair and eyes may be transparent;
    * ``hit`` is a triangle, -1 for the background, or -2 - triangle for the inside of the body: the base mesh is open
      behind the tongue, and what one sees there is the dark inside of head and neck.
"""

from __future__ import annotations

import numba as nb
import numpy as np

_jit = nb.njit(fastmath=True, cache=True)

BODY, EYES, TEETH, TONGUE, BROWS, LASHES, HAIR, CLOTHES = range(8)

_SOLID_ALPHA = 0.5
_DEPTH_SLACK = 0.012
"""Head units (1.2 mm): a reference surface this much in front does not hide a point."""
_INSIDE_BGR = (0.006, 0.008, 0.030)
"""Linear colour of the inside of the body."""
_TONE = 0.18
"""Highlight roll-off: display = x / (1 + _TONE x)."""


@_jit
def vertex_normals(position, welded, triangles):
    """(V, 3) unit normals; vertices with the same ``welded`` number share one."""
    total = np.zeros((welded.max() + 1, 3), np.float32)
    for i in range(triangles.shape[0]):
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        ux, uy, uz = position[b, 0] - position[a, 0], position[b, 1] - position[a, 1], position[a, 2] - position[b, 2]
        wx, wy, wz = position[c, 0] - position[a, 0], position[c, 1] - position[a, 1], position[a, 2] - position[c, 2]
        x, y, z = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for k in (a, b, c):
            total[welded[k], 0] += x
            total[welded[k], 1] += y
            total[welded[k], 2] += z
    normals = np.empty((position.shape[0], 3), np.float32)
    for i in range(position.shape[0]):
        k = welded[i]
        length = (total[k, 0] ** 2 + total[k, 1] ** 2 + total[k, 2] ** 2) ** 0.5 + 1e-9
        for axis in range(3):
            normals[i, axis] = total[k, axis] / length
    return normals


@_jit
def _texel(texels, offset, size, u, v, out):
    """Bilinear texture value, display BGRA in [0, 1]."""
    x = (u - np.floor(u)) * size - 0.5
    y = (1 - (v - np.floor(v))) * size - 0.5
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    fx, fy = x - x0, y - y0
    x0, y0 = min(max(x0, 0), size - 1), min(max(y0, 0), size - 1)
    x1, y1 = min(x0 + 1, size - 1), min(y0 + 1, size - 1)
    a, b = offset + (y0 * size + x0) * 4, offset + (y0 * size + x1) * 4
    c, d = offset + (y1 * size + x0) * 4, offset + (y1 * size + x1) * 4
    for k in range(4):
        top = texels[a + k] * (1 - fx) + texels[b + k] * fx
        low = texels[c + k] * (1 - fx) + texels[d + k] * fx
        out[k] = (top * (1 - fy) + low * fy) * (1 / 255.0)


@_jit
def _shade(part, texel, nx, ny, nz, occlusion, direction, colour, ambient, tint, gloss, out):
    """Linear BGR of a surface point: wrapped diffuse (softer in red on skin, like light inside it) and highlights."""
    if nz < 0 and part != BODY:
        nx, ny, nz = -nx, -ny, -nz
    for c in range(3):
        albedo = texel[c] * texel[c] * tint[part, c]
        light = ambient[c] * (0.75 + 0.25 * ny)
        wrap = 0.15
        if part == BODY:
            wrap = 0.15 + 0.12 * c + 0.03 * c * c
        elif part == TEETH or part == TONGUE:
            wrap = 0.5
        for i in range(3):
            lit = (nx * direction[i, 0] + ny * direction[i, 1] + nz * direction[i, 2] + wrap) / (1 + wrap)
            if lit > 0:
                light += colour[i, c] * lit * lit
        # Light that finds its way into the mouth is reddened by its walls.
        out[c] = albedo * light * occlusion ** (1.5 - 0.25 * c)
    for i in range(2):
        hx, hy, hz = direction[i, 0], direction[i, 1], direction[i, 2] + 1
        half = (nx * hx + ny * hy + nz * hz) / (hx * hx + hy * hy + hz * hz) ** 0.5
        if half <= 0:
            continue
        h4 = half**4
        h16 = h4**4
        strength = 0.0
        if part == EYES:
            strength = 2.0 * h16**8
        elif part == TEETH:
            strength = 0.25 * h16 * h16
        elif part == TONGUE:
            strength = 0.10 * h16 * h16
        elif part == HAIR:
            strength = 0.02 * h16
        elif part == BODY:
            strength = 0.035 * h16 * gloss
        for c in range(3):
            out[c] += strength * colour[i, c] * occlusion


@_jit
def _bounds(screen, a, b, c, height, width):
    """Sub-pixel rows and columns whose centres a triangle may cover: x0, x1, y0, y1 (inclusive), and twice its area."""
    x0 = int(max(0, np.ceil(min(screen[a, 0], screen[b, 0], screen[c, 0]) - 0.5)))
    x1 = int(min(width - 1, np.floor(max(screen[a, 0], screen[b, 0], screen[c, 0]) - 0.5)))
    y0 = int(max(0, np.ceil(min(screen[a, 1], screen[b, 1], screen[c, 1]) - 0.5)))
    y1 = int(min(height - 1, np.floor(max(screen[a, 1], screen[b, 1], screen[c, 1]) - 0.5)))
    area = (screen[b, 0] - screen[a, 0]) * (screen[c, 1] - screen[a, 1]) - (screen[c, 0] - screen[a, 0]) * (
        screen[b, 1] - screen[a, 1]
    )
    return x0, x1, y0, y1, area


@_jit
def _weights(screen, a, b, c, area, x, y):
    """Screen-space barycentric weights of a sub-pixel's centre."""
    fx, fy = x + 0.5, y + 0.5
    w0 = ((screen[b, 0] - fx) * (screen[c, 1] - fy) - (screen[c, 0] - fx) * (screen[b, 1] - fy)) / area
    w1 = ((screen[c, 0] - fx) * (screen[a, 1] - fy) - (screen[a, 0] - fx) * (screen[c, 1] - fy)) / area
    return w0, w1, 1 - w0 - w1


@_jit
def find_nearest(screen, triangles, part, uv, texels, texture_offset, texture_size, hit, weight, nearness):
    """Fills hit, weight and nearness with the nearest solid surface of every sub-pixel."""
    height, width = nearness.shape
    texel = np.zeros(4, np.float32)
    for i in range(triangles.shape[0]):
        kind = part[i]
        if kind == BROWS or kind == LASHES:
            continue
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        x0, x1, y0, y1, area = _bounds(screen, a, b, c, height, width)
        # Screen y points down, so a triangle seen from outside has negative area. Hair and cloth have two sides.
        if x0 > x1 or y0 > y1 or area == 0 or (area > 0 and kind >= EYES and kind <= TONGUE):
            continue
        inside = area > 0 and kind == BODY
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                w0, w1, w2 = _weights(screen, a, b, c, area, x, y)
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                near = w0 * screen[a, 2] + w1 * screen[b, 2] + w2 * screen[c, 2]
                if near <= nearness[y, x]:
                    continue
                p0, p1 = w0 * screen[a, 2] / near, w1 * screen[b, 2] / near
                if kind == HAIR or kind == EYES:
                    p2 = 1 - p0 - p1
                    u = p0 * uv[a, 0] + p1 * uv[b, 0] + p2 * uv[c, 0]
                    v = p0 * uv[a, 1] + p1 * uv[b, 1] + p2 * uv[c, 1]
                    _texel(texels, texture_offset[kind], texture_size[kind], u, v, texel)
                    if texel[3] < _SOLID_ALPHA:
                        continue
                nearness[y, x] = near
                hit[y, x] = -2 - i if inside else i
                weight[y, x, 0] = p0
                weight[y, x, 1] = p1


@_jit
def _surface_colour(i, p0, p1, shading, texel, out):
    """Shades the point of triangle i with head-space weights p0, p1; the texture's alpha stays in ``texel[3]``."""
    normals, occlusion, uv, triangles, part, texels, offset, size, direction, colour, ambient, tint, gloss = shading
    a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
    p2 = 1 - p0 - p1
    kind = part[i]
    u = p0 * uv[a, 0] + p1 * uv[b, 0] + p2 * uv[c, 0]
    v = p0 * uv[a, 1] + p1 * uv[b, 1] + p2 * uv[c, 1]
    _texel(texels, offset[kind], size[kind], u, v, texel)
    nx = p0 * normals[a, 0] + p1 * normals[b, 0] + p2 * normals[c, 0]
    ny = p0 * normals[a, 1] + p1 * normals[b, 1] + p2 * normals[c, 1]
    nz = p0 * normals[a, 2] + p1 * normals[b, 2] + p2 * normals[c, 2]
    length = (nx * nx + ny * ny + nz * nz) ** 0.5 + 1e-9
    open_to_light = p0 * occlusion[a] + p1 * occlusion[b] + p2 * occlusion[c]
    _shade(
        kind, texel, nx / length, ny / length, nz / length, open_to_light, direction, colour, ambient, tint, gloss, out
    )


@_jit
def shade_nearest(hit, weight, shading, colour):
    """Writes the linear colour of every sub-pixel's nearest surface over the background."""
    texel, out = np.zeros(4, np.float32), np.zeros(3, np.float32)
    for y in range(hit.shape[0]):
        for x in range(hit.shape[1]):
            if hit[y, x] >= 0:
                _surface_colour(hit[y, x], weight[y, x, 0], weight[y, x, 1], shading, texel, out)
                for c in range(3):
                    colour[y, x, c] = out[c]
            elif hit[y, x] < -1:
                for c in range(3):
                    colour[y, x, c] = _INSIDE_BGR[c]


@_jit
def blend_transparent(screen, nearness, shading, colour):
    """Blends brows, lashes, the thin ends of hair and the cornea over what is drawn, where nothing is in front."""
    height, width = nearness.shape
    triangles, part = shading[3], shading[4]
    texel, out = np.zeros(4, np.float32), np.zeros(3, np.float32)
    for i in range(triangles.shape[0]):
        kind = part[i]
        thin = kind == BROWS or kind == LASHES
        if not (thin or kind == HAIR or kind == EYES):
            continue
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        x0, x1, y0, y1, area = _bounds(screen, a, b, c, height, width)
        if x0 > x1 or y0 > y1 or area == 0 or (area > 0 and kind == EYES):
            continue
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                w0, w1, w2 = _weights(screen, a, b, c, area, x, y)
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                near = w0 * screen[a, 2] + w1 * screen[b, 2] + w2 * screen[c, 2]
                if near <= nearness[y, x] - 1e-5:
                    continue
                _surface_colour(i, w0 * screen[a, 2] / near, w1 * screen[b, 2] / near, shading, texel, out)
                alpha = texel[3]
                if alpha < 0.03 or (not thin and alpha >= _SOLID_ALPHA):
                    continue
                for q in range(3):
                    colour[y, x, q] = colour[y, x, q] * (1 - alpha) + out[q] * alpha


@_jit
def resolve(colour, samples, image):
    """Averages sub-pixels and turns linear light into display values (tone curve, gamma 2)."""
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for c in range(3):
                total = 0.0
                for j in range(samples):
                    for i in range(samples):
                        value = max(colour[y * samples + j, x * samples + i, c], 0.0)
                        total += value / (1 + value * _TONE)
                display = (total / (samples * samples)) ** 0.5 * 255 + 0.5
                image[y, x, c] = np.uint8(min(255.0, display))


@_jit
def _visible(px, py, depth, nearness):
    """Whether a point at sub-pixel position (px, py) and depth lies on the nearest surface there (2 x 2 neighbours)."""
    height, width = nearness.shape
    x0, y0 = int(np.floor(px - 0.5)), int(np.floor(py - 0.5))
    if x0 < 0 or y0 < 0 or x0 >= width - 1 or y0 >= height - 1:
        return False
    for y in range(y0, y0 + 2):
        for x in range(x0, x0 + 2):
            near = nearness[y, x]
            if near == 0 or depth <= 1 / near + _DEPTH_SLACK:
                return True
    return False


@_jit
def dense_motion(
    hit, weight, reference_hit, reference_nearness, camera, triangles, part, mouth, focal, offset, samples,
    flow, seen, opened, part_out,
):  # fmt: skip
    """Fills flow, seen, opened and part of every pixel from the sub-pixels of target and reference."""
    size = flow.shape[0]
    share = np.float32(1.0 / (samples * samples))
    for y in range(size):
        for x in range(size):
            fx = fy = 0.0
            count = 0
            for j in range(samples):
                for i in range(samples):
                    sy, sx = y * samples + j, x * samples + i
                    t = hit[sy, sx]
                    if t < 0:
                        # The background stays where it is.
                        if t < -1:
                            opened[y, x] += share
                        elif reference_hit[sy, sx] == -1:
                            count += 1
                        continue
                    a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                    p0, p1 = weight[sy, sx, 0], weight[sy, sx, 1]
                    p2 = 1 - p0 - p1
                    if part[t] == TEETH or part[t] == TONGUE:
                        opened[y, x] += share
                        continue
                    if part[t] == BODY and p0 * mouth[a] + p1 * mouth[b] + p2 * mouth[c] > 0.5:
                        opened[y, x] += share
                        continue
                    depth = p0 * camera[a, 2] + p1 * camera[b, 2] + p2 * camera[c, 2]
                    px = offset[0] + focal * (p0 * camera[a, 0] + p1 * camera[b, 0] + p2 * camera[c, 0]) / depth
                    py = offset[1] - focal * (p0 * camera[a, 1] + p1 * camera[b, 1] + p2 * camera[c, 1]) / depth
                    # The reference pose may show the triangle's back: then the point is hidden even if it is nearest.
                    ux = camera[b, 0] / camera[b, 2] - camera[a, 0] / camera[a, 2]
                    uy = camera[b, 1] / camera[b, 2] - camera[a, 1] / camera[a, 2]
                    wx = camera[c, 0] / camera[c, 2] - camera[a, 0] / camera[a, 2]
                    wy = camera[c, 1] / camera[c, 2] - camera[a, 1] / camera[a, 2]
                    faces = ux * wy - uy * wx > 0 or part[t] == HAIR or part[t] == CLOTHES
                    if faces and _visible(px * samples, py * samples, depth, reference_nearness):
                        fx += px - (sx + 0.5) / samples
                        fy += py - (sy + 0.5) / samples
                        count += 1
            if count:
                flow[y, x, 0], flow[y, x, 1] = fx / count, fy / count
                seen[y, x] = count * share
            centre = hit[y * samples + samples // 2, x * samples + samples // 2]
            if centre >= 0:
                part_out[y, x] = part[centre]
