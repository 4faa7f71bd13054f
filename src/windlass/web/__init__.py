"""The dashboard: an ASGI app to serve (`windlass dashboard`), or to mount in another. Needs `windlass[dashboard]`."""

from windlass.web.dashboard import Dashboard
from windlass.web.users import Role, User

__all__ = ["Dashboard", "Role", "User"]
