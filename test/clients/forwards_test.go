package clients

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os/exec"
	"testing"

	"golang.org/x/net/proxy"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// A forwarder is a client's command line that makes forwarded connections from
// listen, an address or a port, to target, until it is killed.
type forwarder func(t *testing.T, g *guest, listen, target string) *exec.Cmd

// A piper is a client's command line that connects its stdin and stdout to target
// on the host's side.
type piper func(t *testing.T, g *guest, target string) *exec.Cmd

// forwards checks a forwarding that listens here, or on the host, which is the
// same machine.
func forwards(forward forwarder) check {
	return func(t *testing.T, g *guest) {
		forwardsTo(t, g, forward, g.w.digests.tcp)
	}
}

// forwardsWhenReady is forwards for a client that says when it is, as libraries
// know of a forwarding a moment later than the host, which may be too late.
func forwardsWhenReady(forward forwarder) check {
	return func(t *testing.T, g *guest) {
		listen := testenv.FreeAddress(t)
		cmd := forward(t, g, listen, g.w.digests.tcp)
		var out testenv.Output
		cmd.Stdout = &out
		start(t, cmd)
		ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
		defer cancel()
		if !out.Wait(ctx, func(s string) bool { return s == "ready\n" }, nil) {
			t.Fatal("it is not ready")
		}
		checkDigest(t, testenv.DialEventually(t, "tcp", listen))
	}
}

// forwardsUnix is forwards to a unix socket.
func forwardsUnix(forward forwarder) check {
	return func(t *testing.T, g *guest) { forwardsTo(t, g, forward, g.w.digests.unix) }
}

func forwardsTo(t *testing.T, g *guest, forward forwarder, target string) {
	t.Helper()
	listen := testenv.FreeAddress(t)
	start(t, forward(t, g, listen, target))
	checkDigest(t, testenv.DialEventually(t, "tcp", listen))
}

// forwardsAnywhere checks a SOCKS proxy in the client.
func forwardsAnywhere(forward forwarder) check {
	return func(t *testing.T, g *guest) {
		listen := testenv.FreeAddress(t)
		start(t, forward(t, g, listen, ""))
		testenv.DialEventually(t, "tcp", listen).Close()
		socks, err := proxy.SOCKS5("tcp", listen, nil, proxy.Direct)
		mustDo(t, err)
		c, err := socks.Dial("tcp", g.w.digests.tcp)
		mustDo(t, err)
		defer c.Close()
		checkDigest(t, c)
	}
}

// pipes checks a forwarding of the client's own stdin and stdout.
func pipes(target func(g *guest) string, pipe piper) check {
	return func(t *testing.T, g *guest) {
		data := randomBytes(1 << 20)
		cmd := pipe(t, g, target(g))
		cmd.Stdin = bytes.NewReader(data)
		if got := mustRun(t, cmd); got != digestOf(data) {
			t.Errorf("the answer is %q, want %q", got, digestOf(data))
		}
	}
}

func toTCP(g *guest) string  { return g.w.digests.tcp }
func toUnix(g *guest) string { return g.w.digests.unix }

// checkDigest sends 1 MiB, says that this was all, and reads the answer.
func checkDigest(t *testing.T, c net.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	data := randomBytes(1 << 20)
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	mustDo(t, c.(interface{ CloseWrite() error }).CloseWrite())
	got, err := io.ReadAll(bufio.NewReader(c))
	if err != nil || string(got) != digestOf(data) {
		t.Errorf("%v: the answer is %q, want %q", err, got, digestOf(data))
	}
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return fmt.Sprintf("%d %s\n", len(data), hex.EncodeToString(sum[:]))
}
