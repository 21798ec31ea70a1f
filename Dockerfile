# jobstate in a container: user 10001 of group 10001, and made for a read-only root (it writes nothing outside of /data and
# /dev/shm). It has no nats-server in it, so no --embedded. `make container` builds it and runs it.
FROM python:3.11-slim AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Exactly what is locked, in a layer that a changed source line leaves alone.
COPY requirements.lock ./
RUN sed '/^# == run/,$d' requirements.lock > build.txt \
    && sed '1,/^# == run/d; /^# == develop/,$d' requirements.lock > run.txt \
    && pip install --require-hashes --only-binary :all: -r build.txt \
    && pip wheel --require-hashes --only-binary :all: --no-binary nkeys --no-build-isolation --wheel-dir /wheels -r run.txt \
    && python -m venv --without-pip /opt/jobstate \
    && pip --python /opt/jobstate/bin/python install --no-index --no-deps /wheels/*.whl

FROM dependencies AS package
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY consumer consumer
RUN pip --python /opt/jobstate/bin/python install --no-index --no-deps --root /package \
    $(pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir /own . && ls /own/*.whl)

FROM python:3.11-slim
# The base image has no bytecode, and nobody here may write it: each start would compile what it imports.
RUN groupadd --gid 10001 jobstate \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /bin/false --no-log-init jobstate \
    && mkdir /data && chown 10001:10001 /data \
    && python -m compileall -q -x '/(site-packages|ensurepip|idlelib|lib2to3|pydoc_data|test|tkinter|turtledemo)/' \
       "$(python -c 'import os; print(os.path.dirname(os.__file__))')"
COPY --from=dependencies /opt/jobstate /opt/jobstate
COPY --from=package /package/ /
ENV PATH=/opt/jobstate/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    JOBSTATE_HTTP__HOST=* JOBSTATE_HTTP__ADDRESS_FILE=/dev/shm/jobstate.url
USER 10001:10001
WORKDIR /data
EXPOSE 9090
# It asks /livez, whether the loops go round, at the address that the daemon wrote: whatever its port, host or proxy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-I", "-m", "consumer.probe"]
ENTRYPOINT ["jobstate"]
CMD ["run"]
