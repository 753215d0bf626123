"""`python -m local_stack demo`, which `make demo` runs in a checkout, and `python -m local_stack engine`.

They are not commands of `soci-pipeline`, because the wheel has neither the flows nor the example. Their results, errors
and exit statuses have the same form.
"""

import sys

from soci_pipeline import cli
from soci_pipeline.commands.command import LazyGroup

GROUP = LazyGroup(
    "python -m local_stack",
    "local_stack",
    {
        "demo": ("demo:run", "publish an example for two platforms in a local stack"),
        "engine": ("engine_command:run", "run a private Docker engine until Ctrl-C, if the machine has none"),
    },
    help="Run the project's services on this machine.",
)

if __name__ == "__main__":
    sys.exit(cli.main(group=GROUP))
