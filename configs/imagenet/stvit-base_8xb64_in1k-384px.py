_base_ = './stvit-small_8xb64_in1k-384px.py'

load_from = 'checkpoints/stvit-base-224.pth'
model = dict(backbone=dict(arch='base', drop_path_rate=0.4))
