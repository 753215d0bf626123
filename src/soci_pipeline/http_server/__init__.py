"""An HTTP/1.1 server for ASGI applications that limits the resources each peer can use.

The embedded registry and the webhook receiver run on it. It uses only the public interfaces of asyncio and h11.
"""
