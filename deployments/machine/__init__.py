"""How a machine on AWS becomes a worker, a receiver or a Prefect server."""
