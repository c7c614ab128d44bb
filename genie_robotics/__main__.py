"""`python -m genie_robotics` is the command `genie-robotics`."""

import sys

from genie_robotics.cli import main

sys.exit(main())
