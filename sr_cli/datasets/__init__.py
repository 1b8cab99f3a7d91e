"""Images to measure and to train on.

`pairs`: which files belong together. `reduction`: how LR is made of HR; `degradation`: as cameras and websites would
leave it. `published`: the sets that have a name, in `archives`.
"""

from sr_cli.datasets.archives import unpack
from sr_cli.datasets.pairs import NO_LR, SUFFIXES, Dataset, Pair, from_folder, load, match, read_rgb
from sr_cli.datasets.published import NAMED, NamedSet, is_installed, named
from sr_cli.datasets.reduction import SCALE, crop_to_scale, reduce_aliased, reduce_image
