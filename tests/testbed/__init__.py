"""Real parts for the integration tests and the demo: Docker engines, a registry, images.

Standard library only, Linux, root. Nothing of the host is changed but for one package and a cache
folder: every engine runs in namespaces of its own, which end with the process that holds them.

Reading order:

- `packages`    what the host itself must have
- `trees`       root file systems with the engines and tools in them, made once and cached
- `namespaces`, `processes`   the kernel's calls
- `machine`     one set of namespaces with a first process (`init`) and a network relay (`relay`)
- `engine`      a Docker engine on such a machine: start, stop, kill, restart, reboot
- `api`         the engine's HTTP API, as bare as tests want it
- `registry`    CNCF Distribution on a loopback port, and pushing to it
- `images`      images made as bytes, without an engine
- `standin`     the stand-in for the official Python base image
- `parts`       all parts of one run, and cleaning up after runs that were killed
"""
