"""Services that tests talk to: real HTTP servers on the loopback, written from what is known of the real ones."""
