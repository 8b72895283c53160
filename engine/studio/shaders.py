"""Surface materials of a figure for the path tracer: skin, eyes, teeth, tongue, hair, cloth, backdrop.

Place in the flow: runs inside the interpreter that has ``bpy``; called by ``path_tracer`` only.

Invariants:
    * a material depends on the part's name, texture and tint alone;
    * colours are linear RGB, lengths decimetres.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bpy

_MULTIPLY_RESULT = 2
_MULTIPLY_A, _MULTIPLY_B = 6, 7

_SURFACE: Mapping[str, Mapping[str, float]] = {
    "body": {"Subsurface Weight": 0.40, "Subsurface Scale": 0.055, "Specular IOR Level": 0.38},
    "eyes": {"Roughness": 0.05, "Specular IOR Level": 0.55},
    "teeth": {"Roughness": 0.30, "Specular IOR Level": 0.45, "Subsurface Weight": 0.25, "Subsurface Scale": 0.03},
    "tongue": {"Roughness": 0.38, "Subsurface Weight": 0.30, "Subsurface Scale": 0.05},
    "brows": {"Roughness": 0.85, "Specular IOR Level": 0.10},
    "lashes": {"Roughness": 0.85, "Specular IOR Level": 0.10},
    "hair": {"Roughness": 0.65, "Specular IOR Level": 0.15, "Anisotropic": 0.6},
    "clothes": {"Roughness": 0.88, "Specular IOR Level": 0.15, "Sheen Weight": 0.12, "Sheen Roughness": 0.5},
}
_TRANSPARENT = ("eyes", "brows", "lashes", "hair")


def surface(name: str, texture: Path | None, tint: tuple[float, float, float]) -> Any:
    """The material of a part.

    Args:
        name: part name; see ``Figure.parts``.
        texture: base colour (and transparency), or None for a plain surface.
        tint: factors on the texture, or the plain colour.
    """
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    shader = nodes["Principled BSDF"]
    for key, value in _SURFACE[name].items():
        shader.inputs[key].default_value = value
    if texture is None:
        shader.inputs["Base Color"].default_value = (*tint, 1)
    else:
        image = nodes.new("ShaderNodeTexImage")
        image.image = bpy.data.images.load(str(texture), check_existing=True)
        mix = nodes.new("ShaderNodeMix")
        mix.data_type, mix.blend_type = "RGBA", "MULTIPLY"
        mix.inputs["Factor"].default_value = 1
        mix.inputs[_MULTIPLY_B].default_value = (*tint, 1)
        links.new(image.outputs["Color"], mix.inputs[_MULTIPLY_A])
        links.new(mix.outputs[_MULTIPLY_RESULT], shader.inputs["Base Color"])
        if name in _TRANSPARENT:
            links.new(image.outputs["Alpha"], shader.inputs["Alpha"])
    if name == "body":
        shader.inputs["Subsurface Radius"].default_value = (1.0, 0.36, 0.20)
        _skin_relief(material, shader)
    elif name == "clothes":
        _weave(material, shader)
    return material


def _noise(material: Any, scale: float, detail: float) -> Any:
    nodes, links = material.node_tree.nodes, material.node_tree.links
    coordinates = nodes.new("ShaderNodeTexCoord")
    noise = nodes.new("ShaderNodeTexNoise")
    noise.inputs["Scale"].default_value = scale
    noise.inputs["Detail"].default_value = detail
    links.new(coordinates.outputs["UV"], noise.inputs["Vector"])
    return noise


def _bump(material: Any, height: Any, strength: float, distance_dm: float, below: Any | None = None) -> Any:
    nodes, links = material.node_tree.nodes, material.node_tree.links
    bump = nodes.new("ShaderNodeBump")
    bump.inputs["Strength"].default_value = strength
    bump.inputs["Distance"].default_value = distance_dm
    links.new(height, bump.inputs["Height"])
    if below is not None:
        links.new(below.outputs[0], bump.inputs["Normal"])
    return bump


def _skin_relief(material: Any, shader: Any) -> None:
    """Pores and an uneven shine, which take the wax out of rendered skin."""
    nodes, links = material.node_tree.nodes, material.node_tree.links
    painted = next(node for node in nodes if node.type == "TEX_IMAGE")
    grey = nodes.new("ShaderNodeRGBToBW")
    links.new(painted.outputs["Color"], grey.inputs[0])
    folds = _bump(material, grey.outputs[0], 0.16, 0.02)
    pores = _bump(material, _noise(material, 900, 3).outputs[0], 0.16, 0.008, folds)
    links.new(pores.outputs[0], shader.inputs["Normal"])
    shine = nodes.new("ShaderNodeMapRange")
    shine.inputs["To Min"].default_value, shine.inputs["To Max"].default_value = 0.40, 0.66
    links.new(_noise(material, 140, 4).outputs[0], shine.inputs["Value"])
    links.new(shine.outputs[0], shader.inputs["Roughness"])


def _weave(material: Any, shader: Any) -> None:
    links = material.node_tree.links
    threads = _bump(material, _noise(material, 420, 2).outputs[0], 0.25, 0.01)
    links.new(threads.outputs[0], shader.inputs["Normal"])


def strand(name: str, melanin: float, redness: float) -> Any:
    """The material of hair curves, coloured by pigment."""
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.remove(nodes["Principled BSDF"])
    hair = nodes.new("ShaderNodeBsdfHairPrincipled")
    hair.parametrization = "MELANIN"
    hair.inputs["Melanin"].default_value = melanin
    hair.inputs["Melanin Redness"].default_value = redness
    hair.inputs["Roughness"].default_value = 0.36
    hair.inputs["Radial Roughness"].default_value = 0.45
    hair.inputs["Random Color"].default_value = 0.25
    links.new(hair.outputs[0], nodes["Material Output"].inputs["Surface"])
    return material


def backdrop(
    edge: tuple[float, float, float], centre: tuple[float, float, float], at: tuple[float, float]
) -> Any:
    """A glowing wall with a soft round gradient.

    Args:
        edge: linear RGB far from the centre.
        centre: linear RGB at the centre.
        at: (x, height) of the centre, decimetres.
    """
    material = bpy.data.materials.new("backdrop")
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.remove(nodes["Principled BSDF"])
    glow = nodes.new("ShaderNodeEmission")
    coordinates = nodes.new("ShaderNodeTexCoord")
    mapping = nodes.new("ShaderNodeMapping")
    gradient = nodes.new("ShaderNodeTexGradient")
    ramp = nodes.new("ShaderNodeValToRGB")
    gradient.gradient_type = "SPHERICAL"
    ramp.color_ramp.interpolation = "EASE"
    ramp.color_ramp.elements[0].color, ramp.color_ramp.elements[1].color = (*edge, 1), (*centre, 1)
    reach = 0.09
    mapping.inputs["Scale"].default_value = (reach, 0, reach)
    mapping.inputs["Location"].default_value = (-at[0] * reach, 0, -at[1] * reach)
    links.new(coordinates.outputs["Object"], mapping.inputs[0])
    links.new(mapping.outputs[0], gradient.inputs[0])
    links.new(gradient.outputs["Fac"], ramp.inputs[0])
    links.new(ramp.outputs[0], glow.inputs[0])
    links.new(glow.outputs[0], nodes["Material Output"].inputs["Surface"])
    return material
