"""Loads on a gRPC server: the generator in C++, the messages, and the servers that take turns."""
