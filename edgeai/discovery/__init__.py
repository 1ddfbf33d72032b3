"""Servers on the local network find each other and are found, by multicast DNS (RFC 6762) and DNS-SD (RFC 6763)."""
