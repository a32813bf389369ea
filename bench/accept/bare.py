"""The least that aiohttp and pydantic can do: read a body, validate it, answer. No token, no journal, no log."""

from __future__ import annotations

import sys

from aiohttp import web

from sidecar.sources.dockerhub import Push


async def receive(request: web.Request) -> web.Response:
    """Validate a body and answer with its repository."""
    push = Push.model_validate_json(await request.read())
    return web.json_response({"hints": [push.repository.repo_name]}, status=202)


if __name__ == "__main__":
    application = web.Application()
    application.router.add_post("/", receive)
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
