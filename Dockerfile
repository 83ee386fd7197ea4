# The image of homing: the program on a plain Debian, run by a user who is not root.
#
#   docker build -t homing .
#   docker run --rm -p 8443:8443 -v "$PWD/homing.toml:/etc/homing/homing.toml:ro" ... homing
#
# docker-compose.yml runs a whole cluster of it. Nothing here needs BuildKit.

ARG RUST=1.95

FROM rust:${RUST}-slim-bookworm AS build
# `--build-arg PROFILE=dev` for a program that is slower, and much sooner there.
ARG PROFILE=release
WORKDIR /build
# The dependencies alone, with a program that does nothing: kept until one of these two files changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src benches \
    && echo 'fn main() {}' | tee src/main.rs benches/codec.rs >benches/affinity.rs \
    && touch src/lib.rs \
    && cargo build --locked --profile "${PROFILE}" \
    && rm -r src
COPY src src
# Sources that are older than the build above would pass for built.
RUN find src -name '*.rs' -exec touch {} + \
    && cargo build --locked --profile "${PROFILE}" --bin homing \
    && install -D target/*/homing /out/homing

FROM debian:bookworm-slim
# A number, so that it is known not to be root without a look into /etc/passwd.
RUN groupadd --system --gid 10001 homing \
    && useradd --system --uid 10001 --gid homing --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin homing
COPY --from=build /out/homing /usr/local/bin/homing
USER 10001:10001
EXPOSE 8443 8080 9090
# Asks /readyz of the admin listener at http://127.0.0.1:9090, or where HOMING_ADMIN says.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["homing", "probe"]
ENTRYPOINT ["homing"]
CMD ["serve", "--config", "/etc/homing/homing.toml"]
