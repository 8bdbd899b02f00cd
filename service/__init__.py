"""The gRPC service around a jaxnn model, and its client.

service.server.serve(ServiceConfig(), model_path)    a server, until a signal ends it
service.client.DigitClient("127.0.0.1:50051")        a client; imports no JAX
"""
