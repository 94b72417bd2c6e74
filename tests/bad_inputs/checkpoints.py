"""Files that are no checkpoint, damaged ones, harmful ones, and those of another model."""

import functools
import json
import os
import pickle
import tarfile
from pathlib import Path

import torch

from mmstvit.checkpoint import convert_to_official
from mmstvit.models import STViT

from .case import CONFIG, TEST, TRAIN, case, save, weights

checkpoint = functools.partial(case, 'Checkpoints')
INIT = 'model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint'
TO_MM = 'tools/model_converters/stvit_to_mm.py'
FROM_MM = 'tools/model_converters/mm_to_stvit.py'
PUBLISH = 'tools/model_converters/publish_model.py'
DEPLOY = f'tools/model_converters/reparameterize_model.py {CONFIG}'

checkpoint('A file that is not there', f'{TEST} gone.pth', 'gone.pth does not exist')


@checkpoint('A folder', f'{TEST} folder.pth', 'is a folder')
def _() -> None:
    Path('folder.pth').mkdir()


@checkpoint('Zero bytes', f'{TEST} empty.pth', 'is empty')
def _() -> None:
    Path('empty.pth').touch()


@checkpoint('The beginning of a file', f'{TEST} begun.pth', 'truncated')
def _() -> None:
    whole = save(dict(state_dict=weights()), 'begun.pth').read_bytes()
    assert len(whole) > 2_000_000
    Path('begun.pth').write_bytes(whole[:1_000_000])


@checkpoint('One flipped bit', f'{TEST} flipped.pth', 'checksum')
def _() -> None:
    path = save(dict(state_dict=weights()), 'flipped.pth')
    content = bytearray(path.read_bytes())
    content[content.index(weights()['head.fc.bias'].numpy().tobytes())] ^= 1
    path.write_bytes(content)


@checkpoint('A web page, as a failed download from a drive leaves it', f'{TEST} page.pth', 'Google Drive')
def _() -> None:
    Path('page.pth').write_text('<!DOCTYPE html><html><head><title>Quota exceeded</title></head></html>')


@checkpoint('A pointer of Git LFS', f'{TEST} pointer.pth', 'git lfs pull')
def _() -> None:
    Path('pointer.pth').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n')


@checkpoint('A text', f'{TEST} notes.pth', 'text file')
def _() -> None:
    Path('notes.pth').write_text('The weights are on the other disk.\n')


@checkpoint('A tar archive', f'{TEST} archive.pth', 'unpack it first')
def _() -> None:
    save(dict(state_dict=weights()), 'inner.pth')
    with tarfile.open('archive.pth', 'w') as archive:
        archive.add('inner.pth')


@checkpoint('An image', f'{TEST} image.pth', 'a PNG image')
def _() -> None:
    Path('image.pth').write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(100))


@checkpoint('A TorchScript program', f'{TEST} script.pth', 'TorchScript')
def _() -> None:
    torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)), 'script.pth')


@checkpoint('A pickle of something else', f'{TEST} list.pth', 'a pickle of something else')
def _() -> None:
    Path('list.pth').write_bytes(pickle.dumps([1, 2, 3]))


@checkpoint('A damaged safetensors file', f'{TEST} damaged.safetensors', 'damaged')
def _() -> None:
    header = json.dumps({'a': {'dtype': 'F32', 'shape': [9], 'data_offsets': [0, 36]}}).encode()
    Path('damaged.safetensors').write_bytes(len(header).to_bytes(8, 'little') + header + bytes(4))


class Harmful:
    """Unpickled, it creates a folder; the test sees that none is there."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ('executed',)


for what, command in {
    'Code that would be executed, in a test': f'{TEST} harmful.pth',
    'Code that would be executed, in pretrained weights': f'{TRAIN} --cfg-options {INIT}=harmful.pth',
    'Code that would be executed, in `load_from`': f'{TRAIN} --cfg-options load_from=harmful.pth',
    'Code that would be executed, when resuming': f'{TRAIN} --resume harmful.pth',
    'Code that would be executed, in a file to convert': f'{TO_MM} harmful.pth converted.pth',
    'Code that would be executed, in a file to publish': f'{PUBLISH} harmful.pth published.pth',
}.items():

    @checkpoint(what, command, 'nothing of it was executed')
    def _() -> None:
        save(dict(state_dict=weights(), meta=Harmful()), 'harmful.pth')


checkpoint('An address that only an executing loader reads', f'{TEST} s3://bucket/a.pth', '--trust-checkpoint')


@checkpoint('NaN in a weight', f'{TEST} nan.pth', 'NaN')
def _() -> None:
    bad = weights()
    bad['backbone.stages.1.0.attn.qkv.weight'][3, 5] = float('nan')
    save(dict(state_dict=bad), 'nan.pth')


@checkpoint('Inf in published weights to convert', f'{TO_MM} inf.pth converted.pth', 'Inf')
def _() -> None:
    bad = weights()
    bad['head.fc.bias'][0] = float('inf')
    save(dict(model=convert_to_official(bad)), 'inf.pth')


@checkpoint('Weights of another network', f'{TEST} resnet.pth', 'only 0 of the')
def _() -> None:
    save(dict(state_dict={'conv1.weight': torch.zeros(64, 3, 7, 7), 'fc.bias': torch.zeros(1000)}), 'resnet.pth')


@checkpoint('A head for other classes, in a test', f'{TEST} classes.pth', 'Is it the checkpoint of another config?')
def _() -> None:
    save(dict(state_dict={**weights(), 'head.fc.bias': torch.zeros(7)}), 'classes.pth')


@checkpoint('Weights of another size', f'{TRAIN} --cfg-options {INIT}=small.pth', 'this is STViT-small')
def _() -> None:
    save(dict(state_dict=STViT('small').state_dict()), 'small.pth')


@checkpoint(
    'Weights for other channels', f'{TEST} rgb.pth --cfg-options model.backbone.in_channels=1', '--in-channels 1'
)
def _() -> None:
    save(dict(state_dict=weights()), 'rgb.pth')


@checkpoint('A part of a backbone', f'{TRAIN} --cfg-options {INIT}=part.pth', 'has only')
def _() -> None:
    kept = {name: tensor for name, tensor in weights().items() if 'stages.2' not in name}
    save(dict(state_dict=kept), 'part.pth')


@checkpoint(
    'A prefix that no weight has',
    f'{TRAIN} --cfg-options {INIT}=own.pth model.backbone.init_cfg.prefix=net',
    "prefix 'net.'",
)
def _() -> None:
    save(dict(state_dict=weights()), 'own.pth')


@checkpoint('A file without weights', f'{TEST} log.pth', 'weights')
def _() -> None:
    save(dict(epoch=3, loss=[0.5, 0.25]), 'log.pth')


@checkpoint('Weights alone, to resume from', f'{TRAIN} --resume weights.pth', 'load_from=weights.pth')
def _() -> None:
    save(dict(state_dict=weights()), 'weights.pth')


@checkpoint('The inference form, for a model that is not in it', f'{TEST} deployed.pth', 'deploy')
def _() -> None:
    torch.manual_seed(0)
    model = STViT('nano').eval()
    model.switch_to_deploy()
    kept = {f'backbone.{name}': tensor for name, tensor in model.state_dict().items()}
    save(
        dict(state_dict={**kept, **{k: v for k, v in weights().items() if not k.startswith('backbone.')}}),
        'deployed.pth',
    )


@checkpoint('A target that exists', f'{TO_MM} published.pth taken.pth', '--force')
def _() -> None:
    save(dict(model=convert_to_official(weights())), 'published.pth')
    Path('taken.pth').write_text('precious')


@checkpoint(
    'A target that is the source, whatever is forced', f'{TO_MM} published.pth published.pth --force', 'to read'
)
def _() -> None:
    save(dict(model=convert_to_official(weights())), 'published.pth')


@checkpoint('Our layout, to be converted to ours', f'{TO_MM} own.pth converted.pth', 'our layout already')
def _() -> None:
    save(dict(state_dict=weights()), 'own.pth')


@checkpoint("The release's layout, to be converted to it", f'{FROM_MM} published.pth converted.pth', 'already')
def _() -> None:
    save(dict(model=convert_to_official(weights())), 'published.pth')


@checkpoint('A published file with a key too many', f'{TO_MM} extra.pth converted.pth', 'extra.key')
def _() -> None:
    save(dict(model={**convert_to_official(weights()), 'extra.key': torch.zeros(2)}), 'extra.pth')


@checkpoint('A published file that lacks a weight', f'{TO_MM} lacks.pth converted.pth', 'stages.0.0')
def _() -> None:
    published = convert_to_official(weights())
    del published['layers.0.blocks.0.mlp2.fc1.bias']
    save(dict(model=published), 'lacks.pth')


@checkpoint(
    'A place in the file that is not there', f'{TO_MM} published.pth converted.pth --key model_ema', 'model_ema'
)
def _() -> None:
    save(dict(model=convert_to_official(weights())), 'published.pth')


@checkpoint('Two channels from three', f'{TO_MM} published.pth converted.pth --in-channels 2', '2')
def _() -> None:
    save(dict(model=convert_to_official(weights())), 'published.pth')


@checkpoint('A checkpoint of another config, to be deployed', f'{DEPLOY} other.pth deployed.pth', 'does not fit')
def _() -> None:
    other = weights()
    other['head.fc.bias'] = torch.zeros(9)
    save(dict(state_dict=other), 'other.pth')
