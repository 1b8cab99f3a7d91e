"""Ways to run a folded generator: torch itself, and what else is installed.

`registry` lists them: one class each, which says on which devices and in which precisions it runs, what must be
installed, and whether threads may share its networks. `base` is what they have in common. All agree within 1 of 255
levels in the same precision. Importing this package imports none of them, nor torch.
"""

from sr_cli.inference.backends.base import Backend, Forward, FunctionNetwork, Network
from sr_cli.inference.backends.registry import BACKENDS, NAMES, REPAYS_AFTER, choose, get, preferred, prepare, usable
