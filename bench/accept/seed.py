"""The design that Sidecar began from: FastAPI, uvicorn, a background task for each push. Needs requirements/bench.txt.

What it did outside itself (the callback to Docker Hub, the pull) is a task that does nothing; its list of trusted
accounts is on. No token, no journal, no log line: it had none.
"""

from __future__ import annotations

import logging
import sys
from datetime import datetime

import uvicorn
from fastapi import BackgroundTasks, FastAPI, HTTPException
from pydantic import BaseModel

LOG = logging.getLogger(__name__)
TRUSTED = ["account1", "account2", "trustedbuilder"]


class PushData(BaseModel):
    """What was pushed."""

    pushed_at: datetime
    pusher: str
    tag: str


class Repository(BaseModel):
    """Where to."""

    namespace: str
    owner: str
    name: str
    repo_name: str
    repo_url: str
    date_created: datetime
    description: str | None = None
    dockerfile: str | None = None
    full_description: str | None = None
    comment_count: int = 0
    is_official: bool = False
    is_private: bool = True
    is_trusted: bool = False
    star_count: int = 0
    status: str = "Active"


class Payload(BaseModel):
    """Docker Hub's body."""

    callback_url: str
    push_data: PushData
    repository: Repository


app = FastAPI()


def pull(repository: str) -> None:
    """Stand in for the pull."""


@app.post("/")
async def receive(payload: Payload, background_tasks: BackgroundTasks) -> dict[str, str]:
    """Receive a push, as the original did."""
    if payload.push_data.pusher not in TRUSTED:
        LOG.warning("refused %s", payload.repository.repo_url)
        raise HTTPException(status_code=400, detail="Your request cannot be processed!")
    background_tasks.add_task(pull, payload.repository.repo_name)
    return {"state": "success", "description": "pulling", "context": "seed", "target_url": "https://example.com/"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
