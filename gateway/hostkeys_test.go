package gateway_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

func rsaSigner(t *testing.T) ssh.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// knowing is a stock client with a known_hosts of its own that it keeps up to
// date.
type knowing struct {
	w     *world
	known string
}

func (w *world) newKnowing(key ssh.PublicKey) *knowing {
	w.t.Helper()
	c := &knowing{w: w, known: filepath.Join(w.t.TempDir(), "known_hosts")}
	host, port, _ := net.SplitHostPort(w.ssh)
	line := fmt.Sprintf("[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(key))
	if err := os.WriteFile(c.known, []byte(line), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// visit runs a command, and returns which of the keys are known then.
func (c *knowing) visit(k testenv.Key, keys ...ssh.Signer) (known []bool) {
	c.w.t.Helper()
	cmd := c.w.sshCommand("task-1", k, "true")
	for i, arg := range cmd.Args {
		if strings.HasPrefix(arg, "UserKnownHostsFile=") {
			cmd.Args[i] = "UserKnownHostsFile=" + c.known
		}
	}
	cmd.Args = append([]string{cmd.Args[0], "-o", "UpdateHostKeys=yes"}, cmd.Args[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) > 0 {
		c.w.t.Fatalf("%v: %q, want no word", err, out)
	}
	data, err := os.ReadFile(c.known)
	if err != nil {
		c.w.t.Fatal(err)
	}
	for _, key := range keys {
		known = append(known, bytes.Contains(data, bytes.TrimSpace(ssh.MarshalAuthorizedKey(key.PublicKey()))))
	}
	return known
}

// TestReloadLogsHostKeys: an operator sees what guests are going to be shown.
func TestReloadLogsHostKeys(t *testing.T) {
	w := newWorld(t)
	next := testenv.Signer(t)
	settings := w.settings
	reload := func() {
		if err := w.server.Reload(settings); err != nil {
			t.Fatal(err)
		}
	}
	reload()
	if log := w.log.String(); strings.Contains(log, "host keys have changed") {
		t.Errorf("nothing has changed:\n%s", log)
	}
	settings.NextHostKeys = []ssh.Signer{next}
	reload()
	settings.HostKeys, settings.NextHostKeys = settings.NextHostKeys, nil
	reload()
	old, new := ssh.FingerprintSHA256(w.hostKey.PublicKey()), ssh.FingerprintSHA256(next.PublicKey())
	for _, want := range []string{"host_keys=[" + old + "] announced=[" + new + "]\n", "host_keys=[" + new + "]\n"} {
		if !strings.Contains(w.log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, w.log.String())
		}
	}
}

// TestHostKeyRotation moves from one host key to the next, and a guest who comes
// at each step never sees a warning.
func TestHostKeyRotation(t *testing.T) {
	for _, kind := range []string{"ed25519", "rsa"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			k := testenv.NewKey(t, w.dir, "alice")
			w.startAgent(w.token("task-1", time.Now(), k))
			before, next := w.hostKey, testenv.Signer(t)
			if kind == "rsa" {
				next = rsaSigner(t)
			}
			c := w.newKnowing(before.PublicKey())
			steps := []struct {
				change func(*gateway.Settings)
				want   []bool
			}{
				{func(s *gateway.Settings) {}, []bool{true, false}},
				{func(s *gateway.Settings) { s.NextHostKeys = []ssh.Signer{next} }, []bool{true, true}},
				{func(s *gateway.Settings) { s.HostKeys, s.NextHostKeys = []ssh.Signer{next}, []ssh.Signer{before} }, []bool{true, true}},
				{func(s *gateway.Settings) { s.NextHostKeys = nil }, []bool{false, true}},
			}
			settings := w.settings
			for i, step := range steps {
				step.change(&settings)
				if err := w.server.Reload(settings); err != nil {
					t.Fatal(err)
				}
				// A short session can be over before ssh has the proof of new keys.
				eventually(t, fmt.Sprintf("step %d: of the old and the new key are known %v", i, step.want), func() bool {
					return slices.Equal(c.visit(k, before, next), step.want)
				})
			}
		})
	}
}

// blobs is the payload of a hostkeys-prove-00 request.
func blobs(keys ...ssh.Signer) []byte {
	var b []byte
	for _, key := range keys {
		b = append(b, ssh.Marshal(struct{ Blob []byte }{key.PublicKey().Marshal()})...)
	}
	return b
}

// TestHostKeyProof checks the signatures, and what is not signed.
func TestHostKeyProof(t *testing.T) {
	next := rsaSigner(t)
	w := newWorld(t, func(s *gateway.Settings) { s.NextHostKeys = []ssh.Signer{next} })
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	c := w.mustDial("alice", k) // who is no task: the host has no part in it
	ok, reply, err := c.SendRequest("hostkeys-prove-00@openssh.com", true, blobs(next, w.hostKey))
	if err != nil || !ok {
		t.Fatalf("%v, %v", ok, err)
	}
	for _, key := range []ssh.Signer{next, w.hostKey} {
		var signed struct {
			Signature []byte
			Rest      []byte `ssh:"rest"`
		}
		var signature ssh.Signature
		if err := ssh.Unmarshal(reply, &signed); err != nil {
			t.Fatal(err)
		}
		if err := ssh.Unmarshal(signed.Signature, &signature); err != nil {
			t.Fatal(err)
		}
		data := ssh.Marshal(struct {
			Request       string
			Session, Blob []byte
		}{"hostkeys-prove-00@openssh.com", c.SessionID(), key.PublicKey().Marshal()})
		if err := key.PublicKey().Verify(data, &signature); err != nil || signature.Format == ssh.KeyAlgoRSA {
			t.Errorf("%s: %v", signature.Format, err)
		}
		reply = signed.Rest
	}
	for what, payload := range map[string][]byte{
		"a foreign key":           blobs(testenv.Signer(t)),
		"a foreign key among own": blobs(w.hostKey, testenv.Signer(t)),
		"one key twice":           blobs(w.hostKey, w.hostKey),
		"no key":                  nil,
		"half a key":              blobs(w.hostKey)[:20],
		"a length":                {255, 255, 255, 255},
	} {
		c := w.mustDial("alice", k)
		if ok, reply, err := c.SendRequest("hostkeys-prove-00@openssh.com", true, payload); err != nil || ok || len(reply) > 0 {
			t.Errorf("%s: %v, %q, %v, want a failure", what, ok, reply, err)
		}
	}
	proved := 1
	for range 100 {
		ok, _, err := c.SendRequest("hostkeys-prove-00@openssh.com", true, blobs(w.hostKey))
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			proved++
		}
	}
	if proved > 4 {
		t.Errorf("the gateway signed %d times for one connection", proved)
	}
}
