# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Write a trained model to a file that runs without PVD-MM and
OpenMMLab, and prove on images that the file computes what the model does."""

import argparse

from pvd_mm.apis.export import AGREEMENTS, FORMATS, LEAST_OPSET, OUTPUTS, export
from pvd_mm.engine.compatibility import hide_known_warnings
from pvd_mm.utils.arguments import AtLeastOne, exit_on_user_error


def defaults(scope: str) -> str:
    return ', '.join(f'{name} {share}' for name, share in AGREEMENTS[scope].items())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path or name of a shipped config')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out', required=True, help='the file, in .onnx, .pt2 or .pt by its format'
    )
    parser.add_argument(
        '--format',
        choices=FORMATS,
        default='onnx',
        help='onnx (default); of segmentors also pt2 (torch.export) or torchscript',
    )
    parser.add_argument(
        '--output',
        choices=OUTPUTS,
        help='segmentors: label map (default), scores or logits, of the size of the '
        'image',
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        action=AtLeastOne,
        metavar=('HEIGHT', 'WIDTH'),
        help='one image of this size (default: any size; segmentors: any number)',
    )
    parser.add_argument(
        '--images',
        nargs='+',
        metavar='PATH',
        help='files, folders or patterns to prove the file on (default: images of '
        'the test set of the config)',
    )
    parser.add_argument(
        '--number',
        type=int,
        action=AtLeastOne,
        default=8,
        help='how many of them at most (default: 8)',
    )
    parser.add_argument(
        '--agreement',
        type=float,
        metavar='SHARE',
        help='least share of pixels whose labels must be the same, or of detections '
        f'(default: segmentors {defaults("mmseg")}; detectors {defaults("mmdet")})',
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        '--half',
        dest='precision',
        action='store_const',
        const='float16',
        help='onnx: float16 weights, and compute where the runtime has it',
    )
    precision.add_argument(
        '--int8',
        dest='precision',
        action='store_const',
        const='int8',
        help='onnx: convolutions in 8 bits, calibrated on images of the train split',
    )
    parser.add_argument(
        '--opset',
        type=int,
        default=LEAST_OPSET,
        help=f'of ONNX, {LEAST_OPSET} (default) or more',
    )
    parser.add_argument(
        '--force', action='store_true', help='replace the file that is there'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    hide_known_warnings()
    with exit_on_user_error('export'):
        proof = export(
            args.config,
            args.checkpoint,
            args.out,
            format=args.format,
            output=args.output,
            size=args.size,
            images=args.images,
            number=args.number,
            precision=args.precision or 'float32',
            agreement=args.agreement,
            opset=args.opset,
            force=args.force,
        )
    print('\n'.join([*proof.lines(), f'Written: {args.out}']))


if __name__ == '__main__':
    main()
