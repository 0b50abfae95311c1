# A PostgreSQL server for compose.yml: a primary, or a streaming replica of one (postgres.sh).

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-common \
    && sed -ri 's/^#?create_main_cluster .*/create_main_cluster = false/' \
        /etc/postgresql-common/createcluster.conf \
    && apt-get install --yes --no-install-recommends postgresql-15 \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o postgres -g postgres /data /secrets
ENV PATH=/usr/lib/postgresql/15/bin:$PATH
COPY --chown=postgres postgres.sh /usr/local/bin/
USER postgres
EXPOSE 5432
# PostgreSQL's fast shutdown: SIGTERM would wait for every client to leave.
STOPSIGNAL SIGINT
# Over TCP: the server that runs while roles are made listens on its socket only.
HEALTHCHECK --interval=2s --timeout=3s --start-period=60s --retries=5 \
    CMD ["pg_isready", "--quiet", "--host=127.0.0.1"]
ENTRYPOINT ["sh", "/usr/local/bin/postgres.sh"]
