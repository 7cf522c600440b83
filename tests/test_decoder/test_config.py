# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What heads do with ``decoder=dict(...)``."""

import pytest

from pvd_mm.decoder import decoder_config, refuse_decoder_arguments
from pvd_mm.decoder.config import DECODER_ARGUMENTS


def test_what_a_config_may_give():
    assert DECODER_ARGUMENTS == {
        'strides',
        'kernel_size',
        'groups',
        'vote_channels',
        'vote_norm',
        'vote_start',
        'vote_conv_size',
        'vote_gain',
        'fuse_conv_size',
        'fuse_channels',
        'upsampling',
        'formulation',
        'backend',
        'norm_cfg',
        'act_cfg',
    }


def test_the_users_arguments_come_before_the_heads():
    given = dict(type='Mine', norm_cfg=None, groups=2)
    config = decoder_config(given, [4, 5], 6, norm_cfg=dict(type='BN'), act_cfg=None)
    assert config == dict(
        given, act_cfg=None, in_channels=[4, 5], channels=6
    ) and given == dict(type='Mine', norm_cfg=None, groups=2)
    assert decoder_config(None, [4, 5], 6) == decoder_config({}, [4, 5], 6)


@pytest.mark.parametrize(
    'decoder,error,message',
    [
        (dict(in_channels=[4, 5]), ValueError, r'in_channels, .*in_channels=\[4, 5\]'),
        (dict(channels=3), ValueError, r'must not name channels, .*dict\(channels=3\)'),
        ('PixelVotingDecoder', TypeError, "must be a dict .* got 'PixelVotingDecoder'"),
    ],
)
def test_what_is_refused(decoder, error, message):
    with pytest.raises(error, match=message):
        decoder_config(decoder, [4, 5], 6)


def test_an_old_config_is_told_the_new_one():
    old = dict(vote_channels=[4, 8], norm_cfg=dict(type='BN'), formulation='factored')
    with pytest.raises(TypeError) as error:
        refuse_decoder_arguments(
            'Head', dict(old, num_convs=1), dict(groups=2, formulation='exact')
        )
    assert str(error.value).split('\n')[1:] == [
        "    vote_channels=[4, 8], norm_cfg={'type': 'BN'}, formulation='factored'",
        'write',
        "    decoder=dict(groups=2, formulation='factored', vote_channels=[4, 8], "
        "norm_cfg={'type': 'BN'})",
    ]
    refuse_decoder_arguments('Head', dict(num_convs=1), None)
    refuse_decoder_arguments('Head', dict(norm_cfg=None), None, own=['norm_cfg'])
