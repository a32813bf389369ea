"""Temporary."""
from __future__ import annotations
import json
from sidecar.journal_values import write_rollout, write_plan, read_rollout, encode
class MemoryJournal:
    def __init__(self, *, clock):
        self.clock=clock; self.recorded=[]; self.rejects={}; self.images=[]; self.finished=[]
    def _keep(self, r):
        r=read_rollout(json.loads(encode(write_rollout(r))), write_plan(r)); self.recorded.append(r)
        if r.rejected: self.rejects.setdefault((r.service,r.repository),{})[r.rejected]=r.reason
    async def record(self, rollout, *, after=None):
        if after is not None: self._keep(after)
        self._keep(rollout)
    async def open_rollout(self, target_id):
        last={}
        for r in self.recorded:
            if r.target_id==target_id: last[r.id]=r
        o=[r for r in last.values() if r.is_open]
        assert len(o)<=1
        return o[0] if o else None
    async def open_rollouts(self):
        last={r.id:r for r in self.recorded}; return [r for r in last.values() if r.is_open]
    async def rejected(self, service, repository): return self.rejects.get((service,repository),{})
    async def note_digest(self, repository, digest): return 0.0
