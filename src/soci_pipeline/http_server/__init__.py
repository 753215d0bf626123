"""An HTTP/1.1 server for ASGI applications that bounds what each peer can cost.

The embedded registry and the receiver of events run behind it. It uses the public interfaces of asyncio and h11 only.
"""
