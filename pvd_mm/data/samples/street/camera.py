# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What lies in front of the scene, and what a camera does to it."""

import cv2
import numpy as np

from .canvas import PAINTS, SUPERSAMPLING, Canvas
from .classes import SKY, TERRAIN, UNLABELLED, VEGETATION


def paint_wires(canvas: Canvas) -> None:
    """Paint cables over the street: seen, but of no class of their own."""
    rng = canvas.rng
    for _ in range(rng.integers(1, 4)):
        ends = rng.uniform(-0.1, 0.35, 2) * canvas.height
        sag = rng.uniform(0.02, 0.1) * canvas.height
        t = np.linspace(0, 1, 16)
        v = ends[0] * (1 - t) + ends[1] * t + sag * 4 * t * (1 - t)
        points = np.stack([t * canvas.width, v], -1).astype(np.int32)
        tone = float(rng.uniform(30, 80))
        cv2.polylines(canvas.image, [points], False, (tone,) * 3, 1)


def paint_hood(canvas: Canvas) -> None:
    """Paint the hood of the camera's own car, at the bottom: unlabelled."""
    rng = canvas.rng
    axes = (
        int(canvas.width * rng.uniform(0.55, 0.75)),
        int(canvas.height * rng.uniform(0.08, 0.15)),
    )
    center = (int(canvas.width * rng.uniform(0.45, 0.55)), canvas.height)
    color = canvas.pick(PAINTS[2:8], 8)
    gloss = (int(axes[0] * 0.8), int(axes[1] * 0.6))
    for radii, rgb in (
        (axes, color * 0.5),
        (gloss, color * 0.5 * 0.6 + canvas.haze * 0.3),
    ):
        cv2.ellipse(canvas.image, center, radii, 0, 180, 360, rgb.tolist(), -1)
    cv2.ellipse(canvas.label, center, axes, 0, 180, 360, UNLABELLED, -1)


def photograph(canvas: Canvas) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take the picture: texture, downsampling and the flaws of a camera.

    Returns:
        tuple[np.ndarray, np.ndarray, np.ndarray]: RGB image, (H, W, 3) uint8, averaged
        down for soft edges, and train ids, (H, W) uint8, and numbers of objects, (H, W)
        uint16, sampled for crisp ones.
    """
    rng = canvas.rng
    label, objects = (
        np.ascontiguousarray(full[::SUPERSAMPLING, ::SUPERSAMPLING])
        for full in (canvas.label, canvas.objects)
    )
    h, w = label.shape
    image = cv2.resize(canvas.image, (w, h), interpolation=cv2.INTER_AREA)
    image = image.astype(np.float32)

    # roughness of surfaces, of random strength in every image
    rough = np.zeros(256, np.float32)
    rough[:19] = rng.uniform(0.01, 0.06, 19)
    rough[VEGETATION] = rng.uniform(0.12, 0.25)
    rough[TERRAIN] = rng.uniform(0.06, 0.16)
    rough[SKY] = 0.004
    grain = rng.standard_normal((h, w), dtype=np.float32)
    coarse = cv2.resize(
        grain[: h // 3, : w // 3], (w, h), interpolation=cv2.INTER_LINEAR
    )
    gain = 1 + (0.6 * grain + coarse) * cv2.LUT(label, rough)
    gain *= 1 + 0.16 * (canvas.smooth_noise(h, w, 4, 8) - 0.5)

    # exposure, vignette, colour cast
    u = np.linspace(-1, 1, w, dtype=np.float32)[None]
    v = np.linspace(-1, 1, h, dtype=np.float32)[:, None]
    gain *= 1 - rng.uniform(0, 0.28) * (u * u + v * v) / 2
    level = {'sunny': 1.05, 'overcast': 0.95, 'dusk': 0.76}[canvas.mood]
    gain *= level * np.exp(rng.normal(0, 0.14))
    cast = np.exp(rng.normal(0, 0.03, 3)).astype(np.float32)
    if canvas.mood == 'dusk':
        cast *= np.float32([1.06, 0.97, 0.98])
    image *= gain[..., None]
    image *= cast
    sigma = rng.uniform(0, 0.75)
    if sigma > 0.25:
        image = cv2.GaussianBlur(image, (3, 3), sigma)
    noise = rng.standard_normal((h, w, 3), dtype=np.float32)
    image += noise * np.float32(rng.uniform(1.5, 6))
    return np.clip(image, 0, 255).astype(np.uint8), label, objects
