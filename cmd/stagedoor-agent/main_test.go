package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"stagedoor-agent": main})
}

// TestScripts runs the scripts beside a gateway that admits task good, refuses
// every other one with the code that the task is named after, and replaces the
// agent of task replaced once it is in.
func TestScripts(t *testing.T) {
	cert, _ := testenv.Certificate(t)
	server := startServer(t, cert)
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		RequireUniqueNames: true,
		Deadline:           time.Now().Add(3 * time.Minute), // for a program that hangs
		Setup: func(e *testscript.Env) error {
			testenv.WriteCertificate(t, e.WorkDir, cert)
			e.Setenv("CA", filepath.Join(e.WorkDir, "cert.pem"))
			e.Setenv("SERVER", server.address)
			// Nobody listens on a port that was just given back.
			e.Setenv("NOBODY", unusedAddress(t))
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else every command takes a second more
			e.Values["t"] = t
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "token": setToken},
	})
}

// exits runs a command and compares its status: exits 3 stagedoor-agent connect
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%s ended with status %d, not %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// setToken puts a token for a task into a variable, which may grant entry to the
// keys in files: token good STAGEDOOR_TOKEN key.pub
func setToken(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: token TASK VARIABLE [FILE...]")
	}
	var keys []string
	for _, file := range args[2:] {
		keys = append(keys, strings.TrimSpace(ts.ReadFile(file)))
	}
	ts.Setenv(args[1], newToken(ts.Value("t").(*testing.T), args[0], keys...))
}

func newToken(t *testing.T, task string, keys ...string) string {
	t.Helper()
	secret := make([]byte, 32)
	rand.Read(secret)
	grant := auth.Grant{AuthorizedKeys: keys}
	raw, err := auth.MintToken(secret, auth.Token{Task: auth.TaskID(task), Expires: time.Now().Add(time.Hour), Grant: grant})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// server is the tunnel end of a gateway, and nothing else.
type server struct {
	address string
	tunnels chan *tunnel.Tunnel // of task good
}

func startServer(t *testing.T, cert tls.Certificate) *server {
	t.Helper()
	l := tls.NewListener(testenv.Listen(t), &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{tunnel.ALPN},
	})
	s := &server{address: l.Addr().String(), tunnels: make(chan *tunnel.Tunnel, 8)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		cancel()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.serve(ctx, c) })
		}
	})
	return s
}

func (s *server) serve(ctx context.Context, c net.Conn) {
	tun, err := tunnel.Accept(ctx, c, nil, admit)
	if err != nil {
		return
	}
	defer tun.Close()
	switch tun.Hello().Task {
	case "replaced":
		tun.Control().Send(ctx, tunnel.Message{Type: tunnel.TypeReplaced, Reason: "an agent with a newer token took over"})
	case "good":
		select {
		case s.tunnels <- tun:
		default:
		}
	}
	select {
	case <-tun.Done():
	case <-ctx.Done():
	}
}

func admit(_ context.Context, _ *tunnel.Tunnel, h tunnel.Hello) (tunnel.Welcome, error) {
	switch h.Task {
	case "good", "replaced":
		return tunnel.Welcome{Address: "terminal.example.com:2222"}, nil
	case "nowhere":
		return tunnel.Welcome{Address: "-oProxyCommand=reboot:22"}, nil
	}
	return tunnel.Welcome{}, &tunnel.Refusal{Code: h.Task, Message: "because \x1b[31mso"}
}

func unusedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestSignalEndsInPeace also shows that a lost link is dialled again, and that
// the same command is not printed again for it.
func TestSignalEndsInPeace(t *testing.T) {
	// Under nohup, SIGHUP is not among them: the agent inherits that.
	for _, sig := range cli.EndSignals() {
		t.Run(sig.String(), func(t *testing.T) {
			cert, _ := testenv.Certificate(t)
			server := startServer(t, cert)
			ca, _ := testenv.WriteCertificate(t, t.TempDir(), cert)
			cmd := exec.CommandContext(t.Context(), "stagedoor-agent", "connect", "--gateway", server.address, "--ca-file", ca)
			cmd.Env = append(os.Environ(), "STAGEDOOR_TOKEN="+newToken(t, "good"))
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			(<-server.tunnels).Close()
			again := <-server.tunnels
			if err := again.Probe(t.Context()); err != nil {
				t.Errorf("the second tunnel: %v", err)
			}
			cmd.Process.Signal(sig)
			if err := cmd.Wait(); err != nil {
				t.Errorf("after %v: %v\n%s", sig, err, stderr.String())
			}
			if got := stdout.String(); got != "ssh -p 2222 good@terminal.example.com\n" {
				t.Errorf("standard output: %q", got)
			}
		})
	}
}

// TestTokenIsNotShown gives a token in every way and looks for it in all that
// is printed.
func TestTokenIsNotShown(t *testing.T) {
	const secret = "c2VjcmV0LXNlY3JldA"
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("STAGEDOOR_LOG_LEVEL", "debug")
	for name, args := range map[string][]string{
		"flag":      {"--token", secret, "--gateway", "localhost"},
		"file":      {"--token-file", file, "--gateway", "localhost"},
		"no such":   {"--token", secret, "--gateway", "ftp://" + secret + "@localhost"},
		"no target": {"--token", secret},
	} {
		var out bytes.Buffer
		err := run(t.Context(), append([]string{"connect"}, args...), strings.NewReader(""), &out, &out)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		if text := out.String() + err.Error(); strings.Contains(text, secret) {
			t.Errorf("%s: the token is in %q", name, text)
		}
	}
}
