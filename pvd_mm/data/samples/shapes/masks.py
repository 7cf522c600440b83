# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Masks as COCO writes them down."""

import cv2
import numpy as np


def mask_outline(mask: np.ndarray) -> list[float] | None:
    """Trace a mask along the edges of its pixels.

    Args:
        mask (np.ndarray): (H, W) bool.

    Returns:
        list[float] | None: The polygon x, y, x, y ... in COCO's coordinates,
        in which pixel 0 reaches from 0 to 1, or None if the mask has a hole
        or is not in one piece.
    """
    # In the mask at twice its size a pixel's first and second half tell on
    # which of its edges the outline lies.
    twice = np.repeat(np.repeat(mask.astype(np.uint8), 2, 0), 2, 1)
    contours, _ = cv2.findContours(twice, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if len(contours) != 1:
        return None
    corners = (contours[0][:, 0] + 1) // 2
    # two points of the outline meet in every inner corner
    corners = corners[(corners != np.roll(corners, 1, 0)).any(1)]
    return corners.ravel().astype(float).tolist()


def mask_runs(mask: np.ndarray) -> dict:
    """Encode a mask as COCO's uncompressed RLE.

    Args:
        mask (np.ndarray): (H, W) bool.

    Returns:
        dict: ``size`` [H, W] and ``counts``, the lengths of the runs of 0 and
        1 in turn, column by column.
    """
    pixels = mask.ravel(order='F')
    starts = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff([0, *starts, pixels.size]).tolist()
    # the first run is one of 0
    return dict(size=list(mask.shape), counts=[0, *counts] if pixels[0] else counts)
