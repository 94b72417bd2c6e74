"""Find the faults of a data set: what ``tools/misc/verify_dataset.py`` runs."""

from .dataset import collect
from .faults import Fault, Report, Split
from .run import verify

__all__ = ['Fault', 'Report', 'Split', 'collect', 'verify']
