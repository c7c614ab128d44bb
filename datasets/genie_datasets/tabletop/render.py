"""Choice of a renderer for a scene's head camera: OpenGL, or a ray caster if OpenGL does not work.

`import mujoco` reads MUJOCO_GL once and fails for good if the libraries of that backend are missing. Backends are
therefore probed in another process.
"""

import os
import subprocess
import sys
from functools import lru_cache

import numpy as np

from genie_datasets.tabletop.mjcf import CAMERA
from genie_datasets.tabletop.raycast import RayCaster, Renderer

NO_GL = "disable"
HEADLESS = ("egl", "osmesa")
PROBE_SECONDS = 60
MULTISAMPLES = 4  # of images that are rendered at their own size
_PROBE = """
import mujoco
m = mujoco.MjModel.from_xml_string('<mujoco><worldbody><light pos="0 0 2"/><geom size=".2"/></worldbody></mujoco>')
d = mujoco.MjData(m); mujoco.mj_forward(m, d)
r = mujoco.Renderer(m, 16, 16); r.update_scene(d); assert r.render().max() > 0
"""


def find_backend() -> str:
    """The MUJOCO_GL value to render with: "egl", "osmesa", or "disable" if no OpenGL works.

    MUJOCO_GL=disable in the environment is obeyed; any other value there is tried first.
    """
    return _find_backend(os.environ.get("MUJOCO_GL", "").lower())


@lru_cache
def _find_backend(wanted: str) -> str:
    if wanted in ("disable", "disabled", "off", "false", "0"):
        return NO_GL
    for backend in dict.fromkeys(b for b in (wanted, *HEADLESS) if b):
        env = {**os.environ, "MUJOCO_GL": backend}
        env.pop("PYOPENGL_PLATFORM", None)
        try:
            probe = subprocess.run([sys.executable, "-c", _PROBE], env=env, capture_output=True, timeout=PROBE_SECONDS)
        except (subprocess.TimeoutExpired, OSError):
            continue
        if probe.returncode == 0:
            return backend
    return NO_GL


def use_opengl() -> None:
    """Let this process render with OpenGL if that works here. Call this before anything imports mujoco.

    Does nothing if mujoco is already imported, if MUJOCO_GL is set, or if TensorFlow is imported: TensorFlow and Mesa's
    OpenGL crash in one process.
    """
    if "mujoco" not in sys.modules and "tensorflow" not in sys.modules and "MUJOCO_GL" not in os.environ:
        os.environ["MUJOCO_GL"] = find_backend()


def renderer_name(backend: str) -> str:
    """The renderer's name in the metadata of a data set."""
    return "raycast" if backend == NO_GL else f"gl-{backend}"


class OpenGLRenderer(Renderer):
    """Renders the head camera of a model with MuJoCo's OpenGL renderer, oversampled and averaged."""

    def __init__(self, model, size: tuple[int, int]):
        import mujoco

        self.name = renderer_name(os.environ.get("MUJOCO_GL", "default"))
        self.size = size
        # Rendered pixels per image pixel and side: with them, small images show motion of less than a pixel.
        factor = max(1, min(4, round(256 / max(size))))
        height, width = size[0] * factor, size[1] * factor
        model.vis.quality.offsamples = 0 if factor > 1 else MULTISAMPLES
        model.vis.global_.offheight, model.vis.global_.offwidth = height, width  # the default buffers are larger
        self._renderer = mujoco.Renderer(model, height, width, max_geom=400)

    def __call__(self, data) -> np.ndarray:
        import cv2

        self._renderer.update_scene(data, CAMERA)
        image = self._renderer.render()
        if image.shape[:2] == self.size:
            return image
        return cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA)

    def close(self) -> None:
        self._renderer.close()


def make_renderer(model, size: tuple[int, int]) -> Renderer:
    """OpenGL if MuJoCo was imported with a backend that works without a display, else the ray caster."""
    if os.environ.get("MUJOCO_GL") in HEADLESS:
        return OpenGLRenderer(model, size)
    return RayCaster(model, size)
