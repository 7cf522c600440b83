# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Run a model that tools/export.py has written, and paint the image.
Needs onnxruntime, numpy and opencv, and nothing of PVD-MM: copy it from here."""

import argparse
import json
import sys

import cv2
import numpy as np
import onnxruntime


def resize(image: np.ndarray, shape: list, options: dict) -> np.ndarray:
    """As the test pipeline: to the size that the file has fixed, else to
    ``metadata['resize']``."""
    height, width = image.shape[:2]
    if isinstance(shape[2], int):
        width, height = shape[3], shape[2]
    elif options.get('scale') and not options.get('keep_ratio'):
        width, height = options['scale']
    elif options:
        factor = options.get('scale_factor')
        if options.get('scale'):
            short, long = sorted(options['scale'])
            factor = min(long / max(height, width), short / min(height, width))
        factors = np.broadcast_to(factor, 2)
        width, height = (
            int(side * f + 0.5) for side, f in zip((width, height), factors)
        )
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def paste(
    mask: np.ndarray, box: np.ndarray, height: int, width: int, threshold: float
) -> np.ndarray:
    """A mask (n, n) of probabilities in its box x1, y1, x2, y2 to (height, width),
    bool: bilinear, zero outside of the mask, as mmdet pastes."""
    result = np.zeros((height, width), bool)
    window, weights = [], []
    for start, end, length, side in zip(box[:2], box[2:], (width, height), mask.shape):
        first = max(int(np.floor(start)) - 1, 0)
        last = min(int(np.ceil(end)) + 1, length)
        centres = np.arange(first, last) + 0.5  # of the image's pixels
        cells = (centres - start) / max(end - start, 1e-6) * side - 0.5
        distance = np.abs(cells[:, None] - np.arange(side))
        window.append(slice(first, last))
        weights.append(np.maximum(1 - distance, 0))
    across, down = weights
    result[window[1], window[0]] = down @ mask @ across.T >= threshold
    return result


def paint_labels(image, labels, metadata):
    """Labels (H, W) on an image (H, W, 3), BGR."""
    palette = np.array(json.loads(metadata['palette']), np.uint8)
    classes = json.loads(metadata['classes'])
    for label, count in zip(*np.unique(labels, return_counts=True)):
        print(f'{classes[label]:20} {100 * count / labels.size:6.2f} %')
    return cv2.addWeighted(image, 0.5, palette[labels][..., ::-1], 0.5, 0)


def paint_detections(image, detections, metadata, score_thr):
    """Boxes in pixels of the image, scores, labels and masks, if there are masks, on an
    image (H, W, 3), BGR."""
    palette = np.array(json.loads(metadata['palette']), np.uint8)
    classes = json.loads(metadata['classes'])
    painted = image.copy()
    for box, score, label, *mask in reversed(list(zip(*detections))):
        if score < score_thr:
            continue
        colour = palette[label][::-1]
        if mask:
            threshold = json.loads(metadata['mask_threshold'])
            inside = paste(mask[0], box, *image.shape[:2], threshold)
            painted[inside] = (painted[inside] * 0.5 + colour * 0.5).astype(np.uint8)
        x1, y1, x2, y2 = box.round().astype(int).tolist()
        cv2.rectangle(painted, (x1, y1), (x2, y2), colour.tolist())
        text = f'{classes[label]} {score:.2f}'
        place = x1, max(y1 - 3, 10)
        cv2.putText(painted, text, place, cv2.FONT_HERSHEY_PLAIN, 1, colour.tolist())
        print(f'{classes[label]:20} {score:6.3f}  box {x1} {y1} {x2} {y2}')
    return painted


def fuse(
    detections: list, semantic: np.ndarray, metadata: dict
) -> tuple[np.ndarray, list]:
    """Boxes in pixels of the image, scores, labels and masks, the highest score first,
    and labels (H, W) of the semantic head to segments, as mmdet's HeuristicFusionHead.

    Returns:
        tuple[np.ndarray, list]: Numbers (H, W) of segments, -1 where there is none,
        and the class of each segment.
    """
    options = json.loads(metadata['fusion'])
    threshold = json.loads(metadata['mask_threshold'])
    segments, taken, classes = np.full(semantic.shape, -1), semantic < 0, []
    for box, score, label, mask in zip(*detections):
        if score < options['score_thr']:
            continue
        inside = paste(mask, box, *semantic.shape, threshold)
        covered = (inside & taken).sum() / max(inside.sum(), 1)
        if covered > options['mask_overlap'] or not (inside & ~taken).any():
            continue
        segments[inside & ~taken] = len(classes)
        taken |= inside
        classes.append(int(label))
    things = options['things']
    for stuff in range(len(json.loads(metadata['classes'])) - things):
        inside = ~taken & (semantic == stuff)
        if inside.sum() >= max(options['stuff_area_limit'], 1):
            segments[inside] = len(classes)
            classes.append(things + stuff)
    return segments, classes


def paint_segments(image, segments, classes, metadata):
    """Segments on an image (H, W, 3), BGR, with their outlines."""
    palette = json.loads(metadata['palette'])
    names = json.loads(metadata['classes'])
    painted = image.copy()
    for number, label in enumerate(classes):
        inside = segments == number
        colour = np.array(palette[label][::-1])
        painted[inside] = (image[inside] * 0.5 + colour * 0.5).astype(np.uint8)
        outlines, _ = cv2.findContours(
            inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(painted, outlines, -1, colour.tolist())
        print(f'{names[label]:20} {100 * inside.mean():6.2f} %')
    return painted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'model', help='.onnx file of a detector, a panoptic model, or one of labels'
    )
    parser.add_argument('image')
    parser.add_argument('--out', required=True, help='painted image, .png or .jpg')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='of a detector, lowest score that is painted (default: 0.3)',
    )
    args = parser.parse_args()

    session = onnxruntime.InferenceSession(
        args.model, providers=onnxruntime.get_available_providers()
    )
    metadata = session.get_modelmeta().custom_metadata_map
    output = metadata.get('output')
    if output not in ('labels', 'detections', 'panoptic'):
        sys.exit(f'{args.model} gives {output}, not labels, detections or segments')
    image = cv2.imread(args.image, cv2.IMREAD_COLOR)
    if image is None:
        sys.exit(f'{args.image} cannot be read')

    given = image
    if output != 'labels':
        options = json.loads(metadata.get('resize', '{}'))
        given = resize(image, session.get_inputs()[0].shape, options)
    # (1, 3, H, W), 0 to 255; OpenCV reads BGR
    channels = given[..., ::-1] if metadata['channel_order'] == 'RGB' else given
    batch = np.ascontiguousarray(channels.transpose(2, 0, 1)[None], np.float32)
    results = session.run(None, {'image': batch})

    if output == 'labels':
        painted = paint_labels(image, results[0][0], metadata)
    else:
        down, across = np.divide(image.shape[:2], given.shape[:2])
        results[0] = results[0] * [across, down, across, down]
        if output == 'panoptic':
            semantic = cv2.resize(
                results.pop().astype(np.int32),
                image.shape[1::-1],
                interpolation=cv2.INTER_NEAREST,
            )
            segments = fuse(results, semantic, metadata)
            painted = paint_segments(image, *segments, metadata)
        else:
            painted = paint_detections(image, results, metadata, args.score_thr)
    if not cv2.imwrite(args.out, painted):
        sys.exit(f'{args.out} cannot be written')


if __name__ == '__main__':
    main()
