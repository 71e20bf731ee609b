package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// signInKinds are the keys that a guest may have, as ssh-keygen makes them.
var signInKinds = []struct{ name, arguments, signature string }{
	{"ed25519", "-t ed25519", ""},
	{"ECDSA 256", "-t ecdsa -b 256", ""},
	{"ECDSA 384", "-t ecdsa -b 384", ""},
	{"ECDSA 521", "-t ecdsa -b 521", ""},
	{"RSA SHA-256", "-t rsa -b 3072", "rsa-sha2-256"},
	{"RSA SHA-512", "-t rsa -b 3072", "rsa-sha2-512"},
}

// TestKeys signs in with every type of key, at the gateway and at the agent.
func TestKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var keys []testenv.Key
	var granted []string
	for i, kind := range signInKinds {
		keys = append(keys, keygen(t, dir, "key"+string(rune('a'+i)), strings.Fields(kind.arguments)...))
		granted = append(granted, keys[i].Line)
	}
	w := newWorld(t)
	hostKey := keygen(t, w.dir, "host", "-t", "ed25519")
	w.startAgent([]string{"STAGEDOOR_TOKEN=" + w.token("--authorized-keys", lines(t, granted...))}, "--host-key", hostKey.File)
	for i, kind := range signInKinds {
		t.Run(kind.name, func(t *testing.T) {
			for _, w := range w.bothWays(t, keys[i], hostKey) {
				w.run("-o", "PubkeyAcceptedAlgorithms="+or(kind.signature, "*"), "true")
			}
		})
	}
	t.Run("RSA SHA-1", func(t *testing.T) {
		for _, w := range w.bothWays(t, keys[len(keys)-1], hostKey) {
			testSHA1(t, w.command("ssh", "-v", "-o", "PubkeyAcceptedAlgorithms=ssh-rsa", w.target(), "true"))
		}
	})
}

// bothWays are the worlds of a guest who signs in with a key at the gateway, and
// of one who jumps with the world's key and signs in with this one at the agent.
func (w *world) bothWays(t *testing.T, key, hostKey testenv.Key, more ...string) []*world {
	t.Helper()
	sub := w.in(t)
	sub.key = key
	jump := append(more, "Host 127.0.0.1", "IdentityFile "+w.key.File, "Match all")
	return []*world{sub.spliced(t, more...), sub.endToEnd(t, hostKey, jump...)}
}

// testSHA1: the server says which signatures it takes (RFC 8308 §3.1), and SHA-1
// is not among them; a client that has nothing else gives up.
func testSHA1(t *testing.T, cmd *exec.Cmd) {
	out := fails(t, cmd)
	if !strings.Contains(out, "no mutual signature algorithm") {
		t.Errorf("refused for another reason:\n%s", out)
	}
	_, list, _ := strings.Cut(out, "server-sig-algs=<")
	list, _, found := strings.Cut(list, ">")
	for algorithm := range strings.SplitSeq(list, ",") {
		if !found || algorithm == "ssh-rsa" || algorithm == "ssh-dss" {
			t.Errorf("signatures taken: %q", list)
		}
	}
}

// TestSecurityKeys signs in with FIDO keys. A touch is asked for, unless the
// key's own line waives it.
func TestSecurityKeys(t *testing.T) {
	t.Parallel()
	provider := securityKey(t)
	dir := t.TempDir()
	enroll := func(name, kind string, more ...string) testenv.Key {
		return keygen(t, dir, name, append([]string{"-t", kind, "-w", provider}, more...)...)
	}
	var all []testenv.Key
	var granted []string
	for _, kind := range []string{"ed25519-sk", "ecdsa-sk"} {
		touched := enroll("touched-"+kind, kind)
		untouched := enroll("untouched-"+kind, kind, "-O", "no-touch-required")
		waived := enroll("waived-"+kind, kind, "-O", "no-touch-required")
		all = append(all, touched, untouched, waived)
		granted = append(granted, touched.Line, untouched.Line, "no-touch-required "+waived.Line)
	}
	w := newWorld(t)
	hostKey := keygen(t, w.dir, "host", "-t", "ed25519")
	agent := w.startAgent([]string{"STAGEDOOR_TOKEN=" + w.token("--authorized-keys", lines(t, granted...))},
		"--host-key", hostKey.File, "--log-level", "debug")
	for _, key := range all {
		t.Run(filepath.Base(key.File), func(t *testing.T) {
			for _, w := range w.bothWays(t, key, hostKey, "SecurityKeyProvider "+provider) {
				cmd := w.command("ssh", w.target(), "true")
				if strings.Contains(key.File, "untouched") {
					fails(t, cmd)
					continue
				}
				mustRun(t, cmd)
			}
		})
	}
	for _, p := range []*testenv.Process{w.gateway, agent} {
		p.WaitFor("user presence") // is what the log has to say of the others
	}
}

// securityKey builds a security key in software, for ssh's SecurityKeyProvider.
func securityKey(t *testing.T) (provider string) {
	t.Helper()
	provider = filepath.Join(t.TempDir(), "securitykey.so")
	cmd := exec.CommandContext(t.Context(), testenv.Need(t, "cc"), "-Wall", "-Wno-deprecated-declarations",
		"-shared", "-fPIC", "-o", provider, filepath.Join("testdata", "securitykey.c"), "-lcrypto")
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "openssl/") {
			testenv.Skip(t, "needs libssl-dev")
		}
		t.Fatalf("%v\n%s", err, out)
	}
	return provider
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
