# Flink, as the official image has it, with the file system of Azure Storage (abfss://), where
# checkpoints and savepoints lie. Beam needs nothing in it: a job brings its own.
ARG FLINK=flink:1.19.3-scala_2.12-java17
FROM ${FLINK}
LABEL org.opencontainers.image.title="alertbeam-flink" \
      org.opencontainers.image.description="Flink 1.19 for alertbeam, with Azure Storage" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# The entry point could link it at each start, unless the root file system is read-only.
RUN mkdir plugins/azure-fs-hadoop && \
    cp opt/flink-azure-fs-hadoop-*.jar plugins/azure-fs-hadoop/ && \
    install -d -m 0700 -o 9999 -g 9999 /var/lib/flink
USER 9999:9999
# The JobManager's REST API; a TaskManager sets HEALTH_PORT=6122.
HEALTHCHECK --start-period=60s --timeout=5s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${HEALTH_PORT:-8081}"]
