# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Run a segmentor that tools/export.py has written, and paint the image. Needs
onnxruntime, numpy and opencv, and nothing of PVD-MM: copy it from here."""

import argparse
import json
import sys

import cv2
import numpy as np
import onnxruntime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', help='.onnx file whose output is labels')
    parser.add_argument('image')
    parser.add_argument('--out', required=True, help='painted image, .png or .jpg')
    args = parser.parse_args()

    session = onnxruntime.InferenceSession(
        args.model, providers=onnxruntime.get_available_providers()
    )
    metadata = session.get_modelmeta().custom_metadata_map
    if metadata.get('output') != 'labels':
        sys.exit(f'{args.model} gives {metadata.get("output")}, not labels')
    image = cv2.imread(args.image, cv2.IMREAD_COLOR)
    if image is None:
        sys.exit(f'{args.image} cannot be read')

    # (1, 3, H, W), 0 to 255; OpenCV reads BGR
    channels = image[..., ::-1] if metadata['channel_order'] == 'RGB' else image
    batch = np.ascontiguousarray(channels.transpose(2, 0, 1)[None], np.float32)
    labels = session.run(None, {'image': batch})[0][0]  # (H, W)

    palette = np.array(json.loads(metadata['palette']), np.uint8)
    painted = cv2.addWeighted(image, 0.5, palette[labels][..., ::-1], 0.5, 0)
    if not cv2.imwrite(args.out, painted):
        sys.exit(f'{args.out} cannot be written')
    classes = json.loads(metadata['classes'])
    for label, count in zip(*np.unique(labels, return_counts=True)):
        print(f'{classes[label]:20} {100 * count / labels.size:6.2f} %')


if __name__ == '__main__':
    main()
