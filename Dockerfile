# Sidecar's image: the package and its pinned, hashed requirements on a slim Python; no compiler, no pip, no shell needed.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /build
# One environment builds, the other one is shipped and has nothing that installs.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/sidecar
COPY requirements/build.txt requirements/run.txt requirements/
RUN /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
      -r requirements/build.txt \
 && /opt/build/bin/pip --python /opt/sidecar/bin/python install --no-cache-dir --disable-pip-version-check \
      --require-hashes --only-binary :all: -r requirements/run.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY sidecar sidecar
RUN /opt/build/bin/pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation \
      --wheel-dir /build/dist . \
 && /opt/build/bin/pip --python /opt/sidecar/bin/python install --no-cache-dir --disable-pip-version-check \
      --no-deps --no-index /build/dist/*.whl

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="Sidecar" \
      org.opencontainers.image.description="Recreates labelled containers when a registry says that their image was pushed" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

COPY --from=build /opt/sidecar /opt/sidecar
ENV PATH=/opt/sidecar/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SIDECAR_STATE_DIR=/data

# Not root: whoever may open the engine's socket is root all the same, but a mistake in anything else is not.
# Its group is given at the start: group_add in Compose, --group-add otherwise; `sidecar doctor` prints the number.
RUN mkdir /data && chown 65532:65532 /data
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["sidecar", "healthcheck"]
ENTRYPOINT ["sidecar"]
CMD ["run"]
