# jobstate in a container: user 10001, and made for a read-only root (it writes nothing outside of /data). It has no
# nats-server in it, so no --embedded. Never built where it was written: there was no container engine.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY consumer consumer
COPY config config
RUN python -m venv /opt/jobstate && /opt/jobstate/bin/pip install --no-cache-dir '.[fast]'

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home jobstate && install -d -o jobstate /data
COPY --from=build /opt/jobstate /opt/jobstate
ENV PATH=/opt/jobstate/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER jobstate
WORKDIR /data
EXPOSE 9090
# /livez asks whether the loops go round, not whether the process exists.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ.get(\"JOBSTATE_HTTP__PORT\", \"9090\")}/livez', timeout=2)"]
ENTRYPOINT ["jobstate"]
CMD ["run"]
