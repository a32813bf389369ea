"""A reverse proxy as an image: nginx from the tools' tree, with what it needs and nothing to be installed."""

import os
import subprocess
from functools import cache
from pathlib import Path

from tests.testbed import trees
from tests.testbed.errors import PartError
from tests.testbed.images import Image, Layer, base, packed

PORT = 80

# The name is resolved anew each second, for containers come and go; one that does not answer is passed over.
_CONFIGURATION = """
daemon off;
user root;
pid /tmp/nginx.pid;
error_log stderr warn;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxied; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  resolver 127.0.0.11 valid=1s ipv6=off;
  server {
    listen 80;
    set $upstream %(upstream)s;
    location / {
      proxy_pass http://$upstream;
      proxy_connect_timeout 1s;
      proxy_next_upstream error timeout;
    }
  }
}
"""


def proxy(upstream: str) -> Image:
    """Make an image that serves on `PORT` what `upstream`, a name and a port, answers."""
    small = base()
    configuration = packed({"/etc/nginx.conf": _CONFIGURATION % {"upstream": upstream}})
    command = ["/usr/sbin/nginx", "-c", "/etc/nginx.conf", "-e", "stderr"]
    return Image(layers=(*small.layers, _nginx(), configuration), config={**small.config, "Cmd": command})


@cache
def _nginx() -> Layer:
    tree = trees.ready(trees.TOOLS)
    paths = ["/usr/sbin/nginx", *_libraries(tree, "/usr/sbin/nginx")]
    return packed({path: (tree / path.lstrip("/")).read_bytes() for path in paths})


def _libraries(tree: Path, program: str) -> list[str]:
    """Ask the tree's own loader for what a program needs: absolute paths."""
    done = subprocess.run(["chroot", os.fspath(tree), "ldd", program], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = f"Listing the libraries of {program!r}: {done.stderr.strip()}"
        raise PartError(message)
    words = (word for line in done.stdout.splitlines() for word in line.split())
    return sorted({word for word in words if word.startswith("/")})
