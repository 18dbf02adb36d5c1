"""`python -m zosfs` is `zosfs`."""

import sys

from zosfs.cli.main import main

sys.exit(main())
