"""Who sends addresses where names could be."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from socksd.address import Destination
from socksd.codes import Command
from socksd.events import SessionClosed, SessionOpened
from socksd.observe import leaks as module
from socksd.observe.leaks import Leaks
from tests.observe.closed import SERVED

ONE, TWO = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")


def to(
    host: str, client: IPv4Address = ONE, user: str | None = None, at: float = 1.0
) -> SessionClosed:
    destination = Destination.named(host, 443)
    return replace(SERVED, client=client, user=user, destination=destination, started=at)


def test_names_and_addresses_are_told_apart() -> None:
    leaks = Leaks()
    for event in (to("a.example", at=2.0), to("198.51.100.1", at=3.0), to("::1", at=1.0)):
        leaks(event)
    leaks(SessionOpened(1, ONE, 1, "office"))
    leaks(replace(SERVED, destination=None))
    ((caller, asked),) = leaks
    assert caller == (ONE, None)
    assert (asked.names, asked.addresses, asked.since, asked.last) == (1, 2, 2.0, 3.0)
    assert asked.top == {Destination(IPv4Address("198.51.100.1"), 443): 1, to("::1").destination: 1}


def test_the_peer_of_a_bind_is_no_leak() -> None:
    """Clients take its address from a connection that they have, and ask nobody."""
    leaks = Leaks()
    leaks(replace(to("198.51.100.1"), command=Command.BIND))
    assert len(leaks) == 0


def test_where_an_association_is_asked_for_from_is_no_leak() -> None:
    leaks = Leaks()
    leaks(replace(to("0.0.0.0"), command=Command.UDP_ASSOCIATE))
    assert len(leaks) == 0


def test_who_sends_names_only_is_counted_but_not_reported() -> None:
    leaks = Leaks()
    leaks(to("a.example"))
    assert list(leaks) == []
    assert len(leaks) == 1


def test_users_behind_one_address_are_reported_each_the_worst_first() -> None:
    leaks = Leaks()
    for user in ("alice", "bob", "bob", None):
        leaks(to("198.51.100.1", user=user))
    assert [caller for caller, _ in leaks] == [(ONE, "bob"), (ONE, "alice"), (ONE, None)]


def test_clients_are_forgotten_by_when_they_last_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS", 2)
    leaks = Leaks()
    three = IPv4Address("192.0.2.3")
    for client in (ONE, TWO, ONE, three):
        leaks(to("198.51.100.1", client))
    assert {client for (client, _), _ in leaks} == {ONE, three}


def test_a_frequent_destination_stays_whatever_passes_by() -> None:
    leaks = Leaks()
    for number in range(1000):
        leaks(to("198.51.100.1"))
        leaks(to(f"203.0.{number // 250}.{number % 250}"))
    ((_, asked),) = leaks
    assert len(asked.top) == module.DESTINATIONS
    favourite = max(asked.top, key=lambda destination: asked.top[destination])
    assert favourite.host == IPv4Address("198.51.100.1")
    assert asked.addresses == 2000
