"""A pinhole camera. Image positions in the truth are projected here, not by the renderer."""

from dataclasses import dataclass, replace

import numpy as np

SMALL_IMAGE = 128  # pixels; smaller images are zoomed


@dataclass(frozen=True)
class CameraConfig:
    """RT-1's head camera. Meters and degrees in the base frame."""

    position: tuple[float, float, float] = (0.02, 0.0, 1.44)
    pitch: float = 40.0  # below the horizon
    yaw: float = 0.0  # positive is to the left
    roll: float = 0.0
    fovy: float = 40.0  # vertical field of view
    small_zoom: float = 1.0  # zoom of small images, so that one step of the gripper stays visible

    def for_size(self, size: tuple[int, int]) -> "CameraConfig":
        """The camera for images of `size` (height, width), zoomed in if both are below SMALL_IMAGE."""
        if max(size) >= SMALL_IMAGE:
            return replace(self, small_zoom=1.0)
        half = np.tan(np.radians(self.fovy) / 2) / self.small_zoom
        return replace(self, fovy=float(2 * np.degrees(np.arctan(half)).round(4)), small_zoom=1.0)

    def axes(self) -> np.ndarray:
        """Rotation (3,3); its columns point right, up and backward from the camera (MuJoCo's convention)."""
        pitch, yaw, roll = np.radians([self.pitch, self.yaw, self.roll])
        forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), -np.sin(pitch)])
        right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
        up = np.cross(right, forward)
        right, up = right * np.cos(roll) + up * np.sin(roll), up * np.cos(roll) - right * np.sin(roll)
        return np.stack([right, up, -forward], axis=1)

    def project(self, points: np.ndarray, aspect: float) -> np.ndarray:
        """Project points (...,3) in meters to (...,2): x as a fraction of the image width, y (down) of its height.

        `aspect` is width / height. Points outside the image give values outside 0 to 1.
        """
        local = (np.asarray(points) - np.array(self.position)) @ self.axes()
        depth = np.maximum(-local[..., 2], 1e-6)
        half = np.tan(np.radians(self.fovy) / 2)
        return np.stack(
            [0.5 + 0.5 * local[..., 0] / (depth * half * aspect), 0.5 - 0.5 * local[..., 1] / (depth * half)], axis=-1
        )
