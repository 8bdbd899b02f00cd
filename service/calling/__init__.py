"""How a server is called: what both clients of `service.client` and `jaxnn bench-serve` share."""
