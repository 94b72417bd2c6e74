"""The shell launchers: what they hand to srun, and what they say when arguments are missing."""

import pytest

PREFIX = ['-p', 'part', '--job-name=job', '--gres=gpu:4', '--ntasks=16', '--ntasks-per-node=4', '--cpus-per-task=5']


@pytest.mark.parametrize(
    ('script', 'args', 'tail'),
    [
        ('slurm_train.sh', ['my config.py', 'work dir'], ['my config.py', '--work-dir=work dir', '--launcher=slurm']),
        ('slurm_test.sh', ['my config.py', 'a.pth'], ['my config.py', 'a.pth', '--launcher=slurm']),
    ],
)
def test_slurm_gets_every_option_whole(tool, tmp_path, script, args, tail):
    srun = tmp_path / 'bin' / 'srun'
    srun.parent.mkdir()
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    env = {
        'PATH': f'{srun.parent}:/usr/bin:/bin',
        'GPUS': '16',
        'GPUS_PER_NODE': '4',
        'SRUN_ARGS': '--qos=high -x node1',
    }
    done = tool(script, 'part', 'job', *args, '--cfg-options', 'a="b c"', cwd=tmp_path, env=env)
    lines = done.stdout.splitlines()
    assert lines[:7] == PREFIX
    assert lines[7:13] == ['--kill-on-bad-exit=1', '--qos=high', '-x', 'node1', 'python', '-u']
    assert lines[13].endswith(script.replace('slurm_', '').replace('.sh', '.py'))
    assert lines[14:] == [*tail, '--cfg-options', 'a="b c"']


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_missing_arguments_print_the_usage(tool, script):
    done = tool(script, 'one', code=2)
    assert f'tools/{script}' in done.stderr and 'Environment:' in done.stderr
