"""The interface of renderers, and one without OpenGL: numpy shading of the hits of `mj_multiRay`.

The ray caster follows the fixed-function lighting of MuJoCo's own renderer (a headlight, lamps with shadows, Blinn
highlights, 2-D textures on flat surfaces): both give the same image except for edges and texture filtering.
"""

from abc import ABC, abstractmethod

import numpy as np

from genie_datasets.tabletop.furniture import STATIC_GROUP
from genie_datasets.tabletop.mjcf import CAMERA

FAR = 8.0  # m
SHADOW_BIAS = 2e-3  # m
UNSET = (0.5, 0.5, 0.5, 1.0)  # rgba of a geom whose material gives the color


class Renderer(ABC):
    """Turns a simulation state into an image."""

    name: str

    @abstractmethod
    def __call__(self, data) -> np.ndarray:
        """Render a mujoco.MjData as (H,W,3) uint8."""

    def close(self) -> None:  # noqa: B027
        """Free what the renderer holds."""


class NoRenderer(Renderer):
    """Renders nothing: for simulations that only need the truth."""

    name = "none"

    def __call__(self, data) -> np.ndarray:
        return np.zeros((0, 0, 3), np.uint8)


class RayCaster(Renderer):
    """Renders the head camera of a model by casting rays, four per pixel for small images."""

    name = "raycast"

    def __init__(self, model, size: tuple[int, int]):
        self.model, self.size = model, size
        self._factor = 2 if max(size) <= 128 else 1
        height, width = size[0] * self._factor, size[1] * self._factor
        self._camera = model.camera(CAMERA).id
        half = np.tan(np.radians(model.cam_fovy[self._camera]) / 2)
        x = ((np.arange(width) + 0.5) / width * 2 - 1) * half * size[1] / size[0]
        y = (1 - (np.arange(height) + 0.5) / height * 2) * half
        local = np.stack([*np.meshgrid(x, y), np.full((height, width), -1.0)], axis=-1).reshape(-1, 3)
        self._local = local / np.linalg.norm(local, axis=1, keepdims=True)
        self._geom = np.zeros(len(local), np.int32)
        self._distance = np.zeros(len(local))
        self._normal = np.zeros(len(local) * 3)
        self._shadow_geom = np.zeros(len(local), np.int32)
        self._shadow_distance = np.zeros(len(local))
        self._shadow_groups = np.ones(6, np.uint8)
        self._shadow_groups[STATIC_GROUP] = 0
        self._read_materials()
        # Textures are blurred once, to about the size of an image pixel.
        pixel = 2 * half / size[0] / self._factor  # m, at a distance of 1 m
        self._textures = {
            geom: _blur(texture, max(1, round(pixel * repeat[0] / 2 * len(texture))))
            for geom, (texture, repeat) in self._textured.items()
        }

    def _read_materials(self) -> None:
        model = self.model
        self._color = model.geom_rgba[:, :3].astype(np.float32)
        self._specular = np.full(model.ngeom, 0.5, np.float32)
        self._shininess = np.full(model.ngeom, 64.0, np.float32)
        self._textured: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for geom in range(model.ngeom):
            material = int(model.geom_matid[geom])
            if material < 0:
                continue
            if np.allclose(model.geom_rgba[geom], UNSET):
                self._color[geom] = model.mat_rgba[material, :3]
            self._specular[geom] = model.mat_specular[material]
            self._shininess[geom] = max(1.0, 128 * model.mat_shininess[material])
            texture = int(model.mat_texid[material].max())
            if texture >= 0:
                height, width = int(model.tex_height[texture]), int(model.tex_width[texture])
                channels, start = int(model.tex_nchannel[texture]), int(model.tex_adr[texture])
                data = model.tex_data[start : start + height * width * channels].reshape(height, width, channels)
                self._textured[geom] = (data[..., :3].astype(np.float32) / 255, model.mat_texrepeat[material].copy())

    def __call__(self, data) -> np.ndarray:
        import cv2

        axes = data.cam_xmat[self._camera].reshape(3, 3)
        eye = data.cam_xpos[self._camera].copy()
        rays = self._local @ axes.T
        self._cast(data, eye, rays)
        hit = self._geom >= 0
        geom = np.where(hit, self._geom, 0)
        points = eye + rays * self._distance[:, None]
        normals = self._normal.reshape(-1, 3)
        color = self._color[geom]
        for index, texture in self._textures.items():
            textured = np.flatnonzero(hit & (self._geom == index))
            color[textured] = self._texture_color(data, index, texture, points[textured])
        head = self.model.vis.headlight  # with the ambient light
        image = color * (head.ambient + head.diffuse * np.maximum(normals @ axes[:, 2], 0)[:, None])
        for lamp in range(self.model.nlight):
            image += self._lamp(data, lamp, axes, color, geom, points, normals)
        image[~hit] = 0
        image = (np.clip(image, 0, 1) * 255).astype(np.float32)
        height, width = self.size
        image = image.reshape(height * self._factor, width * self._factor, 3)
        if self._factor > 1:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return np.rint(image).astype(np.uint8)

    def _lamp(self, data, lamp: int, axes, color, geom, points, normals) -> np.ndarray:
        """Light (n,3) of one lamp on hits of `color` (n,3)."""
        import mujoco

        model, position, count = self.model, data.light_xpos[lamp], len(points)
        to_lamp = position - points
        lamp_distance = np.sqrt(np.einsum("nc,nc->n", to_lamp, to_lamp))
        to_lamp /= lamp_distance[:, None]
        from_lamp = np.maximum(np.einsum("nc,nc->n", normals, to_lamp), 0)
        if model.light_castshadow[lamp]:
            rays, blocker, reach = (-to_lamp).reshape(-1), self._shadow_geom, self._shadow_distance
            mujoco.mj_multiRay(
                model, data, position, rays, self._shadow_groups, 1, -1, blocker, reach, None, count, FAR
            )
            from_lamp *= ~((reach >= 0) & (reach < lamp_distance - SHADOW_BIAS))
        halfway = to_lamp + axes[:, 2]  # as in MuJoCo's renderer, the viewer is infinitely far away
        halfway /= np.linalg.norm(halfway, axis=1, keepdims=True)
        shine = np.maximum(np.einsum("nc,nc->n", normals, halfway), 0) ** self._shininess[geom]
        shine *= (from_lamp > 0) * self._specular[geom]
        return color * model.light_diffuse[lamp] * from_lamp[:, None] + model.light_specular[lamp] * shine[:, None]

    def _cast(self, data, eye: np.ndarray, rays: np.ndarray) -> None:
        """Find the first hit of each ray (n,3) from `eye` (3,)."""
        import mujoco

        geom, distances, normals = self._geom, self._distance, self._normal
        mujoco.mj_multiRay(
            self.model, data, eye, rays.reshape(-1), None, 1, -1, geom, distances, normals, len(rays), FAR
        )
        # mj_multiRay can miss large geoms straight below the eye; mj_ray does not.
        found = np.zeros(1, np.int32)
        normal = np.zeros(3)
        for i in np.flatnonzero(geom < 0):
            distance = mujoco.mj_ray(self.model, data, eye, rays[i], None, 1, -1, found, normal)
            if distance >= 0:
                geom[i], distances[i], normals[3 * i : 3 * i + 3] = found[0], distance, normal

    def _texture_color(self, data, geom: int, texture: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Texture colors (n,3) at points (n,3) on a geom whose texture is in its local xy plane."""
        local = (points - data.geom_xpos[geom]) @ data.geom_xmat[geom].reshape(3, 3)
        half, repeat = self.model.geom_size[geom], self._textured[geom][1]
        size = len(texture)
        column = ((local[:, 0] + half[0]) * repeat[0] / 2 * size).astype(int) % size
        row = ((half[1] - local[:, 1]) * repeat[1] / 2 * size).astype(int) % size
        return texture[row, column]


def _blur(texture: np.ndarray, width: int) -> np.ndarray:
    """Blur a texture (H,W,3) with a box of `width` pixels that wraps around."""
    for axis in (0, 1):
        texture = np.sum([np.roll(texture, shift - width // 2, axis) for shift in range(width)], axis=0) / width
    return texture
