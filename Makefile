# make try     a gateway and an agent on this machine, and the ssh command to enter
# make test    everything that is tested, with what it needs installed first
# make build   both binaries, in bin/
# make dist    agents for every platform and the gateway, with SHA256SUMS, in dist/

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X github.com/stagedoor/stagedoor/cmd/internal/version.version=$(VERSION)

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: all build dist try test deps lint cross fuzz bench clean

all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/stagedoor ./cmd/stagedoor-agent

# What a gateway hands out (https.agents) and releases are made of. DIST chooses,
# as in DIST=stagedoor-agent/linux/arm64, and DIST_DIR says where to.
DIST     ?=
DIST_DIR ?= dist
dist:
	@GO='$(GO)' LDFLAGS='$(LDFLAGS)' .ci/dist '$(DIST_DIR)' $(DIST)

# TRY passes flags on: make try TRY=--connect
try: build
	@bin/stagedoor try $(TRY)

# The tests drive real ssh, scp, sftp, rsync, sshd and tmux. Without root the
# test run says at its end what it had to skip.
test: deps lint cross
	@.ci/test

deps:
	@.ci/deps

lint:
	@test -z "$$(gofmt -l .)" || { echo "gofmt these files:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	@.ci/vulncheck $(GOVULNCHECK)

# Every platform that the binaries are built for compiles (they are not linked), in
# the way that dist builds them.
cross:
	@for target in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do \
		echo "compile for $$target"; \
		CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} $(GO) build -trimpath ./cmd/... || exit 1; \
	done
	@echo "compile for windows/amd64 (agent)"
	@CGO_ENABLED=0 GOOS=windows GOARCH=amd64 $(GO) build -trimpath ./agent/... ./tunnel/... ./auth/...
	@CGO_ENABLED=0 GOOS=windows GOARCH=amd64 $(GO) vet ./cmd/stagedoor-agent

# FUZZTIME=10m make fuzz: every fuzz test for that long.
fuzz:
	@.ci/fuzz $${FUZZTIME:-30s}

bench: build
	$(GO) run ./test/bench

clean:
	rm -rf bin dist bench-out
