package gateway_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

func noise(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(p)
	return p
}

// TestRekeyUnderLoad: guest and host change keys all the time while data go both
// ways through the join, and none is lost.
func TestRekeyUnderLoad(t *testing.T) {
	t.Parallel()
	const threshold = 64 << 10
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startHost("task-1", w.token("task-1", time.Now(), k), func(h *fakeHost, s *tunnel.Stream) {
		conn, channels, requests, err := h.sshServer(s, func(c *ssh.ServerConfig) { c.RekeyThreshold = threshold })
		if err != nil {
			return
		}
		defer conn.Close()
		go ssh.DiscardRequests(requests)
		for nc := range channels {
			go echoChannel(nc)
		}
	})
	c, err := ssh.Dial("tcp", w.ssh, &ssh.ClientConfig{
		Config: ssh.Config{RekeyThreshold: threshold}, User: "task-1", Auth: []ssh.AuthMethod{ssh.PublicKeys(k.Signer)},
		HostKeyCallback: ssh.FixedHostKey(w.hostKey.PublicKey()),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	results := make(chan error, 3)
	for range cap(results) {
		go func() { results <- echoAll(c, noise(4<<20)) }()
	}
	for range cap(results) {
		if err := await(t, results, "an echo"); err != nil {
			t.Error(err)
		}
	}
}

// echoAll has the host send back all of data.
func echoAll(c *ssh.Client, data []byte) error {
	ch, reqs, err := c.OpenChannel("session", nil)
	if err != nil {
		return err
	}
	go ssh.DiscardRequests(reqs)
	wrote := make(chan error, 1)
	go func() {
		_, err := ch.Write(data)
		wrote <- errors.Join(err, ch.CloseWrite())
	}()
	got, err := io.ReadAll(ch)
	if err == nil {
		err = <-wrote
	}
	if err == nil && !bytes.Equal(got, data) {
		err = errors.New("other bytes came back")
	}
	return err
}

// TestRekeyByStockClient: the same with ssh, spliced and end to end.
func TestRekeyByStockClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	hostKey := testenv.Signer(t)
	w.startAgent(w.token("task-1", time.Now(), k), withHostKey(hostKey))
	j := w.newJumper(map[string]ssh.PublicKey{"task-1": hostKey.PublicKey()}, "IdentityFile "+k.File, "RekeyLimit 1M", "LogLevel DEBUG1")
	data := noise(8 << 20)
	for name, args := range map[string][]string{
		"spliced":    {"task-1@gw", "cat"},
		"end to end": {"-J", "gw", "task-1", "cat"},
	} {
		var log strings.Builder
		cmd := j.command(args...)
		cmd.Stdin, cmd.Stderr = bytes.NewReader(data), &log
		out, err := cmd.Output()
		if err != nil || !bytes.Equal(out, data) {
			t.Errorf("%s: %v, %d bytes of %d came back", name, err, len(out), len(data))
		}
		if n := strings.Count(log.String(), "SSH2_MSG_NEWKEYS sent"); n < 4 {
			t.Errorf("%s: keys were changed %d times", name, n)
		}
	}
}
