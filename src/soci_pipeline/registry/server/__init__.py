"""The embedded registry: the OCI distribution spec 1.1, stored as a folder with one OCI layout per repository."""

from soci_pipeline.registry.server.app import create_app
from soci_pipeline.registry.server.authentication import Login
from soci_pipeline.registry.server.serving import serving
from soci_pipeline.registry.server.settings import ServerSettings
from soci_pipeline.registry.server.storage import Storage

__all__ = ["Login", "ServerSettings", "Storage", "create_app", "serving"]
