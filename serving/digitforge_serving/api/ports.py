"""Addresses that the server listens on."""

from __future__ import annotations

import socket

from digitforge_client.errors import DigitforgeError


def bracketed(host: str) -> str:
    """The host as addresses and URLs write it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def check_port(host: str, port: int, option: str) -> None:
    """Check that the port can be opened.

    Args:
        host: address to listen on.
        port: number of the port; 0: any free port.
        option: option that chooses the port, for the error.

    Raises:
        DigitforgeError: it cannot be opened.
    """
    try:
        family, socket_type, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket_type, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise port_error(host, port, option if port else "--host", error) from error


def port_error(host: str, port: int, option: str, error: OSError) -> DigitforgeError:
    """The error for a port that cannot be opened."""
    reason = (error.strerror or str(error)).lower()
    return DigitforgeError(f"cannot listen on {bracketed(host)}:{port}: {reason}; choose another {option}")
