"""The command ``digitforge certificates``."""

from __future__ import annotations

from pathlib import Path

import click

from digitforge_serving.config.certificates import SSL_CONFIG, make


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("tls"), show_default=True, help="Folder to create."
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    default=("localhost", "127.0.0.1", "::1"),
    show_default=True,
    help="Host name or IP address of the server. Can be repeated.",
)
@click.option(
    "--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="Days that the certificates are valid."
)
@click.option("--mutual", is_flag=True, help="Require clients to show a certificate from this authority.")
def certificates(out: Path, hosts: tuple[str, ...], days: int, mutual: bool) -> None:
    """Create certificates for development: an authority, a server and a client.

    Also writes ssl.config, the --ssl_config_file for TensorFlow Serving and `digitforge serve`.
    Do not use the certificates in production: their private keys are in the same folder.

    \b
    Examples:
      digitforge certificates --host digits.example.org
      digitforge certificates --out tls --mutual --days 7
    """
    make(out, hosts, days=days, mutual=mutual)
    click.echo(f"server: --ssl_config_file={out / SSL_CONFIG}")
    shown = ["ca.crt", *(("client.crt", "client.key") if mutual else ())]
    click.echo(f"clients: {', '.join(str(out / name) for name in shown)}")
