"""Carry it: octets between two connected ends."""
