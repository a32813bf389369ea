"""What Sidecar looks after: one driver a kind of target. Drivers do not know each other; what decides is pure."""
