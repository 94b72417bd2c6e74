"""Checkpoints that are damaged, harmful, or of another model."""

import os
from pathlib import Path

import torch

from mmstvit.checkpoint import convert_to_official
from mmstvit.models import STViT

from ..helpers import Harm
from .case import CONFIG, TEST, TRAIN, case, save, weights

INIT = 'model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint'
TO_MM = 'tools/model_converters/stvit_to_mm.py'
FROM_MM = 'tools/model_converters/mm_to_stvit.py'
PUBLISH = 'tools/model_converters/publish_model.py'
DEPLOY = f'tools/model_converters/reparameterize_model.py {CONFIG}'
SMALL = 'configs/mask_rcnn/mask-rcnn_stvit-small_fpn_1x_coco.py'


def published(**changed: torch.Tensor) -> None:
    """Write a checkpoint of the official implementation."""
    save(dict(model=convert_to_official(weights(**changed))), 'published.pth')


case('a missing file', f'{TEST} gone.pth', 'gone.pth does not exist')
case('a missing file to resume from', f'{TRAIN} --resume gone.pth', 'gone.pth does not exist')
case(
    'missing pretrained weights',
    f'tools/train.py {SMALL}',
    'checkpoints/stvit-small-224.pth',
    'Download the weights',
    'model.backbone.init_cfg=None',
)


for place, command in {
    'to test': f'{TEST} run',
    'to predict': 'tools/predict.py run photos',
    'to export': f'tools/deployment/export.py --format onnx {CONFIG} run',
    'to train from': f'{TRAIN} --cfg-options load_from=run',
    'to resume from': f'{TRAIN} --resume run',
}.items():

    @case(f'a folder of checkpoints {place}', command, 'run is a folder', 'run/epoch_2.pth')
    def _() -> None:
        Path('run').mkdir()
        for epoch in (10, 2):
            os.utime(save(dict(state_dict=weights()), f'run/epoch_{epoch}.pth'), (0, 100 - epoch))


case('a folder without checkpoints', f'{TEST} data', 'data is a folder', 'none in it')


@case('the beginning of a file', f'{TEST} begun.pth', 'begun.pth', 'truncated')
def _() -> None:
    whole = save(dict(state_dict=weights()), 'begun.pth').read_bytes()
    Path('begun.pth').write_bytes(whole[: len(whole) // 2])


@case('a flipped bit', f'{TEST} flipped.pth', 'flipped.pth', 'checksum')
def _() -> None:
    path = save(dict(state_dict=weights()), 'flipped.pth')
    content = bytearray(path.read_bytes())
    content[content.index(weights()['head.fc.bias'].numpy().tobytes())] ^= 1
    path.write_bytes(content)


case('a web page, as a failed download leaves it', f'{TEST} page.pth', 'page.pth', 'web page')(
    lambda: Path('page.pth').write_text('<!DOCTYPE html><html><head><title>Quota exceeded</title></head></html>')
)


for place, command in {
    'in a test': f'{TEST} harmful.pth',
    'in pretrained weights': f'{TRAIN} --cfg-options {INIT}=harmful.pth',
    'in load_from': f'{TRAIN} --cfg-options load_from=harmful.pth',
    'when resuming': f'{TRAIN} --resume harmful.pth',
    'in a file to convert': f'{TO_MM} harmful.pth converted.pth',
    'in a file to publish': f'{PUBLISH} harmful.pth published.pth',
    'in a file to deploy': f'{DEPLOY} harmful.pth deployed.pth',
}.items():

    @case(f'code that would be executed, {place}', command, 'harmful.pth', 'mkdir', 'safetensors')
    def _() -> None:
        save(dict(state_dict=weights(), meta=Harm(os.mkdir, 'executed')), 'harmful.pth')


case('an address of an object store', f'{TEST} s3://bucket/a.pth', 's3://bucket/a.pth', '--trust-checkpoint')


for place, command in {
    'to test': f'{TEST} nan.pth',
    'to publish': f'{PUBLISH} nan.pth published.pth',
    'to deploy': f'{DEPLOY} nan.pth deployed.pth',
}.items():

    @case(f'NaN in a weight {place}', command, 'nan.pth', 'backbone.stages.1.0.attn.qkv.weight', 'NaN')
    def _() -> None:
        bad = weights()
        bad['backbone.stages.1.0.attn.qkv.weight'][3, 5] = float('nan')
        save(dict(state_dict=bad), 'nan.pth')


case('Inf in published weights to convert', f'{TO_MM} published.pth converted.pth', 'published.pth', 'Inf')(
    lambda: published(head__fc__bias=torch.full((len(weights()['head.fc.bias']),), float('inf')))
)
case('weights of another network', f'{TEST} resnet.pth', 'resnet.pth', 'backbone')(
    lambda: save(
        dict(state_dict={'conv1.weight': torch.zeros(64, 3, 7, 7), 'fc.bias': torch.zeros(1000)}), 'resnet.pth'
    )
)
case('a head for other classes', f'{TEST} classes.pth', 'classes.pth', 'head.fc.bias')(
    lambda: save(dict(state_dict=weights(head__fc__bias=torch.zeros(7))), 'classes.pth')
)
case('weights of another size', f'{TRAIN} --cfg-options {INIT}=small.pth', 'small.pth', 'STViT-small', 'arch')(
    lambda: save(dict(state_dict=STViT('small').state_dict()), 'small.pth')
)
case(
    'weights for other channels',
    f'{TEST} rgb.pth --cfg-options model.backbone.in_channels=1 data_preprocessor.mean=[128.0] '
    'data_preprocessor.std=[64.0] test_dataloader.dataset.pipeline.0.color_type=grayscale',
    'rgb.pth',
    'in_channels=1',
    '--in-channels 1',
)(lambda: save(dict(state_dict=weights()), 'rgb.pth'))


@case('a part of a backbone', f'{TRAIN} --cfg-options {INIT}=part.pth', 'part.pth', 'stages.2')
def _() -> None:
    kept = {name: tensor for name, tensor in weights().items() if 'stages.2' not in name}
    save(dict(state_dict=kept), 'part.pth')


case(
    'a prefix that no weight has',
    f'{TRAIN} --cfg-options {INIT}=own.pth model.backbone.init_cfg.prefix=net',
    'own.pth',
    "'net.'",
)(lambda: save(dict(state_dict=weights()), 'own.pth'))
case('a file without weights', f'{TEST} log.pth', 'log.pth', 'weights')(
    lambda: save(dict(epoch=3, loss=[0.5, 0.25]), 'log.pth')
)
case('weights alone, to resume from', f'{TRAIN} --resume weights.pth', 'optimizer', 'load_from=weights.pth')(
    lambda: save(dict(state_dict=weights()), 'weights.pth')
)


@case('deploy form, for a model in training form', f'{TEST} deployed.pth', 'deployed.pth', 'deploy=True')
def _() -> None:
    torch.manual_seed(0)
    model = STViT('nano').eval()
    model.switch_to_deploy()
    backbone = {f'backbone.{name}': tensor for name, tensor in model.state_dict().items()}
    rest = {name: tensor for name, tensor in weights().items() if not name.startswith('backbone.')}
    save(dict(state_dict={**backbone, **rest}), 'deployed.pth')


@case('a target that exists', f'{TO_MM} published.pth taken.pth', 'taken.pth', '--force')
def _() -> None:
    published()
    Path('taken.pth').write_text('precious')


case('a target that is the source', f'{TO_MM} published.pth published.pth --force', 'published.pth')(published)
case('an official checkpoint, to be converted into one', f'{FROM_MM} published.pth converted.pth', 'already')(published)
case('a missing key in the file', f'{TO_MM} published.pth a.pth --key model_ema', 'published.pth', 'model_ema')(
    published
)
case('two channels from three', f'{TO_MM} published.pth a.pth --in-channels 2', 'published.pth', '2')(published)


case('our layout, to be converted to ours', f'{TO_MM} own.pth converted.pth', 'own.pth', 'already')(
    lambda: save(dict(state_dict=weights()), 'own.pth')
)
case('a published file with an unknown key', f'{TO_MM} extra.pth converted.pth', 'extra.pth', 'extra.key')(
    lambda: save(dict(model={**convert_to_official(weights()), 'extra.key': torch.zeros(2)}), 'extra.pth')
)


@case('a published file that lacks a weight', f'{TO_MM} lacks.pth converted.pth', 'lacks.pth', 'stages.0.0')
def _() -> None:
    official = convert_to_official(weights())
    del official['layers.0.blocks.0.mlp2.fc1.bias']
    save(dict(model=official), 'lacks.pth')


case('a checkpoint of another config, to be deployed', f'{DEPLOY} other.pth deployed.pth', 'other.pth', 'head.fc.bias')(
    lambda: save(dict(state_dict=weights(head__fc__bias=torch.zeros(9))), 'other.pth')
)
