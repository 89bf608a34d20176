"""``python -m digitforge`` runs the command ``digitforge``."""

from digitforge_client.common.command import main

main()
