# The images, from the static programs that `make build` leaves in bin:
#
#     docker build --target elector -t registry.example.com/elector .
#     docker build --target webhook -t registry.example.com/elector-webhook .
#
# `make image` needs no builder, makes the same content for several architectures, and makes the same bytes every time.
FROM scratch AS elector
LABEL org.opencontainers.image.title=elector \
	org.opencontainers.image.source=https://github.com/elector-io/elector \
	org.opencontainers.image.licenses=Apache-2.0
COPY bin/elector /elector
WORKDIR /
USER 65532:65532
ENTRYPOINT ["/elector"]

FROM scratch AS webhook
LABEL org.opencontainers.image.title=elector-webhook \
	org.opencontainers.image.source=https://github.com/elector-io/elector \
	org.opencontainers.image.licenses=Apache-2.0
COPY bin/webhook /webhook
WORKDIR /
USER 65532:65532
ENTRYPOINT ["/webhook"]
