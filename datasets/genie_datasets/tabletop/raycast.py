"""The interface of renderers, and one without OpenGL: numpy shading of the hits of `mj_multiRay`.

The ray caster follows the fixed-function lighting of MuJoCo's own renderer (a headlight, lamps with shadows, Blinn
highlights, 2-D textures on flat surfaces): both give the same image except for edges and texture filtering.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from genie_datasets.tabletop.furniture import STATIC_GROUP
from genie_datasets.tabletop.mjcf import CAMERA

FAR = 8.0  # m
SHADOW_BIAS = 2e-3  # m
ANGLE_BIAS = 1e-3  # rad, for rounding
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


@dataclass
class Light:
    """Light of one lamp on n points, as if nothing were in its way."""

    rays: np.ndarray  # (n,3) unit vectors from the lamp to the points
    distance: np.ndarray  # (n,) m
    light: np.ndarray  # (n,3)
    free: np.ndarray  # (n,) bool: known not to be behind what does not move

    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.rays, self.distance, self.light, self.free


@dataclass
class Surface:
    """First hits of n rays, and their light."""

    geom: np.ndarray  # (n,) int32; -1: nothing
    distance: np.ndarray  # (n,) m; infinite where nothing is met
    base: np.ndarray  # (n,3) light without the lamps'
    lamps: list[Light]

    @staticmethod
    def empty(count: int, lamps: int) -> "Surface":
        lights = [
            Light(np.zeros((count, 3)), np.zeros(count), np.zeros((count, 3)), np.zeros(count, bool))
            for _ in range(lamps)
        ]
        return Surface(np.full(count, -1, np.int32), np.full(count, np.inf), np.zeros((count, 3)), lights)

    def copy(self) -> "Surface":
        lamps = [Light(*(array.copy() for array in lamp.arrays())) for lamp in self.lamps]
        return Surface(self.geom.copy(), self.distance.copy(), self.base.copy(), lamps)

    def put(self, rows: np.ndarray, other: "Surface") -> None:
        """Replace these rows by those of `other`."""
        self.geom[rows], self.distance[rows], self.base[rows] = other.geom, other.distance, other.base
        for mine, theirs in zip(self.lamps, other.lamps, strict=True):
            for array, new in zip(mine.arrays(), theirs.arrays(), strict=True):
                array[rows] = new


class RayCaster(Renderer):
    """Renders the head camera of a model by casting rays, four per pixel for small images.

    What never moves is cast and lit once. Later, a ray is cast only if it meets the bounding sphere of a geom that
    moves, and a lamp's light is tested only where the bounding sphere of a geom may be in its way. No number depends on
    the other rays that are computed with it, so a frame does not depend on the frames before.
    """

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
        self._moves = model.body_weldid[model.geom_bodyid] != 0
        self._blocks_light = model.geom_group != STATIC_GROUP
        self._shadow_groups = np.ones(6, np.uint8)
        self._shadow_groups[STATIC_GROUP] = 0
        self._view: tuple = ()  # poses of camera and lamps to which the following belongs
        self._rays = self._local
        self._still = Surface.empty(len(local), model.nlight)  # what does not move
        self._known = np.zeros(len(local), bool)  # the rows of `_still` that have been seen
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

        surface = self._look(data)
        image = surface.base
        for lamp, light in enumerate(surface.lamps):
            light.light[self._blocked(data, lamp, surface)] = 0
            image += light.light
        image = (np.clip(image, 0, 1) * 255).astype(np.float32)
        height, width = self.size
        image = image.reshape(height * self._factor, width * self._factor, 3)
        if self._factor > 1:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return np.rint(image).astype(np.uint8)

    def _look(self, data) -> Surface:
        """First hits of all rays of the camera."""
        axes, eye = data.cam_xmat[self._camera].reshape(3, 3), data.cam_xpos[self._camera].copy()
        view = (eye.tobytes(), axes.tobytes(), data.light_xpos.tobytes())
        if view != self._view:
            self._view, self._rays = view, self._local @ axes.T
            self._known[:] = False
        known = self._known.copy()
        rows = np.flatnonzero(~known)
        if len(rows):
            geom, distance, normals = self._cast(data, eye, rows, only_moving=False)
            self._still.put(rows, self._lit(data, eye, axes, rows, geom, distance, normals))
            self._known[rows] = (geom < 0) | ~self._moves[geom]
        surface = self._still.copy()
        rows = self._may_meet(data, eye, self._rays, surface.distance.max(), self._moves)
        rows = rows[known[rows]]
        if len(rows):
            geom, distance, normals = self._cast(data, eye, rows, only_moving=True)
            first = (geom >= 0) & (distance < surface.distance[rows])
            rows = rows[first]
            surface.put(rows, self._lit(data, eye, axes, rows, geom[first], distance[first], normals[first]))
        return surface

    def _cast(self, data, eye: np.ndarray, rows: np.ndarray, only_moving: bool) -> tuple[np.ndarray, ...]:
        """First hits of some rays from `eye` (3,): geom (n,), or -1, distance (n,) in m, and normal (n,3)."""
        import mujoco

        rays, count = self._rays[rows], len(rows)
        geom, distance, normals = np.zeros(count, np.int32), np.zeros(count), np.zeros((count, 3))
        mujoco.mj_multiRay(
            self.model, data, eye, rays.reshape(-1), None, not only_moving, -1,
            geom, distance, normals.reshape(-1), count, FAR,
        )  # fmt: skip
        # mj_multiRay can miss large geoms straight below the eye; mj_ray does not.
        missed = (geom < 0) & (self._still.geom[rows] < 0) if only_moving else geom < 0
        found, normal = np.zeros(1, np.int32), np.zeros(3)
        for i in np.flatnonzero(missed):
            distance[i] = mujoco.mj_ray(self.model, data, eye, rays[i], None, 1, -1, found, normal)
            geom[i], normals[i] = found[0], normal
        distance[geom < 0] = np.inf
        return geom, distance, normals

    def _may_meet(self, data, origin: np.ndarray, rays: np.ndarray, far: float, geoms: np.ndarray) -> np.ndarray:
        """The rays (n,3) of length `far` from `origin` (3,) that may meet one of `geoms` (bool), as indices.

        They come within the bounding sphere of a geom. The cone around all spheres is tested before each of them.
        """
        centers, radius = data.geom_xpos[geoms] - origin, self.model.geom_rbound[geoms]
        distance = np.linalg.norm(centers, axis=1)
        near = distance - radius < far
        centers, radius, distance = centers[near], radius[near], distance[near]
        if np.any((radius == 0) | (radius >= distance)):  # a plane, or around the origin
            return np.arange(len(rays))
        centers, angles = (centers / distance[:, None]).astype(np.float32), np.arcsin(radius / distance) + ANGLE_BIAS
        middle = centers.sum(axis=0)
        middle /= max(np.linalg.norm(middle), 1e-9)
        widest = np.max(np.arccos(np.clip(dot(centers, middle), -1, 1)) + angles, initial=0)
        x, y, z = rays.T.astype(np.float32)
        inside = np.flatnonzero(x * middle[0] + y * middle[1] + z * middle[2] >= np.cos(min(widest, np.pi)))
        x, y, z = x[inside], y[inside], z[inside]
        meets = np.zeros(len(inside), bool)
        for center, least in zip(centers, np.cos(angles), strict=True):
            meets |= x * center[0] + y * center[1] + z * center[2] >= least
        return inside[meets]

    def _lit(self, data, eye, axes, rows, geom, distance, normals) -> Surface:
        """The surface that rays `rows` (n,) meet: `geom` (n,) at `distance` (n,) with `normals` (n,3)."""
        surface = Surface.empty(len(rows), self.model.nlight)
        met = np.flatnonzero(geom >= 0)
        rows, geom, distance, normals = rows[met], geom[met], distance[met], normals[met]
        points = eye + self._rays[rows] * distance[:, None]
        color = self._color[geom]
        for index, texture in self._textures.items():
            textured = np.flatnonzero(geom == index)
            color[textured] = self._texture_color(data, index, texture, points[textured])
        head = self.model.vis.headlight  # with the ambient light
        base = color * (head.ambient + head.diffuse * np.maximum(dot(normals, axes[:, 2]), 0)[:, None])
        lamps = [self._lamp(data, lamp, axes, color, geom, points, normals) for lamp in range(self.model.nlight)]
        surface.put(met, Surface(geom, distance, base, lamps))
        return surface

    def _lamp(self, data, lamp: int, axes, color, geom, points, normals) -> Light:
        """The light of one lamp on points (n,3) of `color` (n,3)."""
        model = self.model
        to_lamp = data.light_xpos[lamp] - points
        distance = np.sqrt(dot(to_lamp, to_lamp))
        to_lamp /= distance[:, None]
        from_lamp = np.maximum(dot(normals, to_lamp), 0)
        halfway = to_lamp + axes[:, 2]  # as in MuJoCo's renderer, the viewer is infinitely far away
        halfway /= np.sqrt(dot(halfway, halfway))[:, None]
        shine = np.maximum(dot(normals, halfway), 0) ** self._shininess[geom]
        shine *= (from_lamp > 0) * self._specular[geom]
        light = color * model.light_diffuse[lamp] * from_lamp[:, None] + model.light_specular[lamp] * shine[:, None]
        return Light(-to_lamp, distance, light, np.zeros(len(points), bool))

    def _blocked(self, data, lamp: int, surface: Surface) -> np.ndarray:
        """The points of the surface that a lamp does not reach, as indices."""
        if not self.model.light_castshadow[lamp]:
            return np.zeros(0, int)
        light, still = surface.lamps[lamp], self._still.lamps[lamp]
        lit = light.light.any(axis=1)
        rows = np.flatnonzero(lit & ~light.free)
        blocker = self._blockers(data, lamp, light, rows, only_moving=False)
        # What does not move is never tested again for what does not move.
        lasting = (surface.geom[rows] >= 0) & ~self._moves[surface.geom[rows]]
        still.free[rows[lasting & (blocker < 0)]] = True
        still.light[rows[lasting & (blocker >= 0) & ~self._moves[blocker]]] = 0
        moving = self._blocks_light & self._moves
        again = self._may_meet(data, data.light_xpos[lamp], light.rays, light.distance.max(), moving)
        again = again[(lit & light.free)[again]]
        blocker_again = self._blockers(data, lamp, light, again, only_moving=True)
        return np.concatenate([rows[blocker >= 0], again[blocker_again >= 0]])

    def _blockers(self, data, lamp: int, light: Light, rows: np.ndarray, only_moving: bool) -> np.ndarray:
        """The geom (n,) between the lamp and each of some points; -1 if there is none."""
        import mujoco

        geom, reach = np.full(len(rows), -1, np.int32), np.zeros(len(rows))
        if len(rows):
            mujoco.mj_multiRay(
                self.model, data, data.light_xpos[lamp], light.rays[rows].reshape(-1), self._shadow_groups,
                not only_moving, -1, geom, reach, None, len(rows), FAR,
            )  # fmt: skip
        return np.where((reach >= 0) & (reach < light.distance[rows] - SHADOW_BIAS), geom, -1)

    def _texture_color(self, data, geom: int, texture: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Texture colors (n,3) at points (n,3) on a geom whose texture is in its local xy plane."""
        away, axes = points - data.geom_xpos[geom], data.geom_xmat[geom].reshape(3, 3)
        half, repeat = self.model.geom_size[geom], self._textured[geom][1]
        size = len(texture)
        column = ((dot(away, axes[:, 0]) + half[0]) * repeat[0] / 2 * size).astype(int) % size
        row = ((half[1] - dot(away, axes[:, 1])) * repeat[1] / 2 * size).astype(int) % size
        return texture[row, column]


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product of vectors (n,3) with (n,3) or (3,): each in the same order, whatever n is (BLAS's is not)."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _blur(texture: np.ndarray, width: int) -> np.ndarray:
    """Blur a texture (H,W,3) with a box of `width` pixels that wraps around."""
    for axis in (0, 1):
        texture = np.sum([np.roll(texture, shift - width // 2, axis) for shift in range(width)], axis=0) / width
    return texture
