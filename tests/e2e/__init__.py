"""The whole: Sidecar's own image as a container beside those that it looks after."""
