"""The processes of a distributed run: join them at the start, work in one of them, leave them at the end."""

import errno
import fcntl
import gc
import os
import platform
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TextIO, TypeVar

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import broadcast_object_list, init_dist, is_distributed, is_main_process
from mmengine.logging import print_log
from mmengine.utils.dl_utils import set_multi_processing
from torch import distributed

from mmstvit.compat import local_buffers, stop_workers
from mmstvit.dependencies import tool_command
from mmstvit.errors import UserError, one_line

T = TypeVar('T')
LOCK = '.mmstvit-lock'


def start_processes(cfg: Config) -> None:
    """Join the processes of the launcher before the runner does: with the config's backend, or gloo without a GPU.

    What follows knows the number of processes and the rank. MMEngine's runners leave a group that exists as it
    is; on their own they assume CUDA devices and nccl.

    Raises:
        UserError: The launcher needs GPUs, and there are none.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none':
        return
    if torch.cuda.is_available():
        if not is_distributed():
            env = cfg.get('env_cfg') or {}
            set_multi_processing(**env.get('mp_cfg', {}), distributed=True)
            init_dist(launcher, **env.get('dist_cfg', {}))
        return
    if launcher != 'pytorch':
        raise UserError(
            f'--launcher {launcher} needs GPUs, and there are none.',
            f'On CPU use --launcher pytorch: {tool_command("dist_train.sh")} CONFIG PROCESSES',
        )
    if not is_distributed():
        distributed.init_process_group('gloo')
    wrapper = cfg.get('model_wrapper_cfg')
    if wrapper is None:  # MMEngine's default
        unused = cfg.get('find_unused_parameters', False)
        wrapper = ConfigDict(find_unused_parameters=unused, **local_buffers())
    cfg.model_wrapper_cfg = ConfigDict({'type': 'MMDistributedDataParallel', **wrapper, 'device_ids': None})
    print_log('no GPU: processes communicate through gloo', logger='current')
    if cfg.get('sync_bn'):
        cfg.sync_bn = None
        print_log('no GPU: BatchNorm is not synchronized (PyTorch does that on GPUs only)', logger='current')


def on_main_process(function: Callable[[], T]) -> T | None:
    """Call a function in the main process; the others wait until it returns.

    If it raises an error, the main process raises it too, and the others exit with 1 and say nothing: one message
    comes from one command. All leave the process group first, so that none waits for another.

    Args:
        function: The function.

    Returns:
        What the function returns; None in the other processes.
    """
    result, done = None, [False]
    try:
        if is_main_process():
            result = function()
            done = [True]
    finally:
        broadcast_object_list(done)
        if not done[0]:
            leave_process_group()
    if not done[0]:
        exit_silently()
    return result


def exit_silently() -> NoReturn:
    """End with exit code 1 after the main process has spoken: torchrun ends all processes when the first one fails."""
    time.sleep(1)
    sys.exit(1)


def lock_work_dir(work_dir: str, try_only: bool = False, option: str = '--work-dir') -> TextIO | None:
    """Lock a folder of results until the file that is returned is closed or this process ends, however it ends.

    Args:
        work_dir: The work dir; made if needed.
        try_only: Write nothing, and release the lock.
        option: Option of the command that names the folder.

    Raises:
        UserError: Another run has locked it, or it cannot be written.
    """
    path = Path(work_dir, LOCK)
    if try_only and not path.exists():
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and not _is_own_file(path):
            raise UserError(f'{path} is a link, or no file of its own.', 'Remove it: it only locks the folder.')
        file = open(path, 'a+', opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW))  # noqa: SIM115
    except OSError as error:
        raise UserError(f'the folder {work_dir} cannot be written: {error.strerror}.') from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return file  # a file system without locks
        file.seek(0)
        owner = one_line(file.read(200)) or 'unknown'
        raise UserError(
            f'another run writes to {work_dir}: {owner}.',
            f'Wait until it ends, stop it, or name another folder with {option}.',
        ) from error
    if try_only:
        return file.close()
    file.truncate(0)
    file.write(f'{platform.node()}, process {os.getpid()}')
    file.flush()
    return file


def _is_own_file(path: Path) -> bool:
    """Return True for a regular file with one name: what is written into it changes no other file."""
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def leave_process_group() -> None:
    """Leave the process group when all processes are done and the runner is gone.

    Otherwise the threads of the group outlive the interpreter, which then sometimes aborts.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        stop_workers()
        gc.collect()  # the runner refers to itself; its model and optimizer hold the group
        distributed.destroy_process_group()
