_base_ = './stvit-large_8xb128_in1k.py'

# FSDP shards weights, gradients and optimizer states over the processes: run tools/dist_train.sh.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='mmstvit.FSDPStrategy',
    model_wrapper=dict(
        type='MMFullyShardedDataParallel',
        auto_wrap_policy=dict(type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy', min_num_params=1_000_000),
    ),
    # Unsharded checkpoints: one file, which any number of processes can load.
    state_dict_cfg='full',
)
