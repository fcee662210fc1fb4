# fleetmint, the whole tool, in an image: `docker build --build-arg BASE=debian:trixie-slim --tag fleetmint .`
#
# The emulator for other containers, which call this one `aws`:
#   docker run --name aws fleetmint emulate --listen 0.0.0.0:8443 --mqtt-listen 0.0.0.0:8883 --advertise aws \
#     --admin 127.0.0.1:8080 --ca-file /tmp/ca.pem
ARG BASE=debian:trixie-slim
ARG BUILDER=rust:slim-trixie

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked && mkdir /out && cp target/release/fleetmint /out/

FROM ${BASE}
COPY --from=build /out/fleetmint /usr/local/bin/fleetmint
# nobody, by number: an orchestrator can see that this is not root.
USER 65534:65534
WORKDIR /tmp
EXPOSE 8443 8883
# Whatever the address, the admin API answers on loopback inside the container.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=5 \
  CMD ["/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /health HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n' >&3 && grep -q ' 200 OK' <&3"]
ENTRYPOINT ["/usr/local/bin/fleetmint"]
CMD ["emulate", "--listen", "0.0.0.0:8443", "--mqtt-listen", "0.0.0.0:8883", "--admin", "127.0.0.1:8080"]
