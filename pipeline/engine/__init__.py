"""What computes: `base` is the seam, `engine` serves transformers' models behind it, `fake` pretends to.

Importing the package loads no tensor library; `loading` and what it needs do.
"""

import os

# transformers reads this when it is imported: code from the hub never stands in for a model's own layers.
os.environ.setdefault("USE_HUB_KERNELS", "NO")
