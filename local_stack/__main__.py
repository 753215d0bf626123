"""Run `python -m local_stack demo`, as `make demo` does in a checkout.

It is not a command of `soci-pipeline`, since an installed package has neither the flows nor the example; its results,
errors and exit statuses have the same form.
"""

import sys

from soci_pipeline import cli
from soci_pipeline.commands.command import LazyGroup

GROUP = LazyGroup(
    "python -m local_stack",
    "local_stack",
    {"demo": ("demo:run", "publish an example for two platforms in a local stack")},
    help="Run the project's services on this machine.",
)

if __name__ == "__main__":
    sys.exit(cli.main(group=GROUP))
