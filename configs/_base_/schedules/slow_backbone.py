# The backbone learns at a tenth of the rate of the heads, as in the recipes of Mask2Former and DINO. Its norms and
# layer scales do not decay. They are named, because norm_decay_mult does not apply to a parameter that matches a key,
# and MMEngine takes the longest key that is part of the name. The keys of the layer scales hold the last digit of a
# block: they are as long as `backbone`, and come first in the alphabet.
without_decay = [
    'patch_embed.norms',
    *[f'downsamples.{i}.norm' for i in range(3)],
    *[f'norm{i}.{name}' for i in (1, 2) for name in ('weight', 'bias')],
    *[f'{digit}.gamma{i}' for digit in range(10) for i in (1, 2)],
]
slow_backbone = {
    'backbone': dict(lr_mult=0.1, decay_mult=1.0),
    **{key: dict(lr_mult=0.1, decay_mult=0.0) for key in without_decay},
}
