"""A leaner transport than grpc.aio: gRPC over HTTP/2 on the event loop's own sockets.

frames -> headers, messages -> connection -> listener. No thread beside the loop's, and no wake-up
between a request's bytes and its handler; see docs/performance.md for what that is worth.
"""
