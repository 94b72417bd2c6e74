"""``python -m mmstvit.doctor``: what is wrong with an installation, and the command that mends it.

Nothing here is imported with the package but this page: the doctor begins where torch itself may be missing.
"""

import sys


def is_starting() -> bool:
    """Whether this process is ``python -m mmstvit.doctor`` and on its way there.

    Python imports ``mmstvit`` first, which would stop at the very fault that the doctor is to name. While it does so,
    ``sys.argv[0]`` is ``'-m'``, and the module stands in front of its arguments in ``sys.orig_argv``.
    """
    return sys.argv[:1] == ['-m'] and sys.orig_argv[-len(sys.argv)].removeprefix('-m') == __name__
