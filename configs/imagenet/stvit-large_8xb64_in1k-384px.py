_base_ = './stvit-small_8xb64_in1k-384px.py'

load_from = 'checkpoints/stvit-large-224.pth'
model = dict(backbone=dict(arch='large', drop_path_rate=0.6), neck=dict(in_channels=640))
