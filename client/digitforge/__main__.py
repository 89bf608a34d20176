"""``python -m digitforge``: the command."""

from digitforge_client.common.command import main

main()
