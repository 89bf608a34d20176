"""The command ``digitforge certificates``."""

from __future__ import annotations

from pathlib import Path

import click

from digitforge_serving.config.certificates import SSL_CONFIG, make


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("tls"), show_default=True, help="A new folder.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    default=("localhost", "127.0.0.1", "::1"),
    show_default=True,
    help="A name or an address of the server; may be given several times.",
)
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="How long they are valid.")
@click.option("--mutual", is_flag=True, help="Let the server refuse clients without a certificate of this authority.")
def certificates(out: Path, hosts: tuple[str, ...], days: int, mutual: bool) -> None:
    """Make certificates for development: an authority, a server, a client.

    The folder also gets ssl.config, which TensorFlow Serving and `digitforge serve` take as --ssl_config_file.
    Not for production: the keys lie beside their certificates.
    """
    make(out, hosts, days=days, mutual=mutual)
    click.echo(f"server: --ssl_config_file={out / SSL_CONFIG}")
    shown = ["ca.crt", *(("client.crt", "client.key") if mutual else ())]
    click.echo(f"clients: {', '.join(str(out / name) for name in shown)}")
