package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"stagedoor": main})
}

// TestScripts runs the real program. Each script finds a certificate for
// localhost, the key pair of alice, and the addresses of the servers in
// servers_test.go.
func TestScripts(t *testing.T) {
	servers := startServers(t)
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		RequireUniqueNames: true,
		Deadline:           time.Now().Add(3 * time.Minute), // for a program that hangs
		Setup: func(e *testscript.Env) error {
			cert, _ := testenv.Certificate(t)
			testenv.WriteCertificate(t, e.WorkDir, cert)
			testenv.NewKey(t, e.WorkDir, "alice")
			e.Setenv("STAGEDOOR_STATE_DIR", filepath.Join(e.WorkDir, "state"))
			e.Setenv("ROOT", moduleRoot(t))
			servers.setup(e)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "verify": verify},
	})
}

// exits runs a command and compares its status: exits 2 stagedoor nonsense
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

// verify checks the token in a file as a gateway would, and prints what it
// says: verify KEY AUDIENCE TOKEN. KEY is a public key, a shared secret, or the
// private key that a gateway made for itself.
func verify(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: verify KEY AUDIENCE TOKEN")
	}
	keys, err := auth.LoadTokenVerifyKeys(ts.MkAbs(args[0]))
	if err != nil {
		private, _, err := auth.LoadOrCreateEd25519(ts.MkAbs(args[0]))
		ts.Check(err)
		keys = []any{private.Public()}
	}
	v := &auth.TokenVerifier{Keys: keys, Audience: args[1]}
	token, err := v.Verify(context.Background(), strings.TrimSuffix(ts.ReadFile(args[2]), "\n"))
	if neg {
		if err == nil {
			ts.Fatalf("the token is valid")
		}
		return
	}
	ts.Check(err)
	permissions := "all"
	if token.Grant.Permissions != nil {
		permissions = strings.Join(token.Grant.Permissions, ",")
	}
	ts.Logf("verified")
	file := ts.MkAbs("verified")
	text := strings.Join([]string{string(token.Task), token.Expires.Sub(token.IssuedAt).String(), permissions, strings.Join(token.Grant.AuthorizedKeys, "\n")}, "\n")
	for name, list := range map[string][]string{"open": token.Grant.PermitOpen, "listen": token.Grant.PermitListen} {
		if list != nil {
			text += fmt.Sprintf("\n%s %q", name, list)
		}
	}
	if limits := token.Grant.Limits; limits != (auth.GrantLimits{}) {
		text += fmt.Sprintf("\nlimits %+v", limits)
	}
	ts.Check(os.WriteFile(file, []byte(text+"\n"), 0o600))
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// write makes a file of a test.
func write(t *testing.T, file, text string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// occupied is an address that somebody listens on.
func occupied(t *testing.T) net.Listener { return testenv.Listen(t) }
