# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The semantic head for mmdet."""

from collections.abc import Sequence

import torch
from mmdet.models.seg_heads.base_semantic_head import BaseSemanticHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from pvd_mm.decoder import PyramidContext, decoder_config, refuse_arguments
from pvd_mm.instance import FeatureMaps
from pvd_mm.ops.checks import check_integer, check_not_negative

_IGNORED = 255


@MODELS.register_module()
class PVDSemanticHead(BaseSemanticHead):
    """Pixel Voting Decoder head for the labels of a panoptic model.

    As in :class:`pvd_mm.semantic.PVDHead` a 1×1 convolution classifies every
    pixel of z_L, and the logits are decoded down to the size of z_0; here on
    mmdet's ``BaseSemanticHead`` contract, by votes that the mask head may
    use as well.

    ====== ============================================= ==================
    symbol meaning                                       shape
    ====== ============================================= ==================
    z_l    encoder maps, finest first                    (N, C_l, H_l, W_l)
    y_l    decoded logits                                (N, C, H_l, W_l)
    T, S   numbers of classes of things and of stuff
    C      S + 1 with ``merge_things``, stuff and then
           one for all things; else T + S, things first
    ====== ============================================= ==================

    Args:
        in_channels (Sequence[int]): Channels of z_0 … z_L. They are the last
            maps of the backbone.
        num_things_classes (int): T. Defaults to 80.
        num_stuff_classes (int): S. Defaults to 53.
        merge_things (bool): Whether all things are one class, as in Panoptic
            FPN; the masks tell them apart. Defaults to True.
        context_channels (int, optional): Channels of a
            :class:`pvd_mm.decoder.PyramidContext` on z_L, of which y_L is made.
            Defaults to None: y_L is made of z_L.
        coarse_loss_weight (float): Weight of the losses at the maps before the
            last, as in :class:`pvd_mm.semantic.PVDHead`; 0 for none. Defaults
            to 0.
        norm_cfg (dict, optional): Normalisation in the context module. Defaults
            to None.
        loss_seg (dict, optional): The loss. Defaults to cross entropy that
            leaves out void, 255.
        decoder (dict, optional): Arguments of the decoder, see
            :class:`pvd_mm.decoder.PixelVotingDecoder`. Defaults to None.
        init_cfg (dict, optional): Defaults to None.

    Raises:
        TypeError: If an argument of the decoder is given outside of
            ``decoder``, or an argument is unknown.
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_things_classes: int = 80,
        num_stuff_classes: int = 53,
        merge_things: bool = True,
        context_channels: int | None = None,
        coarse_loss_weight: float = 0.0,
        norm_cfg: dict | None = None,
        loss_seg: dict | None = None,
        decoder: dict | None = None,
        init_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        refuse_arguments(type(self).__name__, kwargs, decoder)
        check_integer('num_things_classes', num_things_classes, 1)
        check_integer('num_stuff_classes', num_stuff_classes, 1)
        check_not_negative('coarse_loss_weight', coarse_loss_weight)
        things = 1 if merge_things else num_things_classes
        super().__init__(
            num_classes=num_stuff_classes + things,
            loss_seg=loss_seg
            or dict(type='CrossEntropyLoss', ignore_index=_IGNORED, loss_weight=1.0),
            init_cfg=init_cfg
            or dict(type='Normal', std=0.01, override=dict(name='conv_logits')),
        )
        self.num_things_classes = num_things_classes
        self.num_stuff_classes = num_stuff_classes
        self.merge_things = merge_things
        self.coarse_loss_weight = coarse_loss_weight
        self.pyramid = None
        if context_channels is not None:
            check_integer('context_channels', context_channels, 1)
            self.pyramid = PyramidContext(in_channels[-1], context_channels, norm_cfg)
        self.conv_logits = nn.Conv2d(
            context_channels or in_channels[-1], self.num_classes, 1
        )
        self.decoder = MODELS.build(
            decoder_config(decoder, in_channels, self.num_classes)
        )

    def forward(self, x: FeatureMaps) -> dict[str, Tensor]:
        """Maps to logits.

        Args:
            x (FeatureMaps): With the backbone's maps, and the votes where the
                detector has regressed them.

        Returns:
            dict: ``seg_preds``, y_0, (N, C, H_0, W_0).

        Raises:
            TypeError: If the detector does not hand out the backbone's maps.
            ValueError: If these don't fit ``in_channels``.
        """
        return dict(seg_preds=self._decode(x)[0])

    def _decode(self, x: FeatureMaps) -> list[Tensor]:
        """Maps to y_0 … y_L."""
        if not isinstance(x, FeatureMaps):
            raise TypeError(
                "PVDSemanticHead needs the backbone's maps: give the detector "
                "type='PVDPanopticFPN'"
            )
        steps = len(self.decoder.in_channels) - 1
        maps = x.encoder[-steps - 1 :]
        given = [z.size(1) for z in maps]
        if given != list(self.decoder.in_channels):
            raise ValueError(
                f'in_channels={list(self.decoder.in_channels)} does not fit the '
                f"backbone's maps, which have {given} channels"
            )
        votes = self.decoder.votes(maps) if x.votes is None else x.votes[-steps:]
        top = maps[-1] if self.pyramid is None else self.pyramid(maps[-1])
        return self.decoder.decode(
            self.decoder.contexts(maps[1:]),
            votes,
            self.conv_logits(top),
            maps[0].shape[2:],
        )

    def loss(self, x: FeatureMaps, batch_data_samples: list[DetDataSample]) -> dict:
        """The loss against the labels at the pixels of z_0, and with
        ``coarse_loss_weight`` at those of the coarser maps.

        Args:
            x (FeatureMaps): See :meth:`forward`.
            batch_data_samples (list[DetDataSample]): With ``gt_sem_seg``, things with
                labels from 0 on, then stuff, 255 for void.

        Returns:
            dict[str, Tensor]: ``loss_seg``, and ``loss_seg_1`` and so on by level.
        """
        decoded = self._decode(x)
        labels = torch.stack([s.gt_sem_seg.sem_seg for s in batch_data_samples])
        if not self.coarse_loss_weight:
            decoded = decoded[:1]
        own = self.decoder.labels_of(self._own_labels(labels.long()), decoded)
        losses = {}
        for level, (logits, labels) in enumerate(zip(decoded, own)):
            loss = self.loss_seg(
                logits.permute(0, 2, 3, 1).flatten(0, 2), labels.flatten()
            )
            if level:
                losses[f'loss_seg_{level}'] = self.coarse_loss_weight * loss
            else:
                losses['loss_seg'] = loss
        return losses

    def _own_labels(self, labels: Tensor) -> Tensor:
        """Labels of the data to those of the head."""
        if not self.merge_things:
            return labels
        own = labels - self.num_things_classes
        own = own.where(own >= 0, own.new_tensor(self.num_stuff_classes))
        return own.where(labels != _IGNORED, labels)

    def predict_all(
        self, x: FeatureMaps, batch_img_metas: list[dict], rescale: bool = False
    ) -> list[Tensor]:
        """As :meth:`predict`, but logits of all C classes, (C, H, W)."""
        return super().predict(x, batch_img_metas, rescale)

    def predict(
        self, x: FeatureMaps, batch_img_metas: list[dict], rescale: bool = False
    ) -> list[Tensor]:
        """Logits for a fusion head.

        Args:
            x (FeatureMaps): See :meth:`forward`.
            batch_img_metas (list[dict]): Of the images.
            rescale (bool): To the size of the original. Defaults to False.

        Returns:
            list[Tensor]: (S + 1, H, W), stuff, then the best of the things.
        """
        logits = self.predict_all(x, batch_img_metas, rescale)
        if self.merge_things:
            return logits
        things = self.num_things_classes
        return [
            torch.cat([each[things:], each[:things].amax(0, keepdim=True)])
            for each in logits
        ]
