"""The studio's API: the modules beside this one declare its operations."""

from __future__ import annotations

from harken.web.operations import Api

API = Api("Harken studio", "Every error has the shape {error: {code, message, hint}}. Calls by cookie that change something "
                           "carry X-Harken-CSRF, the value of `csrf` in GET /api/me.")
operation = API.operation
