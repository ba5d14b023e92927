# The service as an image: the dependencies as requirements.lock pins them, and the package.
# docs/deployment.md says how to run it.
FROM python:3.13-slim AS base

FROM base AS build

# Wheels alone: building from source would fetch a build backend whose hash is not checked.
RUN --mount=type=bind,source=requirements.lock,target=/requirements.lock \
    --mount=type=cache,target=/var/cache/pip \
    python -m venv --without-pip /venv \
    && python -m pip --python /venv/bin/python --cache-dir /var/cache/pip install \
        --no-compile --only-binary=:all: --require-hashes --requirement /requirements.lock

# Where the service runs nothing can be written, so the bytecode is made here. It is not compared
# with its source again, because neither ever changes.
RUN /venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /venv/lib

# The package needs no building, and with none no build backend is needed either.
COPY example_service /app/example_service
RUN /venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /app \
    && chmod -R a+rX /app

FROM base

ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ENVIRONMENT=production \
    HOST=0.0.0.0

COPY --from=build /venv /venv
COPY --from=build /app /app

WORKDIR /app
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001

EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "example_service.healthcheck"]

# Without a shell, so that signals reach the service.
ENTRYPOINT ["python", "-m", "example_service"]
CMD ["serve"]
